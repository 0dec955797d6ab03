# SPDX-License-Identifier: Apache-2.0
"""The reporter: watches all stages and, at the end, leaves trajectory, meshes and report."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray

from worldsystem.config import ReporterConfig
from worldsystem.observer import Live, Observer
from worldsystem.run_folder import FolderInUse, made_run_folder
from worldsystem.sent import frames_sent
from worldsystem.watch.state import SILENT_AFTER_S
from worldsystem_core.reconstruction import NewKeyframe
from worldsystem_core.ros import topics
from worldsystem_core.ros.adapters.slam import KeyframeEvent
from worldsystem_core.ros.container import run_node
from worldsystem_core.ros.diagnostic_names import stage_of
from worldsystem_core.ros.followed_surface import FollowedSurface
from worldsystem_core.ros.stage_node import RUNNING, StageNode

log = logging.getLogger(__name__)

_TICK_S = 1.0


@dataclass(frozen=True)
class Sign:
    """A stage's last sign of life, on a monotonic clock, and what it said of itself."""

    heard_s: float
    message: str
    facts: dict[str, str]


class ReporterNode(StageNode):
    """Feeds an `Observer` from the topics and writes what the run leaves."""

    niceness = 10

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("reporter", ReporterConfig, **kwargs)
        self.folder = Path(self.config.folder or made_run_folder(Path("runs")))
        self.observer = Observer()
        self.live: Live = self.observer.tick()
        self.notes: list[str] = []
        self.signs: dict[str, Sign] = {}
        self.supervised: dict[str, object] = {}
        self.listen(topics.LEDGER, self.observer.stage)
        self._surface = FollowedSurface(self, self.observer.mesh)
        self.listen(topics.MESH, self._surface.take)
        self.listen(topics.PATH, self.observer.path)
        self.listen(topics.KEYFRAME, self._on_keyframe, self._on_keyframe)  # lost ones count too
        self.listen(topics.DIAGNOSTICS, self._on_diagnostics)
        self.create_timer(_TICK_S, self._tick)
        self._in_use = FolderInUse(self.folder)  # last: nobody closes a node that was not made

    def _on_diagnostics(self, told: DiagnosticArray) -> None:
        """Every stage tells about once a second how it is: its sign of life."""
        for status in told.status:
            if stage := stage_of(status.name, self.get_namespace()):
                facts = {value.key: value.value for value in status.values}
                self.signs[stage] = Sign(time.monotonic(), status.message, facts)

    def facts(self) -> dict[str, object]:
        """What the supervisor, if there is one, knows of the stages' processes."""
        return self.supervised

    def problem(self) -> str:
        """Which stages are not heard any more: one who listens from now on never heard them.

        By the newest sign, its own among them: what waits for a busy reporter is no silence.
        """
        newest_s = max((sign.heard_s for sign in self.signs.values()), default=0.0)
        missed = (self._missed(name, sign, newest_s) for name, sign in sorted(self.signs.items()))
        return "; ".join(filter(None, missed))

    def _missed(self, name: str, sign: Sign, newest_s: float) -> str:
        if self.supervised.get(f"state.{name}") == "restarting":
            return f"{name} ended and is begun anew"
        silent_s = newest_s - sign.heard_s
        if silent_s <= SILENT_AFTER_S:
            return ""
        said = "" if sign.message == RUNNING else f" ({sign.message})"
        return f"{name} has not been heard for {silent_s:.0f} s{said}"

    def _on_keyframe(self, event: KeyframeEvent) -> None:
        if isinstance(event, NewKeyframe):
            self.observer.keyframe(event.keyframe.id)

    def _tick(self) -> None:
        self._in_use.take()  # the recorder may have made the folder since
        self.live = self.observer.tick()

    def _backend(self) -> str:
        """The one that ran, which need not be the one that was asked for."""
        told = self.signs["slam3r"].facts if "slam3r" in self.signs else {}
        return told.get("backend", self.config.backend)

    def input_ended(self) -> None:
        """Write everything; the other stages have ended and sent their last accounts."""
        # Imported here: Open3D and the plots take seconds, and no run should wait for that.
        from worldsystem.outputs import read_truth, write_outputs

        self._surface.close()
        log.info("writing the report to %s", self.folder)
        truth, problem = read_truth(self.config.truth)
        run = self.observer.record(
            self.folder,
            source=self.config.source,
            backend=self._backend(),
            truth=truth,
            frames_sent=frames_sent(self.config.truth, self.config.source),
            notes=(*self.notes, *filter(None, (problem,))),
        )
        write_outputs(run, report=self.config.report)

    def close(self) -> None:
        self._in_use.close()
        super().close()


class _ReporterApart(ReporterNode):
    """In a process of its own, to which nothing is handed by reference."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.observer.delivered_by_reference = False


def main() -> None:
    run_node(_ReporterApart)
