# SPDX-License-Identifier: Apache-2.0
"""What latched topics told last, for recordings that begin later."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from worldsystem_core.latched_parts import LatchedParts, only_part


class LatchedMessages:
    """The newest message of each latched topic; safe from any thread.

    Of a topic whose publishers each tell a part of it, `part_of` a message names which: the newest
    of each part is kept.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._topics: dict[str, LatchedParts] = {}

    def add(self, name: str, part_of: Callable[[bytes], str] = only_part) -> None:
        """Keep what the topic `name` tells from now on."""
        with self._lock:
            self._topics.setdefault(name, LatchedParts(part_of))

    def pass_on(self, name: str, message: bytes, write: Callable[[bytes], None]) -> None:
        """Call `write`, and keep `message` if its topic is latched."""
        topic = self._topics.get(name)
        if topic is None:
            write(message)
            return
        part = topic.part_of(message)
        with self._lock:
            topic.keep(part, message)
            write(message)

    @contextmanager
    def held(self) -> Iterator[list[tuple[str, bytes]]]:
        """All topics and messages that are kept; latched topics pass nothing on meanwhile."""
        with self._lock:
            yield [(name, each) for name, t in self._topics.items() for each in t.messages]
