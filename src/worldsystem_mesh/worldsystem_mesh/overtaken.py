# SPDX-License-Identifier: Apache-2.0
"""Corrections that a full inbox let go of: they are told only once, so they are done none the less.

What an inbox lets go of is its oldest. It is older than what the inbox gives out next, but newer
than what it has given out before, which may still wait for its turn.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TypeVar

from worldsystem_core.handoff import Handoff
from worldsystem_core.reconstruction import MovedKeyframes, NewKeyframe, RemovedKeyframes

T = TypeVar("T")
KeyframeChange = MovedKeyframes | RemovedKeyframes
Told = NewKeyframe | KeyframeChange


@dataclass(frozen=True)
class ToldAgain:
    """Keyframes that were told once more: later sizes of theirs count from there."""

    ids: tuple[int, ...]


class OvertakenCorrections:
    """Keeps them until their place has come; `drop` is for any thread.

    Poses and sizes are of now, not steps, so however many they are, they are kept as a few.
    """

    def __init__(self) -> None:
        self.inbox: Handoff[Told] | None = None
        """What lets go of them."""

        self._lock = threading.Lock()
        self._following: Told | None = None
        self._older, self._newer = _Joined(), _Joined()

    def drop(self, event: Told, *, is_known: bool = False) -> None:
        """The inbox has let go of `event`; of a keyframe only one that `is_known` is of interest,
        for that was told again."""
        with self._lock:
            joined = self._newer  # what followed the ones before was given out meanwhile
            if self._following is None or event is self._following:
                joined, self._following = self._older, oldest_of(self.inbox)
            if is_known or not isinstance(event, NewKeyframe):
                joined.add(event)

    def before(self, event: Told) -> list[KeyframeChange | ToldAgain]:
        """Take those that are older than `event`, whose turn has come."""
        with self._lock:
            return self._older.taken() if event is self._following else []

    def until_now(self) -> list[KeyframeChange | ToldAgain]:
        """Take all, once what was given out last is done."""
        with self._lock:
            self._following = None
            return self._older.taken() + self._newer.taken()


class _Joined:
    """A few events that do the same as all that were added."""

    def __init__(self) -> None:
        self._pieces: list[_Piece] = []

    def add(self, event: Told) -> None:
        """What is told last holds."""
        if not self._pieces or self._pieces[-1].is_over_by(event):
            self._pieces.append(_Piece())
        self._pieces[-1].add(event)

    def taken(self) -> list[KeyframeChange | ToldAgain]:
        """What was added; nothing is left."""
        found = [event for piece in self._pieces for event in piece.events()]
        self._pieces.clear()
        return found


class _Piece:
    """Which keyframes were told again, then where some lie, and then which are gone: one that was
    moved is gone all the same."""

    def __init__(self) -> None:
        self._told: dict[int, None] = {}
        self._moved: MovedKeyframes | None = None
        self._removed: RemovedKeyframes | None = None

    def is_over_by(self, event: Told) -> bool:
        """Whether a keyframe is told again that has a size here already."""
        if self._moved is None or not isinstance(event, NewKeyframe):
            return False
        return event.keyframe.id in self._moved.point_scale

    def add(self, event: Told) -> None:
        if isinstance(event, NewKeyframe):
            self._told[event.keyframe.id] = None
        elif isinstance(event, MovedKeyframes):
            last = self._moved or MovedKeyframes({})
            self._moved = MovedKeyframes(
                last.world_from_cam | event.world_from_cam,
                last.point_scale | event.point_scale,
                last.scale if event.scale is None else event.scale,
            )
        else:
            gone = self._removed or RemovedKeyframes(())
            successors = gone.successors | event.successors
            self._removed = RemovedKeyframes((*gone.ids, *event.ids), successors)

    def events(self) -> list[KeyframeChange | ToldAgain]:
        told = ToldAgain(tuple(self._told)) if self._told else None
        return [event for event in (told, self._moved, self._removed) if event is not None]


def oldest_of(inbox: Handoff[T] | None) -> T | None:
    """What has waited longest, which goes on waiting."""
    seen: list[T] = []

    def look(item: T) -> bool:
        seen.append(item)
        return False

    if inbox is not None:
        inbox.take_first(look)
    return seen[0] if seen else None
