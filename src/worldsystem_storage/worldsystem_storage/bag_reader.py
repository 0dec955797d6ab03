# SPDX-License-Identifier: Apache-2.0
"""The messages of a whole bag as bytes, in the order of their times, without decoding them."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mcap.exceptions import McapError
from mcap.reader import make_reader
from mcap.records import Schema

from worldsystem_storage.bag_metadata import Topic
from worldsystem_storage.errors import StorageError
from worldsystem_storage.recover import bag_files, is_whole


@dataclass(frozen=True)
class RawMessage:
    """One message: its topic and type, its CDR bytes, and when it was recorded and published."""

    topic: Topic
    cdr: bytes
    log_time_ns: int
    publish_time_ns: int


def read_messages(path: Path) -> Iterator[RawMessage]:
    """Every message of the bag at `path`, oldest first.

    Raises `StorageError` for a file without its end, which `worldsystem bag recover` repairs.
    """
    files = bag_files(path)
    for file in files:
        if not is_whole(file):
            raise StorageError(
                f"{file} was cut off or is no MCAP; run `worldsystem bag recover {path}` first"
            )
    yield from heapq.merge(*map(_messages_of, files), key=lambda message: message.log_time_ns)


def _messages_of(path: Path) -> Iterator[RawMessage]:
    topics: dict[tuple[str, str], Topic] = {}
    try:
        with path.open("rb") as stream:
            for schema, channel, message in make_reader(stream).iter_messages():
                topic = topics.get((channel.topic, channel.metadata.get("topic_type_hash", "")))
                if topic is None:
                    topic = _topic_of(channel.topic, schema, dict(channel.metadata))
                    topics[channel.topic, topic.type_hash] = topic
                yield RawMessage(topic, message.data, message.log_time, message.publish_time)
    except (McapError, ValueError, RuntimeError, EOFError) as error:
        raise StorageError(
            f"{path} is damaged ({error}); `worldsystem bag recover` keeps what can be read"
        ) from error


def _topic_of(name: str, schema: Schema | None, metadata: dict[str, str]) -> Topic:
    return Topic(
        name,
        schema.name if schema else "",
        schema.data.decode("utf-8", "replace") if schema else "",
        metadata.get("topic_type_hash", ""),
        metadata.get("offered_qos_profiles", ""),
    )
