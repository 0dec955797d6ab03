# SPDX-License-Identifier: Apache-2.0
"""A film from one process to another: by a stage's topic, and by plain rclpy, as it comes or with
our DDS profile and process settings.

Each end is a process of its own (`python runtime_between.py WHOSE END WIDTH HEIGHT PICTURES`).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from runtime_rclpy import DEPTH, TOPIC, environment, image
from runtime_wakes import NoSettings
from sensor_msgs.msg import Image

from worldsystem_core.frames import Frame
from worldsystem_core.ros import topics
from worldsystem_core.ros.node_thread import NodeThread
from worldsystem_core.ros.process import tune_process
from worldsystem_core.ros.stage_node import StageNode

RATE_HZ = 30.0
OURS, PLAIN, TUNED = "ours", "plain", "tuned"
_SETTLE_S = 1.0
_SILENT_S = 5.0
_START_S = 30.0


@dataclass(frozen=True)
class Crossing:
    """What arrived of a film, or of several."""

    sent: int
    latencies_ms: list[float]

    def __add__(self, other: Crossing) -> Crossing:
        return Crossing(self.sent + other.sent, self.latencies_ms + other.latencies_ms)

    @property
    def lost_percent(self) -> float:
        return 100.0 * (self.sent - len(self.latencies_ms)) / self.sent


def crossing(whose: str, width: int, height: int, pictures: int) -> Crossing:
    """Send `pictures` at 30 Hz from a fresh process to another one."""
    size = [str(width), str(height), str(pictures)]
    reader, writer = (
        subprocess.Popen(
            [sys.executable, __file__, whose, end, *size],
            env=environment(ours=whose != PLAIN),
            stdout=subprocess.PIPE,
        )
        for end in ("read", "write")
    )
    try:
        lasts_s = _START_S + pictures / RATE_HZ + 2 * _SILENT_S
        writer.communicate(timeout=lasts_s)
        figures, _ = reader.communicate(timeout=lasts_s)
        if writer.returncode or reader.returncode:
            raise RuntimeError(f"an end of the {whose} film failed; what it printed is above")
    finally:
        for process in (reader, writer):
            process.kill()
            process.wait()
    return Crossing(pictures, json.loads(figures))


class _Arrivals:
    """The latency of each picture that came, and when the last one did."""

    def __init__(self) -> None:
        self.latencies_ms: list[float] = []
        self._came_s = time.monotonic() + _START_S
        self._done = threading.Event()

    def add(self, sent_ns: int) -> None:
        self.latencies_ms.append((time.time_ns() - sent_ns) / 1e6)
        self._came_s = time.monotonic()

    def wait(self, pictures: int) -> None:
        """Until all are here, or none has come for long."""
        while len(self.latencies_ms) < pictures and time.monotonic() < self._came_s + _SILENT_S:
            self._done.wait(0.05)


def read_ours(arrivals: _Arrivals, pictures: int) -> None:
    """By a stage that listens to pictures."""
    node = StageNode("reader", NoSettings)
    node.listen(topics.IMAGE, lambda frame: arrivals.add(frame.stamp_ns))
    thread = NodeThread(node)
    thread.start()
    arrivals.wait(pictures)
    thread.stop()
    node.close()


def read_plain(arrivals: _Arrivals, pictures: int) -> None:
    """By a subscription."""
    node, executor = Node("plain_reader"), SingleThreadedExecutor()

    def take(message: Image) -> None:
        np.frombuffer(message.data, np.uint8)
        arrivals.add(message.header.stamp.sec * 10**9 + message.header.stamp.nanosec)

    node.create_subscription(Image, TOPIC, take, DEPTH)
    executor.add_node(node)
    spinner = threading.Thread(target=executor.spin)
    spinner.start()
    arrivals.wait(pictures)
    executor.shutdown(timeout_sec=_SILENT_S)
    spinner.join(_SILENT_S)


def write_ours(picture: np.ndarray, pictures: int) -> None:
    """By a stage that publishes pictures."""
    node = StageNode("writer", NoSettings)
    out = node.advertise(topics.IMAGE)

    def send(number: int) -> None:
        out.publish(Frame(id=number, stamp_ns=time.time_ns(), rgb=picture))

    send_all(send, lambda: out.readers, pictures)
    node.close()


def write_plain(picture: np.ndarray, pictures: int) -> None:
    """By a publisher."""
    out = Node("plain_writer").create_publisher(Image, TOPIC, DEPTH)

    def send(_: int) -> None:
        begun_ns = time.time_ns()
        message = image(picture)
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(begun_ns, 10**9)
        out.publish(message)

    send_all(send, out.get_subscription_count, pictures)


def send_all(send: Callable[[int], None], readers: Callable[[], int], pictures: int) -> None:
    """Call `send` at the film's rate once somebody reads."""
    deadline_s = time.monotonic() + _START_S
    while not readers():
        if time.monotonic() > deadline_s:
            raise TimeoutError("nobody reads")
        time.sleep(0.05)
    time.sleep(_SETTLE_S)  # both ends must know of each other before the first picture
    begun_s = time.monotonic()
    for number in range(pictures):
        time.sleep(max(0.0, begun_s + number / RATE_HZ - time.monotonic()))
        send(number)
    time.sleep(_SETTLE_S)  # the last ones lie in this process's memory until they are read


def main() -> None:
    """One end of one film; the reader prints the latencies [ms] as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("whose", choices=(OURS, PLAIN, TUNED))
    parser.add_argument("end", choices=("read", "write"))
    parser.add_argument("width", type=int)
    parser.add_argument("height", type=int)
    parser.add_argument("pictures", type=int)
    given = parser.parse_args()
    if given.whose != PLAIN:
        tune_process()
    rclpy.init()
    if given.end == "read":
        arrivals = _Arrivals()
        (read_ours if given.whose == OURS else read_plain)(arrivals, given.pictures)
        print(json.dumps(arrivals.latencies_ms))
    else:
        picture = np.zeros((given.height, given.width, 3), np.uint8)
        (write_ours if given.whose == OURS else write_plain)(picture, given.pictures)
    rclpy.try_shutdown()


if __name__ == "__main__":
    main()
