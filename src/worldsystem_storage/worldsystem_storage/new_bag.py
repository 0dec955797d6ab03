# SPDX-License-Identifier: Apache-2.0
"""Messages that are all there already, written to a new bag."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from worldsystem_storage.bag_file import BagFile
from worldsystem_storage.bag_metadata import Topic, write_metadata
from worldsystem_storage.errors import StorageError
from worldsystem_storage.mcap_contents import RawMessage


class NewBag:
    """A bag in the new folder `out`, finished by `close`; left without its end after an error.

    Raises `StorageError` when `out` exists.
    """

    def __init__(self, out: Path) -> None:
        self.folder = Path(out)
        if self.folder.exists():
            raise StorageError(f"{self.folder} exists already; choose another folder")
        self.folder.mkdir(parents=True)
        self._file = BagFile(self.folder / f"{self.folder.resolve().name}_0.mcap")
        self._topics: dict[str, Topic] = {}

    def add(self, message: RawMessage) -> None:
        """Append a message; raises `StorageError` when its topic has had another type."""
        known = self._topics.setdefault(message.topic.name, message.topic)
        if known.type_name != message.topic.type_name:
            raise StorageError(
                f"topic {known.name} is {known.type_name} in one bag and "
                f"{message.topic.type_name} in another; cut one of them with --topics first"
            )
        self._file.write(known, message.cdr, message.log_time_ns, message.publish_time_ns)

    def abandon(self) -> None:
        """Let go of a bag that is not to be finished."""
        self._file.abandon()

    def close(self) -> dict[str, int]:
        """Finish the bag; messages by topic."""
        topics = list(self._topics.values())
        self._file.close(topics)
        write_metadata(self.folder, topics, [self._file.summary])
        return dict(self._file.summary.counts_by_name)


def write_new_bag(out: Path, messages: Iterable[RawMessage]) -> dict[str, int]:
    """Write `messages`, by time, to the new folder `out`; messages by topic.

    Raises `StorageError` when `out` exists or a topic has two types.
    """
    bag = NewBag(out)
    try:
        for message in messages:
            bag.add(message)
    except BaseException:
        bag.abandon()
        raise
    return bag.close()
