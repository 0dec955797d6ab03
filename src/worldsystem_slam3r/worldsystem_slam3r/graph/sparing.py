# SPDX-License-Identifier: Apache-2.0
"""How often work may be done whose cost grows with the map: no more than a share of the time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Sparing:
    """Work that took `t` seconds is due again `t / share` seconds after it began, once `wanted`.

    With a share of 1 it is always due then.
    """

    def __init__(self, share: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._share = share
        self._clock = clock
        self._due_s = -float("inf")
        self.wanted = False

    @property
    def is_due(self) -> bool:
        return self.wanted and self._clock() >= self._due_s

    @contextmanager
    def work(self) -> Iterator[None]:
        """Around the work, which then is no longer wanted."""
        self.wanted = False
        began_s = self._clock()
        yield
        self._due_s = began_s + (self._clock() - began_s) / self._share
