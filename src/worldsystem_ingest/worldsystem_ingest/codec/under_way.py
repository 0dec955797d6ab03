# SPDX-License-Identifier: Apache-2.0
"""The access units that a decoder has taken and not yet given a picture for."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import av
import numpy as np
from jaxtyping import UInt8

from worldsystem_ingest.sink import CORRUPT, NO_KEY_FRAME

_MAX_REORDER = 32  # twice the most that either standard allows (16 pictures)
ToRgb = Callable[[av.VideoFrame], UInt8[np.ndarray, "h w 3"]]


@dataclass(frozen=True, eq=False)
class Decoded:
    """The picture of access unit `index`; not `whole` when parts of it are the decoder's guess."""

    index: int
    rgb: UInt8[np.ndarray, "h w 3"]
    whole: bool = True


@dataclass(frozen=True)
class Lost:
    """Access unit `index` gives no picture."""

    index: int
    reason: str


Outcome = Decoded | Lost


class UnderWay:
    """Turns what comes out of a decoder into outcomes, each unit's once, in display order.

    A broken picture spoils all that were coded after it in its group of pictures. With `in_order`
    a picture waits until all that were coded before it are known, because those that refer to a
    broken one may be shown before it.
    """

    def __init__(self, to_rgb: ToRgb, *, threads: int, in_order: bool, show_broken: bool) -> None:
        self._to_rgb = to_rgb
        self._most_unsettled = _MAX_REORDER + threads
        self._in_order = in_order
        self._show_broken = show_broken
        self._group = self._last = -1
        self._group_of: dict[int, int] = {}
        self._pending: dict[int, None] = {}  # in coding order
        self._held: deque[tuple[int, av.VideoFrame]] = deque()  # in display order
        self._broken_from: dict[int, int] = {}  # by group
        self._recovering_group = -2

    @property
    def broken(self) -> bool:
        """Whether pictures that are fed now would refer to a broken one."""
        return self._group in self._broken_from

    def begin_group(self, index: int, *, recovering: bool) -> None:
        """Units from `index` on refer to none before it, but for those that the decoder holds back
        while it is `recovering`.
        """
        self._group = index
        if recovering:
            self._recovering_group = index
        live = {index, *self._group_of.values()}
        self._broken_from = {g: at for g, at in self._broken_from.items() if g in live}

    def break_group(self) -> None:
        """Units between the last one added and the next are missing."""
        self._break(self._group, self._last + 1)

    def add(self, index: int) -> None:
        """The decoder takes the unit `index`."""
        self._last = index
        self._group_of[index] = self._group
        self._pending[index] = None

    def came(self, pictures: list[av.VideoFrame]) -> None:
        """The decoder gave `pictures`, in display order."""
        for picture in pictures:
            index = picture.pts
            if index in self._pending:
                del self._pending[index]
                self._held.append((index, picture))
                if picture.is_corrupt:
                    self._break(self._group_of[index], index)

    def failed(self, index: int) -> list[Outcome]:
        """The decoder could not read the unit `index`."""
        if index not in self._pending:
            return []
        del self._pending[index]
        self._break(self._group_of.pop(index), index)
        return [Lost(index, CORRUPT)]

    def without_delay(self, index: int) -> list[Outcome]:
        """What is ready, where the decoder gives the picture of `index` at once or never."""
        never = index in self._pending and self._group == self._recovering_group
        return self.ready() + (self._withheld(index) if never else [])

    def ready(self) -> list[Outcome]:
        """What became of units so far."""
        outcomes: list[Outcome] = []
        while self._pending and len(self._group_of) > self._most_unsettled:
            outcomes += self._withheld(next(iter(self._pending)))
        oldest = next(iter(self._pending), None)
        while self._held:
            index, picture = self._held[0]
            if self._in_order and oldest is not None and index > oldest:
                break
            self._held.popleft()
            outcomes.append(self._outcome(index, picture))
        return outcomes

    def end(self) -> list[Outcome]:
        """The decoder gives nothing more; settles all."""
        lost = [outcome for index in list(self._pending) for outcome in self._withheld(index)]
        return lost + self.ready()

    def _withheld(self, index: int) -> list[Outcome]:
        if self._group_of[index] != self._recovering_group:
            return self.failed(index)
        del self._pending[index], self._group_of[index]
        return [Lost(index, NO_KEY_FRAME)]

    def _break(self, group: int, index: int) -> None:
        self._broken_from[group] = min(index, self._broken_from.get(group, index))

    def _outcome(self, index: int, picture: av.VideoFrame) -> Outcome:
        broken_from = self._broken_from.get(self._group_of.pop(index))
        whole = broken_from is None or index < broken_from
        if whole or self._show_broken:
            return Decoded(index, self._to_rgb(picture), whole)
        return Lost(index, CORRUPT if picture.is_corrupt else NO_KEY_FRAME)
