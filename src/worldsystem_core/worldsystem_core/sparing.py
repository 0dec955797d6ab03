# SPDX-License-Identifier: Apache-2.0
"""How often work may be done whose cost grows with the map: no more than a share of the time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Sparing:
    """Work that took `t` seconds is due again `t / share` seconds after it began, once `wanted`.

    That is after `least_s` at the earliest, `most_s` at the latest; with a share of 1 and no
    `least_s` it is always due. `spent` is the clock by which the work's cost is told: without one
    `clock`, `time.thread_time` where waiting in between costs nothing.
    """

    def __init__(
        self,
        share: float,
        *,
        least_s: float = 0.0,
        most_s: float = math.inf,
        clock: Callable[[], float] = time.monotonic,
        spent: Callable[[], float] | None = None,
    ) -> None:
        self._share, self._least_s, self._most_s = share, least_s, most_s
        self._clock, self._spent = clock, spent or clock
        self._due_s = -math.inf
        self.wanted = False

    @property
    def is_due(self) -> bool:
        return self.wanted and self._clock() >= self._due_s

    @contextmanager
    def work(self) -> Iterator[None]:
        """Around the work, which then is no longer wanted; one that fails has cost what it did."""
        self.wanted = False
        began_s, spent_s = self._clock(), self._spent()
        try:
            yield
        finally:
            rest_s = (self._spent() - spent_s) / self._share
            self._due_s = began_s + min(max(rest_s, self._least_s), self._most_s)
