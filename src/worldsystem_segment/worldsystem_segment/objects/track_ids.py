# SPDX-License-Identifier: Apache-2.0
"""The ids of things: each is given once while that is possible, and again when none is left."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Container, Iterable
from dataclasses import dataclass

log = logging.getLogger(__name__)

MAX_ID = 65535  # label pictures hold 16 bits
REST_FEEDS = 2000  # keyframes that the id of a thing that is gone rests at least; 15 min at 2 Hz


@dataclass(frozen=True)
class IdChanges:
    """What is known by an id goes along with its thing.

    Ids that were `given_again` are those of new things; of each pair (kept, gone) that `joined`
    both were one thing's.
    """

    given_again: tuple[int, ...] = ()
    joined: tuple[tuple[int, int], ...] = ()


class TrackIds:
    """Gives ids from 1 on; `give_back` tells which are free again."""

    def __init__(self) -> None:
        self.next_id = 1
        self._never_known: deque[int] = deque(maxlen=MAX_ID)
        self._resting: deque[tuple[int, int]] = deque(maxlen=MAX_ID)  # since which feed
        self._told_of_last_id = False
        self.given_again: list[int] = []  # ids of things that are gone, until somebody takes note

    def take(self, feed: int) -> int:
        """An id nobody holds, or 0 when there is none.

        When all were given once, those come again that no confirmed thing had, and then, oldest
        first, those whose thing has been gone for `REST_FEEDS` feeds.
        """
        if self.next_id <= MAX_ID:
            self.next_id += 1
            return self.next_id - 1
        if self._never_known:
            return self._never_known.popleft()
        if self._resting and feed - self._resting[0][1] >= REST_FEEDS:
            again, _ = self._resting.popleft()
            self.given_again.append(again)
            return again
        if not self._told_of_last_id:
            self._told_of_last_id = True
            log.warning(
                "all %d ids of objects are given, so no new object is taken until ids of things "
                "that are gone have rested; begin a new map (another folder as `segmenter.map`, "
                "or none) if that takes too long",
                MAX_ID,
            )
        return 0

    def give_back(self, track_id: int, feed: int, *, was_confirmed: bool) -> None:
        """The thing is gone; others may know it by its id where it `was_confirmed`."""
        if was_confirmed:
            self._resting.append((track_id, feed))
        else:
            self._never_known.append(track_id)

    def skip(self, count: int, feed: int) -> None:
        """Let the next `count` ids rest: a process before may have given them unseen."""
        first, self.next_id = self.next_id, min(MAX_ID + 1, self.next_id + count)
        self._resting.extend((number, feed) for number in range(first, self.next_id))

    def unused(self, tentative: Iterable[int]) -> list[int]:
        """Ids that were given and may be given again, in that order, with those of `tentative`
        things."""
        return [*self._never_known, *tentative, *(number for number, _ in self._resting)]

    def restore(self, next_id: int, unused: Iterable[int], held: Container[int]) -> None:
        """Go on with those of a saved map; what things `held` there is not free."""
        self.next_id = max(self.next_id, next_id)
        self._never_known = deque((number for number in unused if number not in held), MAX_ID)
        self._resting.clear()
        self.given_again.clear()
