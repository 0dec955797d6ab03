# SPDX-License-Identifier: Apache-2.0
"""Fewer pictures than a source delivers: one of every so many; the encoded video stays whole."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from worldsystem_core.frames import Frame
from worldsystem_ingest.passing import PassingSink
from worldsystem_ingest.sink import Sink, Summary

if TYPE_CHECKING:
    from worldsystem_ingest.source import Source

SKIPPED = "skipped"


class Thinning(PassingSink):
    """Hands on the first and then every `step`-th picture of each stream; the others end as
    `skipped`.

    Encoded units, cameras, telemetry and losses pass unchanged: whoever records or relays the video
    needs every unit of it. Lost pictures do not count, so the rate stays even. Each stream may have
    its own thread.
    """

    def __init__(self, sink: Sink, step: int) -> None:
        super().__init__(sink)
        self._step = step
        self._seen: dict[str, int] = {}
        self._lock = threading.Lock()
        self.handed_on = 0

    def frame(self, frame: Frame) -> None:
        """Pass on or skip."""
        with self._lock:
            seen = self._seen.get(frame.stream, 0)
            self._seen[frame.stream] = seen + 1
            taken = seen % self._step == 0
            self.handed_on += taken
        if taken:
            self._sink.frame(frame)
        else:
            self._sink.dropped(frame.id, SKIPPED, frame.stream)


class ThinnedSource:
    """A source of which every `step`-th picture is handed on; its summary counts those."""

    def __init__(self, source: Source, step: int) -> None:
        self.source = source
        self.live = source.live
        self._step = step

    def run(self, sink: Sink, stop: threading.Event) -> Summary:
        """Run the source with a sink that thins."""
        thinning = Thinning(sink, self._step)
        summary = self.source.run(thinning, stop)
        return Summary(frames=thinning.handed_on, broken=summary.broken)

    def facts(self) -> dict[str, object]:
        """Those of the source, and the step."""
        return {**self.source.facts(), "frame_step": self._step}

    def problem(self) -> str:
        """That of the source."""
        return self.source.problem()
