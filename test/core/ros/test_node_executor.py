# SPDX-License-Identifier: Apache-2.0
"""An executor that keeps what it waits for calls back as rclpy's does, which makes it anew."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

rclpy = pytest.importorskip("rclpy", reason="ROS is not set up: run these through `make test`")

from node_lab import wait_until  # noqa: E402
from rclpy.event_handler import PublisherEventCallbacks  # noqa: E402
from rclpy.exceptions import InvalidHandle  # noqa: E402
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor  # noqa: E402
from rclpy.node import Node  # noqa: E402
from std_msgs.msg import Int32  # noqa: E402
from std_srvs.srv import Trigger  # noqa: E402

from worldsystem_core.ros import node_executor  # noqa: E402
from worldsystem_core.ros.node_executor import NodeExecutor  # noqa: E402

TOPIC = "numbers"


class Rclpys(SingleThreadedExecutor):
    """The twin: makes all anew at each wake."""

    def __init__(self, node: Node) -> None:
        super().__init__(context=node.context)
        self.add_node(node)

    def spin_until(self, ended: threading.Event) -> None:
        while not ended.is_set():
            self.spin_once()


class Spun:
    """A node whose executor spins in a thread, and another node of the same context."""

    def __init__(self, node: Node, make: type[NodeExecutor | Rclpys]) -> None:
        self.node = node
        self.other = Node("other", context=node.context)
        self.heard: list[int] = []
        self.failure: BaseException | None = None
        self.executor = make(node)
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._spin, daemon=True)
        self.thread.start()

    def _spin(self) -> None:
        try:
            self.executor.spin_until(self.ended)
        except BaseException as error:  # looked at by the test
            self.failure = error

    def listen(self) -> object:
        """A subscription that notes what it hears, once it is linked with `say`."""
        subscription = self.node.create_subscription(
            Int32, TOPIC, lambda message: self.heard.append(message.data), 10
        )
        self.publisher = self.other.create_publisher(Int32, TOPIC, 10)
        wait_until(lambda: self.publisher.get_subscription_count() == 1)
        return subscription

    def say(self, number: int) -> None:
        self.publisher.publish(Int32(data=number))

    def end(self) -> None:
        with suppress(InvalidHandle):
            self.executor.create_task(self.ended.set)  # rclpy's is not ended by a wake
        self.ended.set()
        self.thread.join(10.0)
        assert not self.thread.is_alive()
        self.executor.shutdown()
        self.other.destroy_node()


@pytest.fixture
def make() -> type[NodeExecutor | Rclpys]:
    return NodeExecutor


@pytest.fixture
def spun(node: Node, make: type[NodeExecutor | Rclpys]) -> Iterator[Spun]:
    spun = Spun(node, make)
    yield spun
    spun.end()


@pytest.mark.parametrize("make", [NodeExecutor, Rclpys])
def test_messages_are_called_back_with_in_order(spun):
    spun.listen()
    for number in range(30):
        spun.say(number)
        wait_until(lambda number=number: len(spun.heard) > number)
    assert spun.heard == list(range(30))


@pytest.mark.parametrize("make", [NodeExecutor, Rclpys])
def test_a_service_is_answered_and_the_answer_heard(spun):
    def answer(request, response):
        response.message = "here"
        return response

    spun.node.create_service(Trigger, "ask", answer)
    client = spun.node.create_client(Trigger, "ask")
    assert client.wait_for_service(10.0)
    told = []
    future = client.call_async(Trigger.Request())
    future.add_done_callback(lambda done: told.append(done.result().message))
    wait_until(lambda: told)
    assert told == ["here"]


@pytest.mark.parametrize("make", [NodeExecutor, Rclpys])
def test_a_timer_is_called_until_it_is_cancelled(spun):
    calls = []

    def call() -> None:
        calls.append(1)
        if len(calls) == 3:
            timer.cancel()

    timer = spun.node.create_timer(0.01, call)
    wait_until(lambda: len(calls) == 3)
    spun.listen()
    spun.say(1)  # the executor goes on without it
    wait_until(lambda: spun.heard)
    assert len(calls) == 3


@pytest.mark.parametrize("make", [NodeExecutor, Rclpys])
def test_a_task_is_run_whichever_thread_it_comes_from(spun):
    done = threading.Event()
    spun.executor.create_task(done.set)
    assert done.wait(10.0)


@pytest.mark.parametrize("make", [NodeExecutor, Rclpys])
def test_nothing_is_heard_of_a_subscription_that_was_destroyed_in_the_same_wake(spun):
    held, first = threading.Event(), []

    def destroy() -> None:
        assert held.wait(10.0)  # until the message is there
        spun.node.destroy_timer(timer)
        spun.node.destroy_subscription(subscription)
        first.append(1)

    subscription = spun.listen()
    timer = spun.node.create_timer(0.01, destroy)
    spun.say(1)
    held.set()
    wait_until(lambda: first)
    spun.say(2)
    wait_until(lambda: spun.publisher.get_subscription_count() == 0)
    assert 2 not in spun.heard


def test_an_event_of_dds_is_told_and_keeps_no_subscription_in_use(spun):
    joined = []
    events = PublisherEventCallbacks(matched=joined.append, use_default_callbacks=False)
    spun.node.create_publisher(Int32, "others", 10, event_callbacks=events)
    subscription = spun.listen()
    spun.other.create_subscription(Int32, "others", print, 10)
    wait_until(lambda: joined)
    spun.node.destroy_subscription(subscription)
    wait_until(lambda: spun.publisher.get_subscription_count() == 0)
    assert joined[0].current_count == 1


def test_what_it_waits_for_is_made_when_an_entity_comes_or_goes_and_not_at_each_wake(
    spun, monkeypatch
):
    made = []

    class Counted(node_executor.KeptWaitSet):
        def __init__(self, *arguments):
            made.append(1)
            super().__init__(*arguments)

    monkeypatch.setattr(node_executor, "KeptWaitSet", Counted)
    spun.listen()
    spun.say(0)
    wait_until(lambda: spun.heard)
    before = len(made)
    for number in range(1, 50):
        spun.say(number)
        wait_until(lambda number=number: len(spun.heard) > number)
    assert before >= 1
    assert len(made) == before


def test_an_error_of_a_callback_leaves_it_as_it_is(spun):
    def fail() -> None:
        raise ZeroDivisionError("of the callback")

    spun.node.create_timer(0.01, fail)
    wait_until(lambda: spun.failure)
    assert isinstance(spun.failure, ZeroDivisionError)


def test_it_ends_with_its_context(spun, context):
    context.try_shutdown()
    wait_until(lambda: spun.failure)
    assert isinstance(spun.failure, ExternalShutdownException)


def test_once_it_has_ended_it_keeps_nothing_in_use(node):
    spun = Spun(node, NodeExecutor)
    subscription = spun.listen()
    spun.say(1)
    wait_until(lambda: spun.heard)
    spun.end()
    node.destroy_subscription(subscription)
    with pytest.raises(InvalidHandle), subscription.handle:
        pass


@pytest.mark.parametrize("make", [NodeExecutor, Rclpys])
def test_of_many_tasks_none_is_left(spun):
    done = []
    for number in range(200):
        spun.executor.create_task(done.append, number)
    wait_until(lambda: len(done) == 200)
    assert sorted(done) == list(range(200))


def test_a_task_that_comes_while_a_search_is_past_the_tasks_is_run(spun, monkeypatch):
    begun, past_tasks, left, done = (threading.Event() for _ in range(4))
    leave, look = SingleThreadedExecutor.create_task, spun.executor.can_execute

    def held_up(executor, *arguments, **keywords):
        begun.set()
        executor._guard.trigger()  # a search begins, if none is under way
        assert past_tasks.wait(10.0)
        task = leave(executor, *arguments, **keywords)
        left.set()
        return task

    def looking(entity):  # rclpy asks this behind the tasks and before it waits
        if begun.is_set() and not left.is_set():
            past_tasks.set()
            assert left.wait(10.0)
        return look(entity)

    monkeypatch.setattr(spun.executor, "can_execute", looking)
    monkeypatch.setattr(SingleThreadedExecutor, "create_task", held_up)
    other = threading.Thread(target=spun.executor.create_task, args=(done.set,))
    other.start()
    assert done.wait(5.0)
    other.join(10.0)
    monkeypatch.undo()


@pytest.mark.parametrize("make", [NodeExecutor, Rclpys])
def test_nothing_more_is_called_back_once_it_is_told_to_end(spun):
    held, gate, calls = threading.Event(), threading.Event(), []

    def hold() -> None:
        held.set()
        assert gate.wait(10.0)

    def call() -> None:
        calls.append(1)
        spun.ended.set()

    spun.executor.create_task(hold)
    assert held.wait(10.0)
    timers = [spun.node.create_timer(0.01, call) for _ in range(2)]
    wait_until(lambda: all(timer.is_ready() for timer in timers))
    gate.set()
    wait_until(lambda: not spun.thread.is_alive())
    assert len(calls) == 1


@pytest.mark.parametrize("make", [NodeExecutor, Rclpys])
def test_a_guard_condition_of_the_node_is_called_back(spun):
    called = threading.Event()
    guard = spun.node.create_guard_condition(called.set)
    spun.listen()
    spun.say(1)  # it is waited for since
    wait_until(lambda: spun.heard)
    guard.trigger()
    assert called.wait(5.0)
