# SPDX-License-Identifier: Apache-2.0
"""What can be done with finished bags: look at them, check them, cut them, join them."""

from __future__ import annotations

import heapq
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from mcap.exceptions import McapError
from mcap.reader import make_reader

from worldsystem_storage.bag_metadata import METADATA_FILE, Topic
from worldsystem_storage.bag_reader import RawMessage, read_messages
from worldsystem_storage.errors import StorageError
from worldsystem_storage.new_bag import write_new_bag
from worldsystem_storage.recover import bag_files, is_whole

_SECOND_NS = 10**9


@dataclass(frozen=True)
class TopicInfo:
    """One topic: its type, how many messages, and their size [bytes]."""

    name: str
    type_name: str
    messages: int
    size_bytes: int


@dataclass(frozen=True)
class BagInfo:
    """What a bag holds; times are those of recording."""

    path: Path
    files: int
    size_bytes: int
    first_ns: int
    last_ns: int
    topics: tuple[TopicInfo, ...]

    @property
    def duration_s(self) -> float:
        return (self.last_ns - self.first_ns) / _SECOND_NS

    @property
    def messages(self) -> int:
        return sum(topic.messages for topic in self.topics)


def info(path: Path) -> BagInfo:
    """Count what the bag at `path` holds; raises `StorageError` for a damaged one."""
    counts: Counter[Topic] = Counter()
    sizes: Counter[Topic] = Counter()
    first_ns, last_ns = 0, 0
    for message in read_messages(path):
        first_ns = first_ns or message.log_time_ns
        last_ns = message.log_time_ns
        counts[message.topic] += 1
        sizes[message.topic] += len(message.cdr)
    files = bag_files(path)
    topics = [TopicInfo(t.name, t.type_name, counts[t], sizes[t]) for t in counts]
    return BagInfo(
        Path(path),
        len(files),
        sum(file.stat().st_size for file in files),
        first_ns,
        last_ns,
        tuple(sorted(topics, key=lambda topic: topic.name)),
    )


def verify(path: Path) -> list[str]:
    """Everything that is wrong with the bag at `path`, in words; empty when it is sound.

    Reads every chunk and its checksum, and compares what is there with each file's own statistics
    and with `metadata.yaml`. Raises `StorageError` only when there is no bag.
    """
    problems: list[str] = []
    total = 0
    for file in bag_files(path):
        if not is_whole(file):
            problems.append(
                f"{file.name}: its end is missing; `worldsystem bag recover` repairs it"
            )
            continue
        counted, promised, failure = _count(file)
        total += counted
        if failure:
            problems.append(f"{file.name}: damaged after {counted} messages ({failure})")
        elif counted != promised:
            problems.append(f"{file.name}: its index promises {promised} messages, not {counted}")
    return problems + _metadata_problems(Path(path), total)


def cut(
    path: Path,
    out: Path,
    *,
    start_s: float = 0.0,
    end_s: float = float("inf"),
    topics: str = "",
) -> int:
    """Write the part between two times after the bag's start to a new bag; messages written.

    Of latched topics (transient local) the last message before `start_s` comes too, at the start.
    `topics` is a regular expression. Raises `StorageError`, also when `out` exists.
    """
    first_ns = next((message.log_time_ns for message in read_messages(path)), 0)
    begin_ns = first_ns + round(start_s * _SECOND_NS)
    end_ns = first_ns + round(end_s * _SECOND_NS) if end_s != float("inf") else 2**63
    wanted = re.compile(topics)
    chosen = (m for m in read_messages(path) if wanted.search(m.topic.name))
    return sum(write_new_bag(out, _between(chosen, begin_ns, end_ns)).values())


def merge(paths: list[Path], out: Path) -> int:
    """Write all messages of several bags, by time, to a new bag; messages written.

    Raises `StorageError` when `out` exists or a topic has two types.
    """
    if not paths:
        raise StorageError("give at least one bag to merge")
    merged = heapq.merge(*map(read_messages, paths), key=lambda message: message.log_time_ns)
    return sum(write_new_bag(out, merged).values())


@dataclass
class _Latched:
    last: dict[str, RawMessage] = field(default_factory=dict)

    def take(self, message: RawMessage) -> None:
        if "transient_local" in message.topic.qos_yaml:
            self.last[message.topic.name] = message


def _between(messages: Iterable[RawMessage], begin_ns: int, end_ns: int) -> Iterator[RawMessage]:
    latched, began = _Latched(), False
    for message in messages:
        if message.log_time_ns < begin_ns:
            latched.take(message)
            continue
        if not began:
            began = True
            for kept in latched.last.values():
                yield RawMessage(kept.topic, kept.cdr, begin_ns, kept.publish_time_ns)
        if message.log_time_ns > end_ns:
            return
        yield message


def _count(file: Path) -> tuple[int, int, str]:
    """Messages that can be read, messages promised, and why reading ended early."""
    counted, promised = 0, 0
    try:
        with file.open("rb") as stream:
            reader = make_reader(stream, validate_crcs=True)
            summary = reader.get_summary()
            promised = summary.statistics.message_count if summary and summary.statistics else -1
            for _ in reader.iter_messages(log_time_order=False):
                counted += 1
    except (McapError, ValueError, KeyError, RuntimeError, EOFError, zlib.error) as error:
        return counted, promised, str(error) or type(error).__name__
    return counted, promised, ""


def _metadata_problems(path: Path, total: int) -> list[str]:
    metadata = path / METADATA_FILE
    if not path.is_dir():
        return []
    if not metadata.is_file():
        return [f"{METADATA_FILE} is missing; `worldsystem bag recover` writes it anew"]
    try:
        promised = yaml.safe_load(metadata.read_text())["rosbag2_bagfile_information"]
        count = int(promised["message_count"])
    except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        return [f"{METADATA_FILE} cannot be read ({error!r})"]
    if count != total:
        return [f"{METADATA_FILE} promises {count} messages, {total} are there"]
    return []
