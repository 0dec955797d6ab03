# SPDX-License-Identifier: Apache-2.0
"""What it costs to hand a full-HD picture to another node, and to wake one, against plain rclpy."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np
import rclpy
from harness import QUICK, Benchmark
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from runtime_wakes import quaternion_us, wake_ms_by_delivery, wake_ms_by_executor
from sensor_msgs.msg import Image

from worldsystem_core.frames import Frame
from worldsystem_core.ros import topics
from worldsystem_core.ros.process import tune_process
from worldsystem_core.ros.reference_topic import ReferencePublisher, ReferenceSubscription

PICTURES = 50 if QUICK else 200
WIDTH, HEIGHT = 1920, 1080


def main() -> None:
    """Time both ways in turn, in one process, with the shipped malloc settings for both."""
    tune_process()
    rclpy.init()
    publisher, subscriber = Node("publisher"), Node("subscriber")
    executor = SingleThreadedExecutor()
    executor.add_node(subscriber)
    spinner = threading.Thread(target=executor.spin, daemon=True)
    send_reference, got_reference = by_reference(publisher, subscriber)
    send_message, got_message = by_message(publisher, subscriber)
    spinner.start()
    for _ in range(5):
        latency_us(send_reference, got_reference)
        latency_us(send_message, got_message)
    reference, message = [], []
    for _ in range(PICTURES):
        reference.append(latency_us(send_reference, got_reference))
        message.append(latency_us(send_message, got_message))
    executor.shutdown()
    spinner.join(5.0)
    bench = Benchmark("runtime")
    note = f"publish to callback, {WIDTH}×{HEIGHT} rgb8, one process"
    bench.add("reference_us_p50", reference, "us", note=note)
    bench.add("rclpy_us_p50", message, "us", note=f"{note}; rclpy, data = bytes")
    ratio = float(np.median(message) / np.median(reference))
    bench.add("reference_vs_rclpy", ratio, "x", note="median rclpy over median by reference")
    measure_wakes(bench)
    bench.write()
    rclpy.try_shutdown()


def measure_wakes(bench: Benchmark) -> None:
    """What a stage costs whenever it is handed a small object."""
    delivered, executed = wake_ms_by_delivery(PICTURES), wake_ms_by_executor(PICTURES)
    note = "processor time of the process for an object that nothing is done with"
    bench.add("wake_ms", delivered, "ms", note=f"{note}; delivery thread")
    bench.add("wake_executor_ms", executed, "ms", note=f"{note}; rclpy executor")
    ratio = float(np.median(executed) / np.median(delivered))
    bench.add("wake_vs_executor", ratio, "x", note="median executor over median delivery thread")
    ours, scipys = quaternion_us(PICTURES)
    ratio = float(np.median(scipys) / np.median(ours))
    bench.add("quaternion_us", ours, "us", note="one rotation matrix to a quaternion")
    bench.add("quaternion_vs_scipy", ratio, "x", note=f"SciPy {np.median(scipys):.0f} us")


def by_reference(publisher: Node, subscriber: Node) -> tuple[Callable[[], None], threading.Event]:
    """A sender of frames by reference, and the event that tells their arrival."""
    got = threading.Event()
    out = ReferencePublisher(publisher, topics.IMAGE, outside=False)
    ReferenceSubscription(subscriber, topics.IMAGE, lambda frame: got.set())
    frame = Frame(id=0, stamp_ns=0, rgb=np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    return lambda: out.publish(frame), got


def by_message(publisher: Node, subscriber: Node) -> tuple[Callable[[], None], threading.Event]:
    """The same through rclpy, from the array to a message and back to an array."""
    got = threading.Event()
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    out = publisher.create_publisher(Image, "plain/image_raw", 2)

    def receive(message: Image) -> None:
        np.frombuffer(message.data, np.uint8)
        got.set()

    def send() -> None:
        message = Image(height=HEIGHT, width=WIDTH, encoding="rgb8", step=3 * WIDTH)
        message.data = picture.tobytes()
        out.publish(message)

    subscriber.create_subscription(Image, "plain/image_raw", receive, 2)
    return send, got


def latency_us(send: Callable[[], None], got: threading.Event) -> float:
    """Time from the call to the callback [us]."""
    got.clear()
    start = time.perf_counter()
    send()
    if not got.wait(10.0):
        raise TimeoutError("no picture arrived within 10 s")
    return 1e6 * (time.perf_counter() - start)


if __name__ == "__main__":
    main()
