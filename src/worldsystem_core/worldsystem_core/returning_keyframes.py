# SPDX-License-Identifier: Apache-2.0
"""Keyframes that a stage begun anew has from the process before it; some may be replaced by now."""

from __future__ import annotations

import time
from collections.abc import Iterable

from worldsystem_core.keyframe_inbox import Correction, keyframes_of
from worldsystem_core.reconstruction import MovedKeyframes, ScaleState

QUIET_S = 3.0
"""Keyframes told again come a few with each picture; after so long without one all were told."""


class ReturningKeyframes:
    """Finds out which of the keyframes `ids`, told to the process before, exist no more.

    When a stage is begun anew, the reconstruction first says where all of its keyframes lie, and
    then tells them again. Those of `ids` that it does not mention meanwhile have been replaced.
    Without `ids` nothing is ever found.
    """

    def __init__(self, ids: Iterable[int] = ()) -> None:
        self._ids = frozenset(ids)
        self._unheard, self._untold = set(self._ids), set(self._ids)
        self._ungrown: set[int] = set()  # those untold that a change of the unit has yet to reach
        self._heard_s: float | None = None

    def heard(self, event: Correction) -> None:
        """Note which keyframes a correction mentions. The reconstruction has begun to say where
        all lie with the first one that has a unit (`scale`); it may go on with one for each."""
        mentioned = self._ids.intersection(keyframes_of(event))
        self._unheard -= mentioned
        says_all = isinstance(event, MovedKeyframes) and event.scale is not None
        if mentioned and (says_all or self._heard_s is not None):
            self._heard_s = time.monotonic()

    def told_again(self, ids: Iterable[int]) -> None:
        """Note keyframes that were told once more: later sizes count from that telling."""
        self._unheard.difference_update(ids)
        self._untold.difference_update(ids)

    def sizes(self, event: MovedKeyframes, unit: ScaleState) -> dict[int, float]:
        """The sizes of `event` that can be applied, where the root has this `unit`.

        A size counts from the last telling of its keyframe. Of one that was not told again yet
        this process may have missed that telling, so its size is left out: it keeps the one it
        has. When the unit changes all sizes are given, also where each comes as an event of its
        own, as between processes: there the first of them has changed the unit already.
        """
        if event.scale not in (None, unit):
            self._ungrown = set(self._untold)
        grown: set[int] = set()
        if event.scale is not None:
            grown = self._ungrown.intersection(event.point_scale)
        self._ungrown -= grown
        left_out = self._untold - grown
        return {key: size for key, size in event.point_scale.items() if key not in left_out}

    def take_replaced(self) -> tuple[int, ...]:
        """Those of `ids` that have been replaced, told once. Empty until the reconstruction has
        mentioned others, and then none for `QUIET_S`."""
        if self._heard_s is None or time.monotonic() - self._heard_s < QUIET_S:
            return ()
        replaced = tuple(sorted(self._unheard))
        self._unheard.clear()
        return replaced
