# SPDX-License-Identifier: Apache-2.0
"""The scene frames that new ones are registered to: a bounded sample of what was seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from worldsystem_slam3r.slam3r.views import View


class SceneBuffer:
    """At most `capacity` scene frames (0: any number), one offered per key-frame interval.

    When full, `fifo` lets the oldest go; `reservoir` keeps an even sample of all that were ever
    offered. `milestone` is the index up to which the stream has been offered.
    """

    def __init__(
        self, *, capacity: int, strategy: str, rng: np.random.RandomState, interval: int = 1
    ) -> None:
        self.views: list[View] = []
        self.milestone = 0
        self._capacity = capacity
        self._strategy = strategy
        self._rng = rng
        self._interval = interval
        self._offered = 0

    def __len__(self) -> int:
        return len(self.views)

    def start(self, views: Sequence[View], milestone: int) -> None:
        """Take the frames that a scene starts with; those of earlier scenes make room."""
        self.views += views
        self._offered += len(views)
        self.milestone = milestone
        while self._capacity and len(self.views) > self._capacity:
            self._let_go(len(self.views) - len(views))

    def advance(self, upcoming: int, stride: int, recent: Mapping[int, View]) -> list[View]:
        """Offer the best frame of each interval that ended before frame `upcoming`.

        Returns these frames, whether the buffer took them or not; an interval without a usable
        frame in `recent` gives none.
        """
        if upcoming - self.milestone < stride * self._interval:
            return []
        chosen = []
        while upcoming - self.milestone >= stride:
            self._offered += 1
            best = self._best(stride, recent)
            if best is not None:
                chosen.append(best)
            if best is not None and self._wants_one():
                self._insert(best)
            self.milestone += stride
        return chosen

    def _best(self, stride: int, recent: Mapping[int, View]) -> View | None:
        newest = self.views[-1].index if self.views else self.milestone - stride
        # Two scene frames keep three quarters of a stride between them.
        first = self.milestone + max(0, newest + stride * 3 // 4 - self.milestone)
        among = [recent[i] for i in range(first, self.milestone + stride) if i in recent]
        return max(among, key=lambda view: view.quality, default=None)

    @property
    def _full(self) -> bool:
        return self._capacity > 0 and len(self.views) >= self._capacity

    def _wants_one(self) -> bool:
        if not self._full or self._strategy == "fifo":
            return True
        return bool(self._rng.rand() < self._capacity / self._offered)

    def _insert(self, view: View) -> None:
        was_full = self._full
        self.views.append(view)
        if was_full:
            self._let_go(self._capacity)

    def _let_go(self, among_first: int) -> None:
        random = self._strategy == "reservoir" and among_first > 0
        self.views.pop(int(self._rng.randint(among_first)) if random else 0)
