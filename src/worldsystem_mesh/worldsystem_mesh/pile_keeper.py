# SPDX-License-Identifier: Apache-2.0
"""Few blocks that are left of many get arrays of their own, so that those of the others can go.

Blocks that were made together lie in the same arrays, which live as long as one of them: every
part of the surface that stays as it is would keep all that once was drawn beside it.
"""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Sequence
from typing import Any, Protocol

LEAST_SHARE = 0.5
"""Of a pile's blocks must be in use."""
LOOKED_AT = 4
"""Piles that are looked at for each new one; each has its turn."""


class KeptBlock(Protocol):
    """A block whose arrays are part of those of a pile, which can be made smaller."""

    @property
    def place(self) -> tuple[Any, int]: ...

    def move(self, pile: Any, at: int) -> None: ...


class PileKeeper:
    """Knows the blocks of each pile without keeping them; for any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._piles: deque[list[weakref.ref[KeptBlock]]] = deque()

    def add(self, blocks: Sequence[KeptBlock]) -> None:
        """Blocks of one new pile; some of the older ones are looked at."""
        with self._lock:
            for _ in range(min(LOOKED_AT, len(self._piles))):
                self._look_at(self._piles.popleft())
            self._piles.append([weakref.ref(block) for block in blocks])

    def _look_at(self, pile: list[weakref.ref[KeptBlock]]) -> None:
        left = [block for held in pile if (block := held()) is not None]
        if not left:
            return
        if len(left) < LEAST_SHARE * len(pile):
            old = left[0].place[0]
            thinned = old.thinned([block.place[1] for block in left])
            for at, block in enumerate(left):
                block.move(thinned, at)
            pile = [weakref.ref(block) for block in left]
        self._piles.append(pile)
