# SPDX-License-Identifier: Apache-2.0
"""A node that is told to end, or fails, while one of its callbacks is at work."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import pytest

rclpy = pytest.importorskip("rclpy", reason="ROS is not set up: run these through `make test`")

from composition_interfaces.srv import UnloadNode  # noqa: E402
from node_lab import NoSettings, a_frame, wait_until  # noqa: E402

from worldsystem_core.errors import BackendError, StageStuck  # noqa: E402
from worldsystem_core.ros import container, node_thread, topics  # noqa: E402
from worldsystem_core.ros.node_thread import NodeThread, finish_all  # noqa: E402
from worldsystem_core.ros.reference_topic import (  # noqa: E402
    BytesSubscription,
    ReferencePublisher,
)
from worldsystem_core.ros.stage_node import StageNode  # noqa: E402

pytestmark = pytest.mark.usefixtures("fresh_registry")


class Asked(StageNode):
    """Is at something that no inbox knows of, as the answer to a service, until `go`."""

    def __init__(self, context):
        super().__init__("asked", NoSettings, context=context)
        self.begun, self.go, self.ends = threading.Event(), threading.Event(), []
        self._once = self.create_timer(0.01, self._answer)

    def _answer(self):
        self._once.cancel()
        self.begun.set()
        self.go.wait(60.0)

    def input_ended(self):
        self.ends.append("input_ended")

    def close(self):
        self.ends.append("close")
        super().close()


def test_what_takes_long_without_an_inbox_is_waited_for_at_the_end(context, monkeypatch):
    monkeypatch.setattr(node_thread, "_JOIN_S", 0.05)
    thread = NodeThread(Asked(context))
    thread.start()
    assert thread.node.begun.wait(20.0)
    later = threading.Timer(0.5, thread.node.go.set)
    later.start()
    finish_all([thread], 60.0)
    later.join()
    assert thread.node.ends == ["input_ended", "close"]
    assert thread.failure is None


def test_a_stage_still_at_work_when_its_time_is_over_has_failed(context, monkeypatch):
    """Its results are lost: whoever runs it must not end as if all were well."""
    monkeypatch.setattr(node_thread, "_JOIN_S", 0.05)
    thread = NodeThread(Asked(context))
    thread.start()
    assert thread.node.begun.wait(20.0)
    finish_all([thread], 0.1)
    assert isinstance(thread.failure, StageStuck)
    assert "asked" in str(thread.failure)
    thread.node.go.set()
    wait_until(lambda: not thread.is_stuck)
    thread.node.close()


def test_only_who_has_the_turn_when_a_node_is_to_end_is_waited_for(context):
    """Two that always have more to do hand it to each other for ever."""
    thread = NodeThread(Asked(context))
    turn, ended = thread.node.turn, threading.Event()

    def work_on() -> None:
        while not ended.is_set():
            with turn:
                time.sleep(0.001)

    with turn:
        assert not thread.wait_idle(0.1)
        others = [threading.Thread(target=work_on) for _ in range(2)]
        for other in others:
            other.start()
        wait_until(lambda: turn.waiting == 2)
    assert thread.wait_idle(60.0)
    ended.set()
    for other in others:
        other.join()
    thread.stop()
    thread.node.close()


class FailsBesideAFrame(StageNode):
    """A timer's callback fails while a frame waits for its turn."""

    def __init__(self, context):
        super().__init__("fails_beside", NoSettings, context=context)
        self.failing, self.go = threading.Event(), threading.Event()
        self.listen(topics.IMAGE, self._on_frame)
        self._once = self.create_timer(0.01, self._fail)

    def _on_frame(self, frame):
        self.ledger.take(frame.id)
        self.go.wait(60.0)
        self.ledger.use(frame.id)

    def _fail(self):
        self._once.cancel()
        self.failing.set()
        wait_until(lambda: self.turn.waiting == 1)
        raise BackendError("the weights are gone")

    def gave_up(self, error):
        wait_until(lambda: self.ledger.taken == 1)
        super().gave_up(error)


def failed_beside_a_frame(node, until=lambda: True):
    """The node's thread once both of its threads have ended: one failed while the other had a
    frame, which goes on once `until` holds."""
    thread, publisher = NodeThread(node), ReferencePublisher(node, topics.IMAGE)
    thread.start()
    assert node.failing.wait(20.0)
    publisher.publish(a_frame(1))
    wait_until(lambda: thread.failure and until())
    node.go.set()
    wait_until(lambda: not any(each.is_alive() for each in thread._threads))
    return thread


def test_a_frame_in_work_when_the_stage_fails_beside_it_is_settled_once(context):
    node = FailsBesideAFrame(context)
    thread = failed_beside_a_frame(node, lambda: node.turn.waiting or node.ledger.state().dropped)
    state = node.ledger.state()
    assert (state.taken, state.used, state.dropped) == (1, 1, {})
    assert node.ledger.violations == 0
    thread.finish(0.0)
    node.close()


class FailsInBothThreads(FailsBesideAFrame):
    """The frame that waited fails, too, of what is gone."""

    def _on_frame(self, frame):
        super()._on_frame(frame)
        raise BackendError("there is nothing to work with")


def test_a_stage_that_fails_in_both_its_threads_names_what_it_failed_of_first(context):
    node = FailsInBothThreads(context)
    thread = failed_beside_a_frame(node)
    assert "the weights are gone" in str(thread.failure)
    assert "the weights are gone" in node._diagnostics().status[0].message
    thread.finish(0.0)
    node.close()


class FailsAtItsEnd(StageNode):
    """Holds a frame back, and fails when it is to tell what came of it."""

    def __init__(self, context):
        super().__init__("fails_at_its_end", NoSettings, context=context)
        self.listen(topics.IMAGE, lambda frame: self.ledger.take(frame.id))

    def input_ended(self):
        raise BackendError("the weights are gone")


def test_a_stage_that_fails_as_it_ends_closes_its_account_and_tells_it(context):
    node, told = FailsAtItsEnd(context), []
    hears = BytesSubscription(node, topics.LEDGER, told.append, direct=True)
    thread, publisher = NodeThread(node), ReferencePublisher(node, topics.IMAGE)
    thread.start()
    publisher.publish(a_frame(1))
    wait_until(lambda: node.ledger.taken == 1)
    thread.finish(20.0)
    assert isinstance(thread.failure, BackendError)
    last = topics.LEDGER.load(told[-1]).ledger
    assert (last.taken, last.dropped) == (1, {"stage_failed": 1})
    hears.destroy()
    publisher.destroy()
    node.close()


def test_a_node_that_does_not_end_is_not_called_unloaded(context, monkeypatch):
    monkeypatch.setattr(node_thread, "_JOIN_S", 0.05)
    monkeypatch.setattr(container, "_FINISH_S", 0.1)
    thread = NodeThread(Asked(context))
    thread.start()
    assert thread.node.begun.wait(20.0)
    held, request = SimpleNamespace(loaded={1: thread}, _has_failed=False), UnloadNode.Request()
    request.unique_id = 1
    answer = container.Container._unload(held, request, UnloadNode.Response())
    assert not answer.success
    assert "asked does not end" in answer.error_message
    assert held._has_failed
    thread.node.go.set()
    wait_until(lambda: not thread.is_stuck)
    assert container.Container._unload(held, request, UnloadNode.Response()).success
    assert thread.node.ends == ["input_ended", "close"]
    assert not held.loaded


class FailsTwice(StageNode):
    """Fails at work, and again at its end, as what it works with is gone."""

    def __init__(self, context):
        super().__init__("fails_twice", NoSettings, context=context)
        self._once = self.create_timer(0.01, self._fail)

    def _fail(self):
        self._once.cancel()
        raise BackendError("the weights are gone")

    def input_ended(self):
        raise RuntimeError("there is nothing to finish")


def test_a_stage_that_fails_again_as_it_ends_names_what_it_failed_of_first(context):
    thread = NodeThread(FailsTwice(context))
    thread.start()
    wait_until(lambda: thread.failure and not any(each.is_alive() for each in thread._threads))
    thread.finish(0.0)
    assert isinstance(thread.failure, BackendError)
    assert "the weights are gone" in thread.node._diagnostics().status[0].message
    thread.node.close()
