# SPDX-License-Identifier: Apache-2.0
"""From the sender's clock to ours, by the packets that travelled fastest.

The least delay within a window is close to the constant part of the path; the lower hull of the
delays gives the drift (Moon, Skelly, Towsley: "Estimation and removal of clock skew from network
delay measurements", INFOCOM 1999).
"""

from __future__ import annotations

import itertools
from collections import deque
from dataclasses import dataclass

_EARLIEST_NS = 1_577_836_800 * 10**9
_DAY_NS = 86_400 * 10**9
_BUCKET_NS = 10**9
_STEP_NS = 500_000_000
_STEP_BUCKETS = 3
_POINTS_FOR_DRIFT = 10  # fewer seconds tell more about the network's noise than about the drift
_MAX_DRIFT = 200e-6  # quartz keeps within 100 ppm
_Point = tuple[int, int]


@dataclass(frozen=True)
class ClockState:
    """What is known of a sender's clock: host time = sender's time + `offset_ns`.

    `error_bound_ns` bounds how far stamps are from the capture time. Without `round_trip_ms`, which
    needs a sender that answers pings, the path's least delay is not known and comes on top.
    """

    offset_ns: int | None = None
    drift_ppm: float = 0.0
    error_bound_ns: int | None = None
    steps: int = 0
    round_trip_ms: float | None = None
    implausible: int = 0


class ClockEstimator:
    """Maps sender times [ns] to host times [ns]; the fastest packets arrive with delay zero.

    Until two samples are known the arrival time is used. With `epoch`, sender times before 2020
    or more than a day off the arrival are `implausible`: counted, and replaced by the arrival.
    """

    def __init__(self, window_s: float, *, epoch: bool = True) -> None:
        self._epoch = epoch
        self._minima: deque[_Point] = deque(maxlen=max(2, round(window_s)))
        self._bucket = -1
        self._samples = 0
        self._last: tuple[int, int] | None = None
        self.implausible = 0
        self.steps = 0

    def reset(self) -> None:
        """Forget the sender's clock, for instance because another sender came."""
        self._minima.clear()
        self._bucket = -1
        self._samples = 0
        self._last = None

    def host_ns(self, sender_ns: int, arrival_ns: int) -> int:
        """Host time of `sender_ns`; never later than `arrival_ns`, grows with the sender's time."""
        if self._epoch and not self.plausible(sender_ns, arrival_ns):
            self.implausible += 1
            return arrival_ns
        self._add(sender_ns, arrival_ns)
        if self._samples < 2:
            stamp_ns = arrival_ns
        else:
            stamp_ns = min(arrival_ns, sender_ns + self._offset_ns(sender_ns))
        if self._last and sender_ns > self._last[0]:
            stamp_ns = max(stamp_ns, self._last[1] + 1)
        self._last = (sender_ns, stamp_ns)
        return stamp_ns

    def mapped_ns(self, sender_ns: int, arrival_ns: int) -> int:
        """Like `host_ns`, but learns nothing: for telemetry that waits before it is sent."""
        if self._epoch and not self.plausible(sender_ns, arrival_ns):
            self.implausible += 1
            return arrival_ns
        if self._samples < 2:
            return arrival_ns
        return min(arrival_ns, sender_ns + self._offset_ns(sender_ns))

    @staticmethod
    def plausible(sender_ns: int, arrival_ns: int) -> bool:
        """Whether `sender_ns` can be a time since the epoch: not before 2020, within a day."""
        return sender_ns >= _EARLIEST_NS and abs(sender_ns - arrival_ns) <= _DAY_NS

    def _add(self, sender_ns: int, arrival_ns: int) -> None:
        self._samples += 1
        delay_ns = arrival_ns - sender_ns
        bucket = arrival_ns // _BUCKET_NS
        if bucket != self._bucket:
            self._forget_a_clock_that_was_set_back()
            self._bucket = bucket
            self._minima.append((sender_ns, delay_ns))
        elif delay_ns < self._minima[-1][1]:
            self._minima[-1] = (sender_ns, delay_ns)

    def _forget_a_clock_that_was_set_back(self) -> None:
        """A step of the sender's clock lifts every delay for good; a jam passes sooner."""
        if len(self._minima) <= _STEP_BUCKETS:
            return
        recent = list(self._minima)[-_STEP_BUCKETS:]
        older = list(self._minima)[:-_STEP_BUCKETS]
        if min(d for _, d in recent) > min(d for _, d in older) + _STEP_NS:
            self.steps += 1
            self._minima.clear()
            self._minima.extend(recent)

    def _offset_ns(self, sender_ns: int) -> int:
        """The supporting line of the delays from below, at `sender_ns`."""
        points = sorted(self._minima)
        if len(points) < _POINTS_FOR_DRIFT:
            return min(delay for _, delay in points)
        slope = max(-_MAX_DRIFT, min(_MAX_DRIFT, _supporting_slope(points)))
        return min(delay - round(slope * (at - sender_ns)) for at, delay in points)


def _supporting_slope(points: list[_Point]) -> float:
    """Slope of the lower convex hull's edge that spans the points' middle."""
    hull: list[_Point] = []
    for point in points:
        while len(hull) >= 2 and _turns_right(hull[-2], hull[-1], point):
            hull.pop()
        hull.append(point)
    middle = (points[0][0] + points[-1][0]) // 2
    for left, right in itertools.pairwise(hull):
        if right[0] >= middle:
            return (right[1] - left[1]) / max(right[0] - left[0], 1)
    return 0.0


def _turns_right(a: _Point, b: _Point, c: _Point) -> bool:
    return (b[0] - a[0]) * (c[1] - a[1]) <= (c[0] - a[0]) * (b[1] - a[1])
