# SPDX-License-Identifier: Apache-2.0
"""What is here needs ROS."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

pytest.importorskip("rclpy", reason="ROS is not set up: run these through `make test`")

from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node

from worldsystem_core.ros import reference_topic


@pytest.fixture
def fresh_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is linked to any topic in this process."""
    monkeypatch.setattr(reference_topic, "_registry", reference_topic.TopicRegistry())


@pytest.fixture
def node(context: Context, fresh_registry: None) -> Iterator[Node]:
    """A node that is the only one in this process which knows of topics."""
    node = Node("tester", context=context)
    yield node
    node.destroy_node()


@pytest.fixture
def spin(node: Node, context: Context) -> Iterator[Callable[..., None]]:
    """Runs `node` until a condition holds; fails where it does not come to hold in time."""
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)

    def until(condition: Callable[[], object], timeout_s: float = 10.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition() and time.monotonic() < deadline:
            executor.spin_once(timeout_sec=0.05)
        assert condition()

    yield until
    executor.shutdown()
