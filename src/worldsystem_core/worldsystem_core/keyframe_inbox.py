# SPDX-License-Identifier: Apache-2.0
"""An inbox of keyframes and their corrections that lets go of keyframes first.

A keyframe that is late can be missed; a correction is told only once, so one that is lost leaves a
part of the map where it was. Corrections are small, and neighbours of a kind can be made one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from worldsystem_core.handoff import Handoff
from worldsystem_core.reconstruction import (
    Keyframe,
    MovedKeyframes,
    NewKeyframe,
    RemovedKeyframes,
)

MOST_FOLD = 20
"""How many times the capacity may wait, when all are corrections that cannot be joined."""


@dataclass(frozen=True, eq=False)
class ToldAgain:
    """Keyframes that were told once more, and where they lay then; later sizes count from there.

    It replaces the keyframes themselves for a reader that knows them already.
    """

    world_from_cam: dict[int, Float64[np.ndarray, "4 4"]]


Correction = MovedKeyframes | RemovedKeyframes | ToldAgain
Told = NewKeyframe | Correction


class KeyframeInbox(Handoff[Told]):
    """Makes room, when full, by joining neighbouring corrections of a kind, and by dropping the
    oldest keyframe where there are none to join; corrections stay, in their order.

    Of a dropped keyframe that `is_known` to the reader, because it was told before, a `ToldAgain`
    stays. `on_known` is called with each known keyframe that is taken as a correction.

    `on_drop` is called with each dropped keyframe. It is called with a correction, the oldest, when
    `MOST_FOLD` times the capacity waits: the reader then has to ask for all keyframes anew.
    """

    def __init__(self, capacity: int, on_drop: Callable[[Told], None] | None = None) -> None:
        super().__init__(capacity, on_drop)
        self.is_known: Callable[[Keyframe], bool] = lambda keyframe: False
        self.on_known: Callable[[Keyframe], None] = lambda keyframe: None
        self._most = MOST_FOLD * capacity

    def take_corrections(self, first: Told | None = None) -> list[Correction]:
        """Take what waits before the first news, as corrections; `first`, which was got before
        and is no news either, leads them when given. A keyframe that one of them withdraws is news
        when it is told again behind it."""
        gone = set(first.ids) if isinstance(first, RemovedKeyframes) else set()

        def is_no_news(event: Told) -> bool:
            if isinstance(event, NewKeyframe):
                return event.keyframe.id not in gone and not self.is_news(event)
            gone.update(event.ids if isinstance(event, RemovedKeyframes) else ())
            return True

        taken = self.take_first(is_no_news)
        return [self._as_correction(event) for event in [first, *taken] if event is not None]

    def is_news(self, event: Told) -> bool:
        """Whether it is a keyframe that is not known."""
        return isinstance(event, NewKeyframe) and not self.is_known(event.keyframe)

    def _as_correction(self, event: Told) -> Correction:
        if not isinstance(event, NewKeyframe):
            return event
        self.on_known(event.keyframe)
        return _told_again(event.keyframe)

    def _make_room(self) -> list[Told]:
        self._join()
        over = len(self._items) - self._capacity
        if over < 0 or (over == 0 and is_correction(self._items[-1][2])):
            return []  # in the second case it will be joined with what comes, or the next goes
        lost: list[Told] = []
        for at, (order, came, event) in enumerate(self._items):
            if isinstance(event, NewKeyframe):
                lost.append(event)
                if self.is_known(event.keyframe):
                    self._items[at] = (order, came, _told_again(event.keyframe))
                    self._join()
                else:
                    del self._items[at]
                break
        if len(self._items) >= self._most:
            lost.append(self._items.popleft()[2])
        return lost

    def _join(self) -> None:
        """Make neighbours of a kind one, which came when the first of them did."""
        entries = list(self._items)
        self._items.clear()
        for order, came, event in entries:
            one = _both(self._items[-1][2], event) if self._items else None
            if one is None:
                self._items.append((order, came, event))
            else:
                self._items[-1] = (*self._items[-1][:2], one)


def is_correction(event: Told) -> bool:
    """Whether it tells of keyframes that were told before."""
    return not isinstance(event, NewKeyframe)


def keyframes_of(correction: Correction) -> tuple[int, ...]:
    """The keyframes that it is about."""
    if isinstance(correction, RemovedKeyframes):
        return correction.ids
    return tuple(correction.world_from_cam)


def joined(corrections: Iterable[Correction]) -> Sequence[Correction]:
    """The same corrections with neighbours of a kind made one.

    Poses and sizes are of now, not steps: who is told only the last ones ends in the same state.
    Moves in the unit of before are not made one with those that change the unit.
    """
    found: list[Correction] = []
    for correction in corrections:
        one = _both(found[-1], correction) if found else None
        if one is None:
            found.append(correction)
        else:
            found[-1] = one
    return found


def _both(first: Told, then: Told) -> Correction | None:
    """One that does what both do, one after the other; None when they are not of a kind."""
    if isinstance(first, MovedKeyframes) and isinstance(then, MovedKeyframes):
        return _both_moves(first, then)
    if isinstance(first, RemovedKeyframes) and isinstance(then, RemovedKeyframes):
        successors = first.successors | then.successors
        return RemovedKeyframes((*first.ids, *then.ids), successors)
    if isinstance(first, ToldAgain) and isinstance(then, ToldAgain):
        return ToldAgain(first.world_from_cam | then.world_from_cam)
    return None


def _both_moves(first: MovedKeyframes, then: MovedKeyframes) -> MovedKeyframes | None:
    """None where `then` changes the unit, and `first` tells of others in the one of before."""
    says_unit = then.scale is not None and then.scale is not first.scale
    if says_unit and not first.world_from_cam.keys() <= then.world_from_cam.keys():
        return None
    return MovedKeyframes(
        first.world_from_cam | then.world_from_cam,
        first.point_scale | then.point_scale,
        first.scale if then.scale is None else then.scale,
    )


def _told_again(keyframe: Keyframe) -> ToldAgain:
    return ToldAgain({keyframe.id: keyframe.world_from_cam})
