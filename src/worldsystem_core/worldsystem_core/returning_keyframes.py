# SPDX-License-Identifier: Apache-2.0
"""What a stage that was begun anew still has of before, and the reconstruction may not."""

from __future__ import annotations

import time
from collections.abc import Iterable

QUIET_S = 3.0
"""Keyframes told again come a few with each picture; after so long without one all were told."""


class ReturningKeyframes:
    """The keyframes `ids` that a process before was told: those that the reconstruction does not
    mention once it was asked have been replaced.

    Before it tells keyframes again it says where all lie. So what is not mentioned from its answer
    on, until it has said nothing of any of them for a while, is not there.
    """

    def __init__(self, ids: Iterable[int] = ()) -> None:
        self._ids = frozenset(ids)
        self._unheard = set(self._ids)
        self._is_answered = False
        self._heard_s: float | None = None

    def answered(self) -> None:
        """The reconstruction has said that it will tell them."""
        self._is_answered = True

    def heard(self, ids: Iterable[int]) -> None:
        """These were told again, moved or withdrawn."""
        mentioned = self._ids.intersection(ids)
        self._unheard -= mentioned
        if mentioned and self._is_answered:
            self._heard_s = time.monotonic()

    def take_replaced(self) -> tuple[int, ...]:
        """Those that were not mentioned while others were; empty until it is quiet, and after."""
        if self._heard_s is None or time.monotonic() - self._heard_s < QUIET_S:
            return ()
        replaced = tuple(sorted(self._unheard))
        self._unheard.clear()
        return replaced
