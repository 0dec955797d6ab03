# SPDX-License-Identifier: Apache-2.0
"""What it costs to wake a stage: its delivery thread for an object, its executor for a message."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from rclpy.executors import Executor, SingleThreadedExecutor
from rclpy.node import Node
from scipy.spatial.transform import Rotation
from std_msgs.msg import Int32
from std_srvs.srv import Trigger

from worldsystem_core.config import Config
from worldsystem_core.geometry.rotation import quaternion_xyzw_from_matrix
from worldsystem_core.reconstruction import Pose, TrackingState
from worldsystem_core.ros import topics
from worldsystem_core.ros.node_executor import NodeExecutor
from worldsystem_core.ros.node_thread import NodeThread
from worldsystem_core.ros.reference_topic import ReferencePublisher
from worldsystem_core.ros.stage_node import StageNode

TIMERS = 8
"""Beside the timers, services and publishers of every stage: what a usual one has."""
SUBSCRIPTIONS, SERVICES = 12, 6
"""Of a stage with its process for itself."""
_TIMEOUT_S = 10.0
_APART_S = 0.005


@dataclass(frozen=True, kw_only=True)
class NoSettings(Config):
    """Nothing to set."""


class Listener(StageNode):
    """A stage that listens to poses and does nothing with them."""

    def __init__(self, name: str) -> None:
        super().__init__(name, NoSettings)
        self.got = threading.Event()
        self.listen(topics.POSE, lambda pose: self.got.set())
        for _ in range(TIMERS):
            self.create_timer(3600.0, lambda: None)


def wake_ms_by_delivery(objects: int) -> list[float]:
    """Processor time of the process for each object, by the delivery thread [ms]."""
    thread = NodeThread(Listener("delivered"))
    thread.start()
    try:
        return _cost_ms(thread.node, objects)
    finally:
        thread.stop()
        thread.node.close()


def wake_ms_by_executor(objects: int) -> list[float]:
    """The same when an rclpy executor is woken by a guard condition [ms]."""
    node, executor = Listener("executed"), SingleThreadedExecutor()
    executor.add_node(node)
    ended = threading.Event()

    def spin() -> None:
        while not ended.is_set():
            executor.spin_once(timeout_sec=0.5)

    spinner = threading.Thread(target=spin, daemon=True)
    spinner.start()
    try:
        return _cost_ms(node, objects)
    finally:
        ended.set()
        spinner.join(_TIMEOUT_S)
        executor.shutdown()
        node.close()


def _cost_ms(node: Listener, objects: int) -> list[float]:
    publisher = ReferencePublisher(node, topics.POSE, outside=False)
    pose = Pose(
        frame_id=0,
        stamp_ns=0,
        world_from_cam=np.eye(4),
        confidence=1.0,
        state=TrackingState.TRACKED,
    )
    costs = []
    for _ in range(objects):
        node.got.clear()
        begun_s = time.process_time()
        publisher.publish(pose)
        if not node.got.wait(_TIMEOUT_S):
            raise TimeoutError("an object did not arrive")
        time.sleep(_APART_S)  # what the wake leaves behind is of its cost, too
        costs.append((time.process_time() - begun_s) * 1e3)
    publisher.destroy()
    return costs


def message_ms_by_node_executor(messages: int) -> list[float]:
    """Processor time of the executor's thread for each message of DDS, our executor [ms]."""
    return _message_ms(NodeExecutor, messages)


def message_ms_by_rclpy(messages: int) -> list[float]:
    """The same with rclpy's executor [ms]."""

    def make(node: Node) -> Executor:
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        return executor

    return _message_ms(make, messages)


def _message_ms(make: Callable[[Node], Executor], messages: int) -> list[float]:
    node, speaker = Node("hears"), Node("speaks")
    got, ended = threading.Event(), threading.Event()
    for number in range(SUBSCRIPTIONS):
        node.create_subscription(Int32, f"heard_{number}", lambda _: got.set(), 10, raw=True)
    for number in range(SERVICES):
        node.create_service(Trigger, f"asked_{number}", lambda request, response: response)
    for _ in range(TIMERS):
        node.create_timer(3600.0, lambda: None)
    executor = make(node)

    def spin() -> None:
        while not ended.is_set():
            executor.spin_once()

    spinner = threading.Thread(target=spin, daemon=True)
    spinner.start()
    try:
        return _heard_ms(speaker, got, time.pthread_getcpuclockid(spinner.ident or 0), messages)
    finally:
        ended.set()
        executor.create_task(lambda: None)
        spinner.join(_TIMEOUT_S)
        executor.shutdown()
        speaker.destroy_node()
        node.destroy_node()


def _heard_ms(speaker: Node, got: threading.Event, clock: int, messages: int) -> list[float]:
    publishers = [speaker.create_publisher(Int32, f"heard_{n}", 10) for n in range(SUBSCRIPTIONS)]
    while not all(publisher.get_subscription_count() for publisher in publishers):
        time.sleep(_APART_S)
    costs = []
    for number in range(messages):
        got.clear()
        begun_s = time.clock_gettime(clock)
        publishers[number % SUBSCRIPTIONS].publish(Int32(data=number))
        if not got.wait(_TIMEOUT_S):
            raise TimeoutError("a message did not arrive")
        time.sleep(_APART_S)
        costs.append((time.clock_gettime(clock) - begun_s) * 1e3)
    return costs


def quaternion_us(repeats: int) -> tuple[list[float], list[float]]:
    """One quaternion by our function and by SciPy's, in turn [us]."""
    matrix = Rotation.random(rng=np.random.default_rng(1)).as_matrix()
    ours, theirs = [], []
    for _ in range(repeats):
        ours.append(_took_us(lambda: quaternion_xyzw_from_matrix(matrix)))
        theirs.append(_took_us(lambda: Rotation.from_matrix(matrix).as_quat(canonical=True)))
    return ours, theirs


def _took_us(call: Callable[[], object]) -> float:
    begun_s = time.perf_counter()
    call()
    return (time.perf_counter() - begun_s) * 1e6
