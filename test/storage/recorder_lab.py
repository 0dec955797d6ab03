# SPDX-License-Identifier: Apache-2.0
"""A recorder that runs, and what is in its bag."""

from __future__ import annotations

import time
from pathlib import Path

from rclpy.parameter import Parameter
from rosbags.highlevel import AnyReader

from worldsystem_core.ros.node_thread import NodeThread
from worldsystem_storage.node import RecorderNode


def wait_until(condition, timeout_s=10.0):
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def recorder(context, folder: Path, **values) -> tuple[RecorderNode, NodeThread]:
    values = {"folder": str(folder), "name": "bag", "reserve_mib": 1, **values}
    overrides = [Parameter(name, value=value) for name, value in values.items()]
    node = RecorderNode(context=context, parameter_overrides=overrides)
    thread = NodeThread(node)
    thread.start()
    return node, thread


def messages(bag: Path) -> dict[str, list[bytes]]:
    found: dict[str, list[bytes]] = {}
    with AnyReader([bag]) as reader:
        for connection, _, raw in reader.messages():
            found.setdefault(connection.topic, []).append(bytes(raw))
    return found
