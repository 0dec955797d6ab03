# SPDX-License-Identifier: Apache-2.0
"""The simulated drone as a node, for launch files; it speaks to the system by network alone."""

from __future__ import annotations

import threading
from typing import Any

from worldsystem_core.errors import WorldSystemError
from worldsystem_core.ros.container import run_node
from worldsystem_core.ros.stage_node import StageNode
from worldsystem_sim.config import SimConfig
from worldsystem_sim.simulator import SimStatus, Simulator

_JOIN_S = 10.0


class SimulatorNode(StageNode):
    """Flies once in a thread of its own and leaves its ground truth when it ends.

    A flight that fails ends the stage.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("simulator", SimConfig, **kwargs)
        self._stop = threading.Event()
        self._status: SimStatus | None = None
        self._failure: Exception | None = None
        self._wake = self.take_up(self._raise_failure, due=lambda: 0)
        self._simulator = Simulator(self.config)
        self._thread = threading.Thread(target=self._fly, name="simulator-flight", daemon=True)
        self._thread.start()

    def _fly(self) -> None:
        try:
            self._simulator.run(self.config.url, self._stop, self._on_status)
        except Exception as error:  # the edge of the thread: the node's own raises it
            self._failure = error
            self._wake()

    def _raise_failure(self) -> None:
        raise WorldSystemError(f"the flight failed: {self._failure}") from self._failure

    def _on_status(self, status: SimStatus) -> None:
        self._status = status

    def facts(self) -> dict[str, object]:
        status = self._status
        if status is None:
            return {}
        return {"phase": status.phase, "sent": status.frames_sent, "of": status.frames_total}

    def input_ended(self) -> None:
        self._stop.set()
        self._thread.join(_JOIN_S)


def main() -> None:
    run_node(SimulatorNode)
