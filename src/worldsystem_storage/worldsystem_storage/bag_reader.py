# SPDX-License-Identifier: Apache-2.0
"""The messages of a whole bag as bytes, in the order of their times, without decoding them."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from pathlib import Path

from mcap.reader import make_reader

from worldsystem_storage.bag_check import file_problems
from worldsystem_storage.bag_metadata import Topic
from worldsystem_storage.mcap_contents import (
    Contents,
    RawMessage,
    bag_files,
    examine,
    messages_in,
)


class BagReader:
    """Reads the bag at `path` as often as asked; raises `StorageError` when there is none.

    `problems` names what cannot be read, by file: a broken file gives everything else it holds.
    """

    def __init__(self, path: Path) -> None:
        self._files: list[tuple[Path, Contents, bool]] = []
        self.problems: list[str] = []
        for file in bag_files(path):
            with file.open("rb") as stream:
                contents = examine(stream)
                problems = file_problems(contents, stream)
            self.problems += [f"{file.name}: {problem}" for problem in problems]
            self._files.append((file, contents, not problems))

    @property
    def first_ns(self) -> int:
        """When the first message was recorded; 0 for a bag without any."""
        times = [contents.first_ns for _, contents, _ in self._files if contents.messages]
        return min(times, default=0)

    def messages(self) -> Iterator[RawMessage]:
        """Every message, oldest first; those of a broken file in the order of that file."""
        parts = [_messages_of(*file) for file in self._files]
        yield from heapq.merge(*parts, key=lambda message: message.log_time_ns)


def _messages_of(path: Path, contents: Contents, sound: bool) -> Iterator[RawMessage]:
    topics: dict[int, Topic] = contents.topics
    with path.open("rb") as stream:
        if not sound:
            yield from messages_in(stream, topics)
            return
        for _, channel, message in make_reader(stream).iter_messages():
            yield RawMessage(
                topics[channel.id], message.data, message.log_time, message.publish_time
            )
