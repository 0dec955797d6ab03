# SPDX-License-Identifier: Apache-2.0
"""Latency histograms in fixed buckets, cheap enough for every frame."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

import numpy as np

BUCKETS_S = tuple(float(edge) for edge in np.geomspace(0.001, 60.0, 60))
_PLAUSIBLE_S = 3600.0


def live_latency_s(capture_ns: int, begun_s: float) -> float | None:
    """The time from capture to now; None for what was captured before `begun_s`
    (`time.monotonic`), as a recording and a map that was loaded, and for stamps that are not
    wall-clock time."""
    age_s = (time.time_ns() - capture_ns) / 1e9
    longest_s = min(time.monotonic() - begun_s, _PLAUSIBLE_S)
    return age_s if -_PLAUSIBLE_S < age_s < longest_s else None


class LatencyHistogram:
    """Counts durations in logarithmic buckets from 1 ms to 60 s; safe from any thread."""

    def __init__(self) -> None:
        self._counts = np.zeros(len(BUCKETS_S) + 1, dtype=np.int64)
        self._lock = threading.Lock()

    def add(self, duration_s: float) -> None:
        """Count one duration; negative ones (clocks that disagree) count as zero."""
        at = int(np.searchsorted(BUCKETS_S, max(duration_s, 0.0)))
        with self._lock:
            self._counts[at] += 1

    @property
    def count(self) -> int:
        return int(self._counts.sum())

    def counts(self) -> list[int]:
        """Number of durations per bucket; the last bucket is everything above 60 s."""
        with self._lock:
            return [int(n) for n in self._counts]

    def percentile_s(self, percent: float) -> float:
        """Upper edge of the bucket that holds the percentile; NaN when nothing was counted."""
        return percentile_s(self.counts(), percent)


def percentile_s(counts: Sequence[int], percent: float) -> float:
    """Upper edge of the bucket that holds the percentile; NaN when nothing was counted.

    `counts` has one entry a bucket, as `LatencyHistogram.counts` gives them.
    """
    total = sum(counts)
    if not total:
        return float("nan")
    at = int(np.searchsorted(np.cumsum(counts), percent / 100.0 * total))
    return float((*BUCKETS_S, np.inf)[at])
