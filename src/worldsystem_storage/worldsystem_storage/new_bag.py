# SPDX-License-Identifier: Apache-2.0
"""Messages that are all there already, written to a new bag."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from worldsystem_storage.bag_file import BagFile
from worldsystem_storage.bag_metadata import Topic, write_metadata
from worldsystem_storage.definition_hash import hash_of_definition
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
        self._topics: dict[Topic, None] = {}
        self._first: dict[str, Topic] = {}

    def add(self, message: RawMessage) -> None:
        """Append a message under its own topic, which another QoS gives a channel of its own.

        Raises `StorageError` when a topic of that name has had another type, or another definition
        of it: who plays a bag publishes a name with one type only, and decodes by one definition.
        """
        topic = message.topic
        if topic not in self._topics:
            _check_same_type(self._first.setdefault(topic.name, topic), topic)
            self._topics[topic] = None
        self._file.write(topic, message.cdr, message.log_time_ns, message.publish_time_ns)

    def abandon(self) -> None:
        """Let go of a bag that is not to be finished."""
        self._file.abandon()

    def close(self) -> dict[str, int]:
        """Finish the bag; messages by topic."""
        topics = list(self._topics)
        self._file.close(topics)
        write_metadata(self.folder, topics, [self._file.summary])
        return dict(self._file.summary.counts_by_name)


def write_new_bag(out: Path, messages: Iterable[RawMessage]) -> dict[str, int]:
    """Write `messages`, by time, to the new folder `out`; messages by topic.

    Raises `StorageError` when `out` exists or a topic has two types or definitions.
    """
    bag = NewBag(out)
    try:
        for message in messages:
            bag.add(message)
    except BaseException:
        bag.abandon()
        raise
    return bag.close()


def _check_same_type(known: Topic, other: Topic) -> None:
    advice = "cut one of them with --topics first"
    if known.type_name != other.type_name:
        raise StorageError(
            f"topic {known.name} is {known.type_name} in one bag and {other.type_name} in another; "
            f"{advice}"
        )
    if known.schema_text == other.schema_text:
        return
    hashes = {hash_of_definition(known), hash_of_definition(other)} - {""}
    if len(hashes) > 1:
        raise StorageError(
            f"topic {known.name} is {known.type_name} in both bags, but by two definitions of it, "
            f"of which a bag can have one; {advice}"
        )
