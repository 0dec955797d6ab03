# SPDX-License-Identifier: Apache-2.0
"""A node's two threads: its callbacks take turns, and it ends whenever it is told."""

from __future__ import annotations

import itertools
import math
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy", reason="ROS is not set up: run these through `make test`")

from node_lab import NoSettings, a_frame, wait_until  # noqa: E402
from rclpy.node import Node  # noqa: E402

from worldsystem_core.reconstruction import (  # noqa: E402
    Pose,
    RemovedKeyframes,
    TrackingState,
)
from worldsystem_core.ros import node_thread, topics  # noqa: E402
from worldsystem_core.ros.delivery import Bell, Delivery  # noqa: E402
from worldsystem_core.ros.node_thread import NodeThread, finish_all  # noqa: E402
from worldsystem_core.ros.reference_topic import ReferencePublisher  # noqa: E402
from worldsystem_core.ros.stage_node import StageNode  # noqa: E402

pytestmark = pytest.mark.usefixtures("fresh_registry")


class Busy(StageNode):
    """Notes which threads call it back, and whether two ever do at once."""

    def __init__(self, context):
        super().__init__("busy", NoSettings, context=context)
        self.inside, self.most_inside = 0, 0
        self.frames, self.ticks = 0, 0
        self.threads = set()
        self.listen(topics.IMAGE, self._on_frame, depth=1000)
        self.create_timer(0.001, self._on_tick)

    def _on_frame(self, frame):
        self._work()
        self.frames += 1

    def _on_tick(self):
        self._work()
        self.ticks += 1

    def _work(self):
        self.inside += 1
        self.most_inside = max(self.most_inside, self.inside)
        self.threads.add(threading.current_thread().name)
        time.sleep(0.001)
        self.inside -= 1


def a_pose(number: int) -> Pose:
    return Pose(
        frame_id=number,
        stamp_ns=number,
        world_from_cam=np.eye(4),
        confidence=1.0,
        state=TrackingState.TRACKED,
    )


def test_a_bell_rung_often_wakes_once_and_one_rung_early_is_not_missed():
    bell = Bell()
    assert not bell.wait(0.01)
    for _ in range(3):
        bell.ring()
    assert bell.wait(0.0)
    assert not bell.wait(0.01)
    later = threading.Timer(0.05, bell.ring)
    later.start()
    assert bell.wait(10.0)
    later.join()


class Slow(StageNode):
    """Takes its time for each picture, and counts them all."""

    def __init__(self, context):
        super().__init__("slow", NoSettings, context=context)
        self.listen(topics.IMAGE, self._on_frame, self._on_drop, depth=5)

    def _on_frame(self, frame):
        self.ledger.take(frame.id)
        time.sleep(0.1)
        self.ledger.use(frame.id)

    def _on_drop(self, frame):
        self.ledger.drop_untaken("queue_full")


def test_what_waits_when_a_stage_has_no_more_time_is_counted(context):
    thread = NodeThread(Slow(context))
    publisher = ReferencePublisher(thread.node, topics.IMAGE)
    thread.start()
    for number in range(20):
        publisher.publish(a_frame(number))
    thread.finish(0.05)
    state = thread.node.ledger.state()
    assert state.taken == 20
    assert state.used < 5
    assert state.used + sum(state.dropped.values()) == 20
    assert state.dropped["shutdown"] > 0
    thread.node.close()


def test_callbacks_come_from_two_threads_but_one_at_a_time(context):
    thread = NodeThread(Busy(context))
    node, publisher = thread.node, ReferencePublisher(thread.node, topics.IMAGE)
    thread.start()
    for number in range(100):
        publisher.publish(a_frame(number))
    wait_until(lambda: node.frames == 100 and node.ticks >= 10)
    thread.stop()
    assert node.threads == {"busy", "busy/delivery"}
    assert node.most_inside == 1
    assert thread.failure is None
    node.close()


def test_objects_of_several_topics_come_in_the_order_in_which_they_were_published(context):
    """A pose that overtook the correction of its keyframe would be corrected twice."""
    node, got = Busy(context), []
    node.listen(topics.POSE, lambda pose: got.append(("pose", pose.frame_id)), depth=100)
    node.listen(topics.KEYFRAME, lambda event: got.append(("keyframes", event.ids[0])))
    poses = ReferencePublisher(node, topics.POSE)
    keyframes = ReferencePublisher(node, topics.KEYFRAME)
    for number in range(20):
        poses.publish(a_pose(2 * number))
        poses.publish(a_pose(2 * number + 1))
        keyframes.publish(RemovedKeyframes((number,)))
    thread = NodeThread(node)
    thread.start()
    wait_until(lambda: len(got) == 60)
    thread.stop()
    expected = [
        [("pose", 2 * number), ("pose", 2 * number + 1), ("keyframes", number)]
        for number in range(20)
    ]
    assert got == [event for events in expected for event in events]
    node.close()


def test_a_node_ends_cleanly_in_the_middle_of_its_work(context):
    """An executor that is shut down while it spins would fail, now and then."""
    for _ in range(20):
        thread = NodeThread(Busy(context))
        publisher = ReferencePublisher(thread.node, topics.IMAGE)
        thread.start()
        for number in range(5):
            publisher.publish(a_frame(number))
        thread.stop()
        assert thread.failure is None
        thread.node.close()


def test_a_node_that_does_not_end_is_not_used_beside_the_thread_that_is_at_work(
    context, monkeypatch, caplog
):
    """Its library need not be safe for two threads."""
    monkeypatch.setattr(node_thread, "_JOIN_S", 0.05)
    node, busy, go = Busy(context), threading.Event(), threading.Event()

    def work(_) -> None:
        busy.set()
        go.wait(20.0)

    node.listen(topics.POSE, work)
    poses = ReferencePublisher(node, topics.POSE)
    used: list[str] = []
    close = node.close
    monkeypatch.setattr(node, "input_ended", lambda: used.append("input_ended"), raising=False)
    monkeypatch.setattr(node, "close", lambda: used.append("close"))
    thread = NodeThread(node)
    thread.start()
    poses.publish(a_pose(0))
    assert busy.wait(10.0)
    finish_all([thread], 0.1)
    assert used == []
    assert "what it held back is lost" in caplog.text
    go.set()
    wait_until(lambda: not thread.is_stuck)
    finish_all([thread], 0.1)
    assert used == ["input_ended", "close"]
    close()


def test_a_shared_topic_is_heard_from_outside_only_while_somebody_is(context):
    thread = NodeThread(Busy(context))
    inside = Node("inside", context=context)
    publisher = ReferencePublisher(inside, topics.LEDGER)
    heard = []
    thread.node.listen(topics.LEDGER, heard.append)
    thread.start()
    link = thread.node._links[-1]
    wait_until(lambda: link._dds is None)
    outside = Node("outside", context=context)
    foreign = outside.create_publisher(
        topics.LEDGER.adapter.ros_type, topics.LEDGER.name, topics.LEDGER.qos
    )
    wait_until(lambda: link._dds is not None)
    outside.destroy_publisher(foreign)
    wait_until(lambda: link._dds is None)
    thread.stop()
    publisher.destroy()
    for node in (inside, outside):
        node.destroy_node()
    thread.node.close()


class Overworked(StageNode):
    """Has more timers than it has time for, and as many frames; notes when it tells of itself."""

    def __init__(self, context):
        self.told_s: list[float] = []
        super().__init__("overworked", NoSettings, context=context)
        self.listen(topics.IMAGE, lambda _: time.sleep(0.2), depth=1000)
        for _ in range(10):
            self.create_timer(0.05, lambda: time.sleep(0.2))

    def report(self):
        self.told_s.append(time.monotonic())
        super().report()


def test_a_stage_tells_of_itself_though_all_its_timers_wait_for_turns(context):
    """One after the other, each between two frames, the eleven would need 4.4 s for a round."""
    node = Overworked(context)
    thread = NodeThread(node)
    sender = Node("sender", context=context)
    frames = ReferencePublisher(sender, topics.IMAGE, outside=False)
    for number in range(60):
        frames.publish(a_frame(number))
    begun_s = time.monotonic()
    thread.start()
    time.sleep(6.0)
    thread.stop()
    told_s = [begun_s, *node.told_s, begun_s + 6.0]
    assert max(b - a for a, b in itertools.pairwise(told_s)) < 3.0
    node.close()
    frames.destroy()
    sender.destroy_node()


def test_a_stage_that_was_late_does_not_tell_twice_in_a_row(context):
    node = Overworked(context)
    each_second = [timer for timer in node.timers if timer.timer_period_ns == 10**9]
    node._reported_s -= 10.0
    node._guarded(lambda: None)()
    assert len(node.told_s) == 1
    for timer in each_second:
        timer.callback()
    assert len(node.told_s) == 1
    node._reported_s -= 1.0
    for timer in each_second:
        timer.callback()
    assert len(node.told_s) == 2
    node.close()


def test_a_stage_tells_before_what_took_long_the_last_time(context):
    node, told_before = Overworked(context), []

    def work():
        told_before.append(len(node.told_s))
        time.sleep(0.3)

    long, short = node._guarded(work), node._guarded(lambda: told_before.append(len(node.told_s)))
    for call in (long, long, short, short):
        node._reported_s = time.monotonic() - 0.6
        call()
    assert told_before == [0, 1, 1, 1]
    node.close()


def test_a_stage_tells_between_the_steps_of_long_work_and_not_of_short(context):
    node = Overworked(context)

    def work(step_s):
        for _ in range(5):
            node._reported_s -= step_s  # as if the step had taken so long
            node.between_steps()

    node._reported_s = time.monotonic()
    node._guarded(lambda: work(0.0))()
    assert node.told_s == []
    node._guarded(lambda: work(0.3))()
    assert len(node.told_s) == 2, "1.5 s of work, told of each half a second at most"
    node.close()


def test_a_stage_that_is_late_in_its_first_seconds_does_not_tell_twice_in_a_row(context):
    node = Overworked(context)
    (early,) = [timer for timer in node.timers if timer.timer_period_ns == 10**8]
    node._reported_s -= 10.0
    early.callback()
    assert len(node.told_s) == 1
    node.close()


def in_a_thread(work):
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def test_the_time_of_a_nodes_threads_is_what_they_used_whoever_asks_and_only_grows(context):
    """One works at topics, the other at timers; who asks last has done nothing itself."""
    node, told_s, asked = Busy(context), [], threading.Event()

    def work(_=None):
        end_s = time.thread_time() + 0.02
        while time.thread_time() < end_s:
            pass

    def tell():
        status = node._diagnostics().status[0]
        told_s.append(float({v.key: v.value for v in status.values}["thread.cpu_s"]))

    node.listen(topics.IMAGE, lambda _: (work(), tell()))
    node.create_timer(0.01, lambda: (work(), tell(), len(told_s) > 20 and asked.set()))
    thread, sender = NodeThread(node), Node("sender", context=context)
    frames = ReferencePublisher(sender, topics.IMAGE, outside=False)
    thread.start()
    for number in range(10):
        frames.publish(a_frame(number))
    assert asked.wait(60.0)
    with node.turn:
        in_a_thread(tell)
        assert told_s == sorted(told_s)
        assert told_s[-1] >= 0.02 * (len(told_s) - 1), "neither thread alone has done all the work"
    thread.stop()
    in_a_thread(tell)
    assert told_s == sorted(told_s), "what a thread has used stays when it has ended"
    node.close()
    frames.destroy()
    sender.destroy_node()


def test_an_account_that_fails_costs_no_callback_its_answer(context):
    node = Busy(context)
    node.facts = lambda: 1 / 0
    node._reported_s -= 10.0
    assert node._guarded(lambda given: 2 * given)(21) == 42
    assert "ZeroDivisionError" in node.faults.last
    node.close()
    assert node._guarded(lambda given: given)(1) == 1, "nor is anything told after the end"


class Asked:
    """A link in which nothing waits; it notes who asks, and ends the delivery then."""

    def __init__(self, ended, *, direct):
        self.direct, self._ended = direct, ended
        self.was_asked = self.has_looked = False

    @property
    def oldest(self):
        self.was_asked = True
        self._ended.set()
        return math.inf

    def relink(self):
        self.has_looked = True


def test_who_is_called_back_in_the_publishers_thread_is_not_asked_what_waits():
    timers = []
    node = SimpleNamespace(
        create_guard_condition=lambda callback: None,
        create_timer=lambda period_s, callback: timers.append(callback),
    )
    ended, delivery = threading.Event(), Delivery(node)
    links = [Asked(ended, direct=direct) for direct in (False, True)]
    for link in links:
        delivery.add(link)
    delivery.set_apart()
    delivery.wake()
    delivery.run(ended)
    assert [link.was_asked for link in links] == [True, False]
    timers[0]()
    assert all(link.has_looked for link in links)
    for link in links:
        delivery.remove(link)
