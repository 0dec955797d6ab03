# SPDX-License-Identifier: Apache-2.0
"""What a stage that was begun anew still has of before, and the reconstruction may not."""

from __future__ import annotations

import time
from collections.abc import Iterable

QUIET_S = 3.0
"""Keyframes told again come a few with each picture; after so long without one all were told."""


class ReturningKeyframes:
    """The keyframes `ids` that a process before was told: those that are told again are still in
    the map, and others stand in for the rest since."""

    def __init__(self, ids: Iterable[int] = ()) -> None:
        self._unheard = set(ids)
        self._heard_s: float | None = None

    def heard(self, ids: Iterable[int]) -> None:
        """These were told again, moved or withdrawn."""
        before = len(self._unheard)
        self._unheard.difference_update(ids)
        if len(self._unheard) < before:
            self._heard_s = time.monotonic()

    def take_replaced(self) -> tuple[int, ...]:
        """Those that were not told again while others were; empty until it is quiet, and after."""
        if self._heard_s is None or time.monotonic() - self._heard_s < QUIET_S:
            return ()
        replaced = tuple(sorted(self._unheard))
        self._unheard.clear()
        return replaced
