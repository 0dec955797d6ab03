# SPDX-License-Identifier: Apache-2.0
"""The simulated drone as a node: how its flight ends."""

from __future__ import annotations

import threading
import time

import pytest

rclpy = pytest.importorskip("rclpy", reason="ROS is not set up: run these through `make test`")

from worldsystem_core.ros.node_thread import NodeThread  # noqa: E402
from worldsystem_sim import node as node_module  # noqa: E402
from worldsystem_sim.simulator import Simulator  # noqa: E402


def test_a_flight_that_fails_ends_the_stage_and_says_why(context, monkeypatch):
    """`run_node` ends its process with code 1 when the stage's thread has failed."""
    started = threading.Event()

    def fail(self, *_):
        assert started.wait(10.0)
        raise OSError("no room for the truth")

    monkeypatch.setattr(Simulator, "run", fail)
    thread = NodeThread(node_module.SimulatorNode(context=context))
    thread.start()
    started.set()
    deadline_s = time.monotonic() + 10.0
    while thread.failure is None and time.monotonic() < deadline_s:
        time.sleep(0.01)
    assert "no room for the truth" in str(thread.failure)
    assert isinstance(thread.failure.__cause__, OSError)
    thread.finish(1.0)
    assert "no room for the truth" in thread.node._diagnostics().status[0].message
    thread.node.close()
