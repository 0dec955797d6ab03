# SPDX-License-Identifier: Apache-2.0
"""The same through plain rclpy, in a process of its own (`python runtime_rclpy.py`).

As it comes, a process has neither our malloc settings nor the shipped DDS profile, nor a shorter
switch interval; with `--ours` it has all three.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time

import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from sensor_msgs.msg import Image

from worldsystem_core.ros.process import tune_process

SETTINGS = (
    "FASTRTPS_DEFAULT_PROFILES_FILE",
    "FASTDDS_DEFAULT_PROFILES_FILE",
    "ROS_AUTOMATIC_DISCOVERY_RANGE",
)
"""What the workspace's environment sets and rclpy as it comes has not."""
TOPIC = "plain/image_raw"
DEPTH = 10
_TIMEOUT_S = 20.0


def environment(*, ours: bool) -> dict[str, str]:
    """The environment of a process, with the workspace's DDS settings or without them."""
    return {k: v for k, v in os.environ.items() if ours or k not in SETTINGS}


def latencies_us(width: int, height: int, pictures: int, *, ours: bool) -> list[float]:
    """Publish to callback within one process [us], in a fresh process."""
    size = [str(width), str(height), str(pictures)]
    command = [sys.executable, __file__, *size, *(["--ours"] if ours else [])]
    env = environment(ours=ours)
    run = subprocess.run(
        command, env=env, stdout=subprocess.PIPE, check=True, timeout=_TIMEOUT_S + pictures
    )
    figures: list[float] = json.loads(run.stdout)
    return figures


def image(picture: np.ndarray) -> Image:
    """A message as most programs make one: its bytes assigned to `data`."""
    height, width = picture.shape[:2]
    message = Image(height=height, width=width, encoding="rgb8", step=3 * width)
    message.data = picture.tobytes()
    return message


class _OneProcess:
    """A publisher in the main thread, a subscription in an executor's."""

    def __init__(self) -> None:
        writer, self._reader = Node("plain_writer"), Node("plain_reader")
        self._out = writer.create_publisher(Image, TOPIC, DEPTH)
        self._reader.create_subscription(Image, TOPIC, self._take, DEPTH)
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self._reader)
        self._got = threading.Event()
        self._came_ns = 0
        self._spinner = threading.Thread(target=self._executor.spin)
        self._spinner.start()

    def _take(self, message: Image) -> None:
        np.frombuffer(message.data, np.uint8)
        self._came_ns = time.perf_counter_ns()
        self._got.set()

    def latency_us(self, picture: np.ndarray) -> float:
        self._got.clear()
        begun_ns = time.perf_counter_ns()
        self._out.publish(image(picture))
        if not self._got.wait(_TIMEOUT_S):
            raise TimeoutError("no picture arrived")
        return (self._came_ns - begun_ns) / 1e3

    def close(self) -> None:
        self._executor.shutdown(timeout_sec=_TIMEOUT_S)
        self._spinner.join(_TIMEOUT_S)


def main() -> None:
    """Measure in this process and print the latencies [us] as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("width", type=int)
    parser.add_argument("height", type=int)
    parser.add_argument("pictures", type=int)
    parser.add_argument("--ours", action="store_true")
    given = parser.parse_args()
    if given.ours:
        tune_process()
    rclpy.init()
    process = _OneProcess()
    picture = np.zeros((given.height, given.width, 3), np.uint8)
    for _ in range(given.pictures):  # as ours
        process.latency_us(picture)
    figures = [process.latency_us(picture) for _ in range(given.pictures)]
    process.close()
    rclpy.try_shutdown()
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
