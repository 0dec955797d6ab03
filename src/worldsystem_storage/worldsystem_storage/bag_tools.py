# SPDX-License-Identifier: Apache-2.0
"""What can be done with bags, whole or broken: look at them, cut them, join them."""

from __future__ import annotations

import heapq
import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from worldsystem_storage.bag_check import file_problems
from worldsystem_storage.bag_metadata import Topic
from worldsystem_storage.bag_reader import BagReader
from worldsystem_storage.errors import StorageError
from worldsystem_storage.mcap_contents import Contents, RawMessage, bag_files, examine
from worldsystem_storage.new_bag import write_new_bag

_SECOND_NS = 10**9
_TRANSFORMS = "tf2_msgs/msg/TFMessage"


@dataclass(frozen=True)
class TopicInfo:
    """One topic: its type, how many messages, and their size [bytes]."""

    name: str
    type_name: str
    messages: int
    size_bytes: int


@dataclass(frozen=True)
class BagInfo:
    """What a bag holds; times are those of recording. `problems` names what cannot be read."""

    path: Path
    files: int
    size_bytes: int
    first_ns: int
    last_ns: int
    topics: tuple[TopicInfo, ...]
    problems: tuple[str, ...] = ()

    @property
    def duration_s(self) -> float:
        return (self.last_ns - self.first_ns) / _SECOND_NS

    @property
    def messages(self) -> int:
        return sum(topic.messages for topic in self.topics)


@dataclass(frozen=True)
class Written:
    """How many messages a new bag got; `problems` names what could not be read for it."""

    messages: int
    problems: tuple[str, ...] = ()


def info(path: Path) -> BagInfo:
    """Count what the bag at `path` holds, up to where it breaks off and past what is damaged.

    Raises `StorageError` when there is none.
    """
    counts: Counter[tuple[str, str]] = Counter()
    sizes: Counter[tuple[str, str]] = Counter()
    problems: list[str] = []
    parts: list[Contents] = []
    files = bag_files(path)
    for file in files:
        with file.open("rb") as stream:
            part = examine(stream)
            problems += [f"{file.name}: {each}" for each in file_problems(part, stream)]
        parts.append(part)
        for channel, topic in part.topics.items():
            counts[topic.name, topic.type_name] += part.counts[channel]
            sizes[topic.name, topic.type_name] += part.sizes[channel]
    filled = [part for part in parts if part.messages]
    topics = [TopicInfo(*topic, n, sizes[topic]) for topic, n in counts.items() if n]
    return BagInfo(
        Path(path),
        len(files),
        sum(file.stat().st_size for file in files),
        min((part.first_ns for part in filled), default=0),
        max((part.last_ns for part in filled), default=0),
        tuple(sorted(topics, key=lambda topic: topic.name)),
        tuple(problems),
    )


def cut(
    path: Path,
    out: Path,
    *,
    start_s: float = 0.0,
    end_s: float = float("inf"),
    topics: str = "",
) -> Written:
    """Write the part between two times after the bag's start to a new bag.

    Of latched topics (transient local) the last message before `start_s` comes too, at the start.
    `topics` is a regular expression. Raises `StorageError`, also when `out` exists.
    """
    reader = BagReader(path)
    begin_ns = reader.first_ns + round(start_s * _SECOND_NS)
    end_ns = reader.first_ns + round(end_s * _SECOND_NS) if end_s != float("inf") else 2**63
    try:
        wanted = re.compile(topics)
    except re.error as error:
        raise StorageError(f"topics {topics!r} is no regular expression: {error}") from error
    chosen: Iterator[RawMessage] = (m for m in reader.messages() if wanted.search(m.topic.name))
    if reader.is_ordered:
        chosen = itertools.takewhile(lambda message: message.log_time_ns <= end_ns, chosen)
    written = write_new_bag(out, _between(chosen, begin_ns, end_ns))
    return Written(sum(written.values()), tuple(reader.problems))


def merge(paths: list[Path], out: Path) -> Written:
    """Write all messages of several bags, by time, to a new bag.

    Raises `StorageError` when `out` exists or a topic has two types or definitions.
    """
    if not paths:
        raise StorageError("give at least one bag to merge")
    readers = [BagReader(path) for path in paths]
    parts = [reader.messages() for reader in readers]
    merged = heapq.merge(*parts, key=lambda message: message.log_time_ns)
    written = write_new_bag(out, merged)
    return Written(sum(written.values()), tuple(p for r in readers for p in r.problems))


@dataclass
class _Latched:
    """The last message of each latched topic; of static transforms, of which each publisher tells
    its own, every different one, in the order in which they came last."""

    last: dict[tuple[str, bytes], RawMessage] = field(default_factory=dict)

    def take(self, message: RawMessage) -> None:
        topic = message.topic
        is_static = topic.type_name == _TRANSFORMS and topic.name.endswith("tf_static")
        if is_static or _is_latched(topic):
            key = (topic.name, message.cdr if is_static else b"")
            self.last.pop(key, None)
            self.last[key] = message

    def at(self, begin_ns: int) -> Iterator[RawMessage]:
        """As if they were told then."""
        for kept in self.last.values():
            yield RawMessage(kept.topic, kept.cdr, begin_ns, kept.publish_time_ns)


def _is_latched(topic: Topic) -> bool:
    """By its name, or by the number that older recorders write."""
    return any(offer.get("durability") in ("transient_local", 1) for offer in topic.qos_profiles())


def _between(messages: Iterable[RawMessage], begin_ns: int, end_ns: int) -> Iterator[RawMessage]:
    latched, began = _Latched(), False
    for message in messages:
        if message.log_time_ns < begin_ns:
            latched.take(message)
            continue
        if not began:
            began = True
            yield from latched.at(begin_ns)
        if message.log_time_ns <= end_ns:
            yield message
    if not began:
        yield from latched.at(begin_ns)
