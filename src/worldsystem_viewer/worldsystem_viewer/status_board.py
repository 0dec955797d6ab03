# SPDX-License-Identifier: Apache-2.0
"""The values of the status bar, from what the stages report."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from worldsystem_core.latency import percentile_s
from worldsystem_core.ledger import StageReport
from worldsystem_core.told_keyframes import TOLD_AGAIN

_TRACKING_STAGE = "slam3r"
_MAP_STAGE = "mesher"
_COUNTS_POSTINGS = "bridge"
_SILENT_S = 10.0
"""A stage reports each second: one that has not for so long is dead, or hangs."""


class StatusBoard:
    """Takes stage reports; one thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._heard_s = -math.inf  # of the stage that tracks
        self._reports: dict[str, StageReport] = {}
        self._dropped_before = 0
        self._fps = 0.0

    def take(self, report: StageReport) -> None:
        """A stage's newest account; the rate of frames comes from two in a row of one process."""
        stage = report.ledger.stage
        before = self._reports.get(stage)
        self._reports[stage] = report
        if before is not None and report.ledger.taken < before.ledger.taken:
            self._dropped_before += _dropped(before)  # it was begun anew and counts from nothing
            before = None
        if stage != _TRACKING_STAGE:
            return
        self._heard_s = self._clock()
        if before is None:
            self._fps = 0.0
        else:
            since_s = (report.stamp_ns - before.stamp_ns) / 1e9
            if since_s > 0:
                self._fps = (report.ledger.used - before.ledger.used) / since_s

    def values(self) -> dict[str, object]:
        """Frames per second, frames let go, and the median time from capture to map."""
        dropped = self._dropped_before + sum(map(_dropped, self._reports.values()))
        fps = 0.0 if self._clock() - self._heard_s > _SILENT_S else round(self._fps, 1)
        values: dict[str, object] = {"fps": fps, "dropped": dropped}
        mapped = self._reports.get(_MAP_STAGE)
        if mapped is not None and any(mapped.latency_counts):
            median_s = percentile_s(mapped.latency_counts, 50.0)
            if math.isfinite(median_s):  # a replayed recording is older than what is measured
                values["latency_ms"] = round(1e3 * median_s)
        return values


def _dropped(report: StageReport) -> int:
    """What the stage let go of that counts: pictures and keyframes, each once."""
    if report.ledger.stage == _COUNTS_POSTINGS:
        return 0
    return sum(count for reason, count in report.ledger.dropped.items() if reason != TOLD_AGAIN)
