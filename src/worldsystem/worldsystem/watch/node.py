# SPDX-License-Identifier: Apache-2.0
"""The monitor: every node's account in one place, over HTTP; and the same look for a command."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.node import Node

from worldsystem.config import MonitorConfig
from worldsystem.watch.server import watch_server
from worldsystem.watch.state import SystemState
from worldsystem_core.lost_wakes import watch_for_lost_wakes
from worldsystem_core.ros import topics
from worldsystem_core.ros.container import run_node
from worldsystem_core.ros.diagnostic_names import stage_of
from worldsystem_core.ros.process import use_dds_profile
from worldsystem_core.ros.reference_topic import ReferenceSubscription
from worldsystem_core.ros.stage_node import StageNode


class MonitorNode(StageNode):
    """Feeds a `SystemState` from the topics and serves it."""

    niceness = 10

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("monitor", MonitorConfig, **kwargs)
        self.state = SystemState()
        self._server = watch_server(self.config, self.state)
        self.listen(topics.LEDGER, self.state.report)
        space = self.get_namespace()
        self.listen(topics.DIAGNOSTICS, lambda array: take_diagnostics(self.state, array, space))

    def facts(self) -> dict[str, object]:
        return {"port": self._server.port}

    def close(self) -> None:
        self._server.close()
        super().close()


def take_diagnostics(state: SystemState, array: DiagnosticArray, namespace: str = "/") -> None:
    """Hand on what our nodes in `namespace` say; other diagnostics are left alone."""
    for status in array.status:
        if stage := stage_of(status.name, namespace):
            state.diagnostics(
                stage,
                warned=_level(status) > _level(DiagnosticStatus),
                message=status.message,
                facts={value.key: value.value for value in status.values},
            )


def _level(of: Any) -> int:
    """A level as a number; rclpy has it as a byte. The class itself stands for OK."""
    level = of.OK if of is DiagnosticStatus else of.level
    return level[0] if isinstance(level, bytes) else int(level)


def watch(namespace: str, show: Callable[[SystemState], bool], period_s: float) -> None:
    """Listen to a system that runs and call `show` every `period_s` until it returns False."""
    use_dds_profile()
    watch_for_lost_wakes()
    rclpy.init(signal_handler_options=rclpy.SignalHandlerOptions.NO)
    node, state = Node("watcher", namespace=namespace), SystemState()
    space = node.get_namespace()
    links = [
        ReferenceSubscription(node, topics.LEDGER, state.report),
        ReferenceSubscription(
            node, topics.DIAGNOSTICS, lambda array: take_diagnostics(state, array, space)
        ),
    ]
    try:
        next_s = time.monotonic() + period_s
        while True:
            rclpy.spin_once(node, timeout_sec=0.1)
            if time.monotonic() >= next_s:
                next_s += period_s
                if not show(state):
                    return
    finally:
        for link in links:
            link.destroy()
        node.destroy_node()
        rclpy.try_shutdown()


def main() -> None:
    run_node(MonitorNode)
