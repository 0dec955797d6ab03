# SPDX-License-Identifier: Apache-2.0
"""The recorder: messages of any thread into a rosbag2 bag, without ever blocking their sender."""

from __future__ import annotations

import logging
import os
import shutil
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from worldsystem_core.handoff import Handoff
from worldsystem_storage.bag_file import BagFile
from worldsystem_storage.bag_metadata import (
    METADATA_FILE,
    BagFileSummary,
    Topic,
    write_metadata,
)
from worldsystem_storage.config import StorageConfig
from worldsystem_storage.disk_sync import DiskSync
from worldsystem_storage.errors import StorageError

log = logging.getLogger(__name__)

MIB = 1 << 20
SPACE_CHECK_BYTES = 64 * MIB
REMINDER_S = 10.0


@dataclass(frozen=True)
class _Message:
    topic: Topic
    cdr: bytes
    log_time_ns: int
    publish_time_ns: int


@dataclass(frozen=True)
class TopicCount:
    """One topic's account: `offered == written + sum(dropped) + waiting`."""

    offered: int
    written: int
    dropped: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class BagState:
    """The recording at one moment; `stopped` is why it stopped by itself, or empty.

    `stalled_s` is how long the disk has neither taken what waits nor confirmed what was written.
    """

    topics: dict[str, TopicCount]
    waiting_bytes: int
    file_bytes: int
    free_bytes: int
    stalled_s: float = 0.0
    stopped: str = ""


class BagWriter:
    """Records into `folder`, one thread writing, split into `<folder>_0.mcap`, `_1.mcap`, …

    When messages come faster than the disk takes them the oldest waiting are dropped and counted
    (`disk_slow`). When the free space reaches the reserve the bag is finished and what comes after
    is counted as `disk_full`; after a failed write, as `disk_failed`. Raises `StorageError` when
    the folder cannot be written or already holds a bag.
    """

    def __init__(self, folder: Path, config: StorageConfig) -> None:
        self.folder = Path(folder)
        self._config = config
        self._lock = threading.Lock()
        self._topics: dict[str, Topic] = {}
        self._offered: Counter[str] = Counter()
        self._written: Counter[str] = Counter()
        self._unflushed: Counter[str] = Counter()
        self._dropped: Counter[tuple[str, str]] = Counter()
        self._waiting_bytes = 0
        self._progress_s = time.monotonic()
        self._stopped = ("", "")
        self._files: list[BagFileSummary] = []
        self._finished_bytes = 0
        self._metadata_stale = False
        self._file = self._open_first()
        self._sync = DiskSync() if config.sync else None
        self._split_at = self._next_split()
        self._queue: Handoff[_Message] = Handoff(config.queue_messages, self._on_overflow)
        self._thread = threading.Thread(target=self._run, name="bag_writer", daemon=True)
        self._thread.start()

    def add_topic(
        self, topic: str, type_name: str, schema_text: str, type_hash: str, qos_yaml: str = ""
    ) -> None:
        """Announce `topic` of type `pkg/msg/Type`; saying the same twice is allowed."""
        added = Topic(topic, type_name, schema_text, type_hash, qos_yaml)
        with self._lock:
            known = self._topics.setdefault(topic, added)
            self._metadata_stale = True
        if known != added:
            raise StorageError(f"topic {topic} is already recorded as {known.type_name}")

    def write(self, topic: str, cdr: bytes, log_time_ns: int, publish_time_ns: int) -> None:
        """Hand over one serialised message; never blocks, safe from any thread.

        Raises `StorageError` when `topic` was not announced with `add_topic`.
        """
        known = self._topics.get(topic)
        if known is None:
            raise StorageError(f"topic {topic} is not known to the recorder; call add_topic first")
        with self._lock:
            self._offered[topic] += 1
        self._make_room(len(cdr))
        with self._lock:
            self._waiting_bytes += len(cdr)
        self._queue.put(_Message(known, cdr, log_time_ns, publish_time_ns))

    def state(self) -> BagState:
        """Counts, sizes and the reason for having stopped, if any."""
        with self._lock:
            topics = {name: self._count(name) for name in self._topics}
            waiting, stopped = self._waiting_bytes, self._stopped[1]
        return BagState(
            topics,
            waiting,
            self._size_bytes(),
            _free_bytes(self.folder),
            0.0 if stopped else self._stalled_s(waiting),
            stopped,
        )

    def _stalled_s(self, waiting_bytes: int) -> float:
        writing_s = time.monotonic() - self._progress_s if waiting_bytes else 0.0
        return max(writing_s, self._sync.behind_s() if self._sync else 0.0)

    def close(self, timeout_s: float = 30.0) -> dict[str, TopicCount]:
        """Write what waits, finish the bag and return each topic's account."""
        self._queue.close()
        self._thread.join(timeout_s)
        if self._sync:
            self._sync.close()
        if self._thread.is_alive():
            raise StorageError(f"{self.folder}: the disk did not take the rest in {timeout_s} s")
        with self._lock:
            return {name: self._count(name) for name in self._topics}

    def _count(self, topic: str) -> TopicCount:
        dropped = {why: n for (name, why), n in self._dropped.items() if name == topic}
        return TopicCount(self._offered[topic], self._written[topic], dropped)

    def _make_room(self, size_bytes: int) -> None:
        limit = self._config.queue_mib * MIB
        while self._waiting_bytes + size_bytes > limit:
            oldest = self._queue.get(0.0)
            if oldest is None:
                return
            self._on_overflow(oldest)

    def _on_overflow(self, message: _Message) -> None:
        self._drop(message, "closed" if self._queue.closed else "disk_slow")

    def _drop(self, message: _Message, reason: str) -> None:
        with self._lock:
            self._waiting_bytes -= len(message.cdr)
            self._dropped[message.topic.name, reason] += 1

    def _run(self) -> None:
        try:
            self._record()
        except _OutOfSpace as error:
            self._stop("disk_full", str(error))
            self._finish()
        except Exception as error:  # the edge of the thread: whatever it is stops the recording
            self._fail(f"cannot write to {self.folder}: {error!r}")
        else:
            self._finish()
        self._refuse()

    def _record(self) -> None:
        flush_at = time.monotonic() + self._config.flush_s
        checked_bytes = 0
        self._check_space()
        while True:
            message = self._queue.get(max(0.0, flush_at - time.monotonic()))
            self._progress_s = time.monotonic()
            if message is not None:
                self._write(message)
            elif self._queue.closed:
                return
            size = self._size_bytes()
            if time.monotonic() >= flush_at or size - checked_bytes > SPACE_CHECK_BYTES:
                self._flush()
                flush_at = time.monotonic() + self._config.flush_s
                checked_bytes = size
            if self._file_is_full():
                self._split()

    def _write(self, message: _Message) -> None:
        try:
            self._file.write(
                message.topic, message.cdr, message.log_time_ns, message.publish_time_ns
            )
        except BaseException:
            self._drop(message, "disk_failed")
            raise
        with self._lock:
            self._waiting_bytes -= len(message.cdr)
            self._written[message.topic.name] += 1
            self._unflushed[message.topic.name] += 1

    def _flush(self) -> None:
        self._file.flush()
        if self._sync:
            self._sync.request(self._file.fileno())
        with self._lock:
            self._unflushed.clear()
        self._check_space()
        if self._metadata_stale:
            self._save_metadata()

    def _check_space(self) -> None:
        reserve = self._config.reserve_mib * MIB
        free = _free_bytes(self.folder)
        if free < reserve:
            raise _OutOfSpace(
                f"recording to {self.folder} stopped: {free // MIB} MiB free, "
                f"{self._config.reserve_mib} MiB are kept (reserve_mib); make room and start again"
            )

    def _file_is_full(self) -> bool:
        old = time.monotonic() >= self._split_at and bool(self._file.summary.counts)
        return old or self._file.size_bytes >= self._config.split_mib * MIB

    def _split(self) -> None:
        self._flush()
        self._file.close(list(self._topics.values()))
        self._finished_bytes += self._file.path.stat().st_size
        self._file = self._open_file()
        self._split_at = self._next_split()
        self._save_metadata()

    def _next_split(self) -> float:
        return time.monotonic() + self._config.split_s if self._config.split_s else float("inf")

    def _finish(self) -> None:
        try:
            self._file.close(list(self._topics.values()))
            self._save_metadata()
        except OSError as error:
            self._fail(f"cannot finish {self._file.path}: {error!r}")

    def _refuse(self) -> None:
        """After a stop: count what still comes, and keep saying why, until closed."""
        remind_at = 0.0
        while True:
            message = self._queue.get(0.2)
            if message is not None:
                self._drop(message, self._stopped[0] or "closed")
                if time.monotonic() >= remind_at and self._stopped[1]:
                    log.error("%s", self._stopped[1])
                    remind_at = time.monotonic() + REMINDER_S
            elif self._queue.closed:
                return

    def _stop(self, reason: str, text: str) -> None:
        with self._lock:
            self._stopped = (reason, text)
        log.error("%s", text)

    def _fail(self, text: str) -> None:
        """What no flush has carried to the system counts as lost, though `recover` may find it."""
        self._stop("disk_failed", f"{text}; make room, then repair the bag with recover()")
        with self._lock:
            for topic, count in self._unflushed.items():
                self._written[topic] -= count
                self._dropped[topic, "disk_failed"] += count
        self._file.abandon()

    def _open_first(self) -> BagFile:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if (self.folder / METADATA_FILE).exists() or any(self.folder.glob("*.mcap")):
                raise StorageError(f"{self.folder} already holds a bag; choose another folder")
            file = self._open_file()
            self._save_metadata()
        except OSError as error:
            raise StorageError(
                f"cannot record into {self.folder}: {os.strerror(error.errno or 0)}; "
                "choose a folder that can be written (`folder`)"
            ) from error
        return file

    def _open_file(self) -> BagFile:
        path = self.folder / f"{self.folder.resolve().name}_{len(self._files)}.mcap"
        file = BagFile(path, self._config.compression, self._config.chunk_kib * 1024)
        self._files.append(file.summary)
        return file

    def _save_metadata(self) -> None:
        with self._lock:
            self._metadata_stale = False
            topics = list(self._topics.values())
        write_metadata(self.folder, topics, self._files)

    def _size_bytes(self) -> int:
        return self._finished_bytes + self._file.size_bytes


class _OutOfSpace(Exception):
    """The reserve is reached."""


def _free_bytes(folder: Path) -> int:
    return shutil.disk_usage(folder).free
