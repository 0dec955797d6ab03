# SPDX-License-Identifier: Apache-2.0
"""The least delay between a sender's clock and ours, followed through jitter, jams and drift.

Of each second the fastest packet counts. The lowest eighth of those minima within the window gives
the offset, which is steadier than the lowest alone where the jitter has no sharp edge; a line
through the minima of the last twenty windows gives the drift and holds the offset while a standing
queue delays every packet. The idea of the lower edge is that of Moon, Skelly, Towsley, "Estimation
and removal of clock skew from network delay measurements", INFOCOM 1999.
"""

from __future__ import annotations

from collections import deque

import numpy as np
from jaxtyping import Float64

_BUCKET_NS = 10**9
_HISTORY_GROUPS = 60
_GROUPS_TO_YIELD = 6  # a queue passes within a minute or two; what stays is another path or clock
_DRIFT_PRIOR, _MOST_DRIFT = 40e-6, 200e-6  # quartz keeps within 100 ppm
_LONGEST_CARRY_NS = 3600 * 10**9
_LEAST_NOISE_NS = 200_000.0
_STEP_BUCKETS = 3
_FALL_NS, _RISE_NS = 10_000_000, 500_000_000
_FIT_ROUNDS = 5
_LOWEST_SHARE = 8
_Point = tuple[int, int]


class LeastDelay:
    """Takes (sender's time, delay) [ns] and says what the delay of the fastest packet would be.

    The delay is the difference of two clocks: it has no meaning but as an offset between them.
    """

    def __init__(self, window_s: float) -> None:
        seconds = max(2 * _STEP_BUCKETS, round(window_s))
        self._minima: deque[_Point] = deque(maxlen=seconds)
        self._groups: deque[tuple[float, float, float]] = deque(maxlen=_HISTORY_GROUPS)
        self._group_size = max(1, seconds // 3)
        self._since_group = 0
        self._history: _Point | None = None
        self._edge: _Point | None = None
        self._bucket = -1
        self._open: _Point | None = None
        self._suspected = 0
        self.drift = 0.0
        self.steps = 0

    @property
    def known(self) -> bool:
        """Whether there is anything to go by."""
        return bool(self._open or self._minima)

    @property
    def young(self) -> bool:
        """Whether not even one second is complete."""
        return not self._minima

    @property
    def lowest_ns(self) -> int | None:
        """The least delay that any packet of the window had."""
        points = [*self._minima, *([self._open] if self._open else [])]
        return min((delay for _, delay in points), default=None)

    @property
    def spread_ns(self) -> float | None:
        """Twice the standard deviation of the lower minima; None before there are three."""
        if len(self._minima) < _STEP_BUCKETS:
            return None
        carried = self._carried(self._minima[-1][0])
        return 2.0 * float(carried[: (len(carried) + 1) // 2].std()) + _LEAST_NOISE_NS

    def restart(self, points: list[_Point], arrival_ns: int) -> None:
        """The sender's clock was set: only `points` tell of it. The drift stays the same."""
        self._minima.clear()
        self._groups.clear()
        self._since_group, self._history, self._edge = 0, None, None
        self._bucket = arrival_ns // _BUCKET_NS
        self._open = min(points, key=lambda point: point[1]) if points else None

    def suspect_a_step(self) -> None:
        """Another sender may have come: delays that stay 0.5 s longer are its clock, not a jam."""
        self._suspected = _STEP_BUCKETS + 1  # the second under way is the old sender's too

    def add(self, sender_ns: int, delay_ns: int, arrival_ns: int) -> None:
        """Take one packet."""
        bucket = arrival_ns // _BUCKET_NS
        if bucket != self._bucket:
            self._close_bucket()
            self._bucket = bucket
            self._open = (sender_ns, delay_ns)
        elif self._open is None or delay_ns < self._open[1]:
            self._open = (sender_ns, delay_ns)

    def at(self, sender_ns: int) -> int:
        """The least delay of a packet of that sender's time; 0 while nothing is known."""
        if self._edge is None:
            return self.lowest_ns or 0
        return self._carry(self._edge, sender_ns)

    def _carry(self, point: _Point, sender_ns: int) -> int:
        """What the delay of `point` has become by `sender_ns`."""
        passed_ns = max(-_LONGEST_CARRY_NS, min(_LONGEST_CARRY_NS, sender_ns - point[0]))
        return point[1] + round(self.drift * passed_ns)

    @property
    def _base_ns(self) -> int:
        return self._minima[-1][1]

    def _carried(self, sender_ns: int) -> Float64[np.ndarray, "n"]:
        """The minima carried to `sender_ns` by the drift, less `_base_ns`, in rising order."""
        base_ns = self._base_ns
        return np.sort(
            [delay - base_ns + self.drift * (sender_ns - at) for at, delay in self._minima]
        )

    def _close_bucket(self) -> None:
        if self._open is None:
            return
        self._minima.append(self._open)
        self._notice_slow_steps()
        self._since_group += 1
        if self._since_group >= self._group_size and len(self._minima) >= self._group_size:
            self._since_group = 0
            self._close_group()
        self._find_edge()

    def _find_edge(self) -> None:
        if len(self._minima) < _STEP_BUCKETS:
            return
        origin_ns, base_ns = self._minima[-1]
        carried = self._carried(origin_ns)
        level_ns = base_ns + round(float(carried[: _lowest(len(carried))].mean()))
        if self._history is not None:
            level_ns = min(level_ns, self._carry(self._history, origin_ns))
        self._edge = (origin_ns, level_ns)

    def _notice_slow_steps(self) -> None:
        """Three seconds on end far from all before are another clock, or another path."""
        recent, older = list(self._minima)[-_STEP_BUCKETS:], list(self._minima)[:-_STEP_BUCKETS]
        judged = self._suspected == 1
        self._suspected = max(0, self._suspected - 1)
        if not older:
            return
        lowest_ns = min(delay for _, delay in older)
        if self._history is not None:
            lowest_ns = min(lowest_ns, self._carry(self._history, recent[0][0]))
        highest_ns = max(delay for _, delay in recent)
        fell = len(older) >= _STEP_BUCKETS and highest_ns < lowest_ns - _FALL_NS
        rose = judged and min(delay for _, delay in recent) > lowest_ns + _RISE_NS
        if fell or rose:
            self.steps += 1
            self.restart([], self._bucket * _BUCKET_NS)
            self._minima.extend(recent)

    def _close_group(self) -> None:
        """Fit the line through the lower edge of the history, and let it yield to what lasts."""
        newest = list(self._minima)[-self._group_size :]
        origin_ns, base_ns = newest[-1]
        lower = sorted(newest, key=lambda point: point[1])[: _lowest(len(newest))]
        at = float(np.mean([at - origin_ns for at, _ in lower])) + origin_ns
        level = float(np.mean([delay - base_ns for _, delay in lower])) + base_ns
        self._groups.append((at, level, float(np.std([delay - base_ns for _, delay in newest]))))
        if len(self._groups) < 2:
            return
        times = np.array([at - origin_ns for at, _, _ in self._groups])
        levels = np.array([level - base_ns for _, level, _ in self._groups])
        scatter_ns = float(np.median([scatter for _, _, scatter in self._groups]))
        noise_ns = max(_LEAST_NOISE_NS, scatter_ns)
        residuals = self._fit(times, levels, noise_ns)
        level_ns = float(levels[-1] - residuals[-1] - self.drift * times[-1])
        self._history = (origin_ns, base_ns + round(level_ns))
        late = residuals[-_GROUPS_TO_YIELD:] > 2 * noise_ns
        if len(self._groups) > _GROUPS_TO_YIELD and bool(late.all()):
            while len(self._groups) > _GROUPS_TO_YIELD:
                self._groups.popleft()
            self._history = None

    def _fit(
        self, times: Float64[np.ndarray, "n"], levels: Float64[np.ndarray, "n"], noise_ns: float
    ) -> Float64[np.ndarray, "n"]:
        """Set the drift; gives what the levels are above the line. Levels in a jam count little."""
        centred = levels - self.drift * times
        residuals = centred - np.quantile(centred, 0.25)
        for _ in range(_FIT_ROUNDS):
            weights = np.minimum(1.0, (noise_ns / np.maximum(residuals, 1.0)) ** 2)
            time_mean = np.average(times, weights=weights)
            level_mean = np.average(levels, weights=weights)
            from_mean = times - time_mean
            prior = (noise_ns / _DRIFT_PRIOR) ** 2
            along = np.sum(weights * from_mean * (levels - level_mean))
            drift = float(along / (np.sum(weights * from_mean**2) + prior))
            self.drift = max(-_MOST_DRIFT, min(_MOST_DRIFT, drift))
            residuals = levels - level_mean - self.drift * from_mean
        return np.asarray(residuals)


def _lowest(count: int) -> int:
    """How many of `count` minima make up the lower edge."""
    return -(-count // _LOWEST_SHARE)
