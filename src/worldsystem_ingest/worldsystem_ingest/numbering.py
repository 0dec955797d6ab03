# SPDX-License-Identifier: Apache-2.0
"""Ids of pictures go on where another ingest of the same process ended.

A source counts from 0. Whoever is handed its pictures by reference relies on ids that grow, also
where ingest is loaded anew beside it.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TypeVar
from weakref import WeakKeyDictionary

from worldsystem_core.frames import EncodedFrame, Frame

P = TypeVar("P", Frame, EncodedFrame)


class Numbering:
    """The ids of what is published on one topic; each source's follow those of the one before.

    Safe from any thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._first_id = self._next_id = 0

    def begin(self) -> None:
        """Another source begins to count from 0."""
        with self._lock:
            self._first_id = self._next_id

    def numbered(self, picture: P) -> P:
        """`picture` with the id that it is published with."""
        with self._lock:
            moved = picture.id + self._first_id
            self._next_id = max(self._next_id, moved + 1)
        return picture if moved == picture.id else replace(picture, id=moved)


_of_process: WeakKeyDictionary[object, dict[str, Numbering]] = WeakKeyDictionary()


def begin_numbering(context: object, topic_name: str) -> Numbering:
    """The one of a topic in this process, as a further source begins to publish there."""
    numbering = _of_process.setdefault(context, {}).setdefault(topic_name, Numbering())
    numbering.begin()
    return numbering
