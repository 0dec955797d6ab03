# SPDX-License-Identifier: Apache-2.0
"""What a stage that was begun anew still has of before, and the reconstruction may not."""

from __future__ import annotations

import time
from collections.abc import Iterable

from worldsystem_core.keyframe_inbox import Correction, keyframes_of
from worldsystem_core.reconstruction import MovedKeyframes, ScaleState

QUIET_S = 3.0
"""Keyframes told again come a few with each picture; after so long without one all were told."""


class ReturningKeyframes:
    """The keyframes `ids` that a process before was told: those that the reconstruction does not
    mention when it says where all lie, as it does before it tells them again, have been replaced.
    """

    def __init__(self, ids: Iterable[int] = ()) -> None:
        self._ids = frozenset(ids)
        self._unheard, self._untold = set(self._ids), set(self._ids)
        self._heard_s: float | None = None

    def heard(self, event: Correction) -> None:
        """Take a correction. One that says the root's unit is about all keyframes, and may come as
        one for each."""
        mentioned = self._ids.intersection(keyframes_of(event))
        self._unheard -= mentioned
        says_all = isinstance(event, MovedKeyframes) and event.scale is not None
        if mentioned and (says_all or self._heard_s is not None):
            self._heard_s = time.monotonic()

    def told_again(self, ids: Iterable[int]) -> None:
        """These were told once more: sizes that are told from now on count from there."""
        self._unheard.difference_update(ids)
        self._untold.difference_update(ids)

    def sizes(self, event: MovedKeyframes, unit: ScaleState) -> dict[int, float]:
        """The sizes that the event tells, where the root has this `unit`. What it says of keyframes
        of before that were not told again yet may count from a telling that nobody here heard:
        they keep the size that they have, unless the unit is another one."""
        if event.scale not in (None, unit):
            return event.point_scale
        return {key: size for key, size in event.point_scale.items() if key not in self._untold}

    def take_replaced(self) -> tuple[int, ...]:
        """Those that were not mentioned while others were; empty until it is quiet, and after."""
        if self._heard_s is None or time.monotonic() - self._heard_s < QUIET_S:
            return ()
        replaced = tuple(sorted(self._unheard))
        self._unheard.clear()
        return replaced
