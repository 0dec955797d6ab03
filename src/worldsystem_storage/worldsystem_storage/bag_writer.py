# SPDX-License-Identifier: Apache-2.0
"""The recorder: messages of any thread into a rosbag2 bag, without ever blocking their sender."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from worldsystem_storage.bag_folder import BagFolder
from worldsystem_storage.bag_metadata import Topic
from worldsystem_storage.config import StorageConfig
from worldsystem_storage.errors import DiskFull, StorageError
from worldsystem_storage.message_queue import MessageQueue, WaitingMessage
from worldsystem_storage.space import MIB

log = logging.getLogger(__name__)

SPACE_CHECK_BYTES = 64 * MIB
REMINDER_S = 10.0
_FLUSH_SHARE = 0.8  # of the promised time, so that a flush that is late itself keeps it
RETRY_S, LONGEST_RETRY_S = 1.0, 60.0


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
    `grown_bytes` is the size of the bag as a look at the disk tells it. `gaps` counts how often
    recording stopped by itself and went on.
    """

    topics: dict[str, TopicCount]
    waiting_bytes: int
    stalled_s: float = 0.0
    stopped: str = ""
    grown_bytes: int = 0
    gaps: int = 0


class BagWriter:
    """Records into `folder`, one thread writing, split into `<folder>_0.mcap`, `_1.mcap`, …

    When messages come faster than the disk takes them the oldest waiting are dropped and counted
    (`disk_slow`). When the free space reaches the reserve the file is finished and what comes after
    is counted as `disk_full`; after a failed write, as `disk_failed`. Once there is room again
    recording goes on in the next file. One that somebody removed meanwhile is counted as
    `file_gone`, and another is begun. Raises `StorageError` when the folder cannot be written or
    already holds a bag, and `DiskFull` when the reserve is reached at the start.
    """

    def __init__(self, folder: Path, config: StorageConfig) -> None:
        self.folder = Path(folder)
        self._config = config
        self._lock = threading.Lock()
        self._topics: dict[str, Topic] = {}
        self._written: Counter[str] = Counter()
        self._unflushed: Counter[str] = Counter()
        self._dropped: Counter[tuple[str, str]] = Counter()
        self._awaited_s = time.monotonic()  # until then the thread may wait for more
        self._stopped = ("", "")
        self._retry_s = RETRY_S
        self._gaps = 0
        self._metadata_stale = False
        self._files = BagFolder(self.folder, config)
        self._queue = MessageQueue(config.queue_messages, config.queue_mib * MIB)
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
        self._queue.put(WaitingMessage(known, cdr, log_time_ns, publish_time_ns))

    def state(self) -> BagState:
        """Counts, sizes and the reason for having stopped, if any."""
        with self._lock:
            topics = {name: self._count(name) for name in self._topics}
            waiting, stopped = self._queue.waiting_bytes, self._stopped[1]
        return BagState(
            topics,
            waiting,
            0.0 if stopped else self._stalled_s(waiting),
            stopped,
            self._files.grown_bytes(),
            self._gaps,
        )

    def _stalled_s(self, waiting_bytes: int) -> float:
        writing_s = time.monotonic() - self._awaited_s if waiting_bytes else 0.0
        return max(0.0, writing_s, self._files.unconfirmed_s())

    def close(self, timeout_s: float = 30.0) -> dict[str, TopicCount]:
        """Write what waits, finish the bag and return each topic's account."""
        self._queue.close()
        self._thread.join(timeout_s)
        self._files.close()
        if self._thread.is_alive():
            raise StorageError(f"{self.folder}: the disk did not take the rest in {timeout_s} s")
        with self._lock:
            return {name: self._count(name) for name in self._topics}

    def _count(self, topic: str) -> TopicCount:
        dropped = Counter({why: n for (name, why), n in self._dropped.items() if name == topic})
        dropped["disk_slow"] += self._queue.overflown[topic]
        dropped["closed"] += self._queue.refused[topic]
        return TopicCount(self._queue.offered[topic], self._written[topic], dict(+dropped))

    def _drop(self, messages: list[WaitingMessage], reason: str) -> None:
        with self._lock:
            self._dropped.update((message.topic.name, reason) for message in messages)
        self._queue.settle(sum(len(message.cdr) for message in messages))

    def _run(self) -> None:
        """Record; after each stop wait for room, and go on."""
        while True:
            self._record_until_stopped()
            if not self._stopped[0] or not self._wait_for_room():
                break
        self._refuse_what_is_left()
        self._mend()

    def _wait_for_room(self) -> bool:
        """After a stop, until recording goes on in a next file; False once closed instead.

        A broken file that cannot be mended yet does not keep it from going on. Once it has gone on,
        what `write` took is recorded, though `close` may have come since.
        """
        while True:
            if self._refuse_until_room():
                return False
            self._mend()
            if self._go_on():
                return True

    def _record_until_stopped(self) -> None:
        """Until closed, or stopped; the file has its end or is given up."""
        try:
            self._record()
        except DiskFull as error:
            self._stop("disk_full", str(error))
        except Exception as error:  # the edge of the thread: whatever it is stops the recording
            self._fail(f"cannot write to {self.folder}: {error!r}")
            return
        self._finish()

    def _record(self) -> None:
        flush_at = time.monotonic() + _FLUSH_SHARE * self._config.flush_s
        checked_bytes = self._files.size_bytes
        self._files.reserve.check()
        while True:
            self._awaited_s = max(flush_at, time.monotonic())
            batch = self._queue.take(max(0.0, flush_at - time.monotonic()))
            self._awaited_s = time.monotonic()
            if batch:
                self._write(batch)
            elif self._queue.closed:
                return
            size = self._files.size_bytes
            if time.monotonic() >= flush_at or size - checked_bytes > SPACE_CHECK_BYTES:
                self._flush()
                flush_at = time.monotonic() + _FLUSH_SHARE * self._config.flush_s
                checked_bytes = size
            self._split_when_due()

    def _write(self, batch: list[WaitingMessage]) -> None:
        """Counters are this thread's own; a look at them from another may be a message behind."""
        done = 0
        try:
            for message in batch:
                self._files.file.write(*message)
                done += 1
                self._written[message.topic.name] += 1
                self._unflushed[message.topic.name] += 1
                self._split_when_due()
        except BaseException as error:
            full = isinstance(error, DiskFull)  # as the reserve is looked at before a split
            self._drop(batch[done:], "disk_full" if full else "disk_failed")
            raise
        finally:
            self._queue.settle(sum(len(message.cdr) for message in batch[:done]))

    def _split_when_due(self) -> None:
        if self._files.file_is_full():
            self._flush()
            self._files.split(self._topics)

    def _flush(self) -> None:
        try:
            self._files.flush()
            self._unflushed.clear()
            self._retry_s = RETRY_S
            if self._metadata_stale:
                self._save_metadata()
        except OSError:
            if not self._files.file_is_gone():
                raise
        if self._files.file_is_gone():
            self._begin_another()
        self._files.reserve.check()

    def _begin_another(self) -> None:
        log.error(
            "%s was moved or removed while it was being recorded; going on in another file",
            self._files.file.path,
        )
        self._lose(self._files.forget_file(self._topics), "file_gone")
        self._files.go_on(self._topics)
        self._gaps += 1

    def _finish(self) -> None:
        try:
            self._files.finish(self._topics)
        except OSError as error:
            self._fail(f"cannot finish {self._files.file.path}: {error!r}")

    def _refuse_until_room(self) -> bool:
        """After a stop: count what still comes and keep saying why; True once closed."""
        remind_at = 0.0
        retry_at = time.monotonic() + self._retry_s
        while time.monotonic() < retry_at or not self._files.reserve.has_room_again():
            if time.monotonic() >= retry_at:
                retry_at = time.monotonic() + self._retry_s
            batch = self._queue.take(0.2)
            if batch:
                self._drop(batch, self._stopped[0])
                if time.monotonic() >= remind_at:
                    log.error("%s", self._stopped[1])
                    remind_at = time.monotonic() + REMINDER_S
            elif self._queue.closed:
                return True
        return False

    def _go_on(self) -> bool:
        """Try the next file; a disk that fails again and again is tried less and less often."""
        self._retry_s = min(2 * self._retry_s, LONGEST_RETRY_S)
        try:
            self._files.go_on(self._topics)
        except (OSError, StorageError) as error:
            self._stop("disk_failed", f"cannot go on recording to {self.folder}: {error!r}")
            return False
        with self._lock:
            self._gaps += 1
            self._stopped = ("", "")
        log.warning("recording to %s goes on, after a gap", self.folder)
        return True

    def _refuse_what_is_left(self) -> None:
        while True:
            batch = self._queue.take(0.0)
            if not batch:
                return
            self._drop(batch, self._stopped[0] or "closed")

    def _stop(self, reason: str, text: str) -> None:
        with self._lock:
            self._stopped = (reason, text)
        log.error("%s", text)

    def _fail(self, text: str) -> None:
        """What no flush has carried to the system counts as lost, though a repair may find it."""
        self._stop("disk_failed", f"{text}; `worldsystem bag recover` mends the bag")
        with self._lock:
            unflushed = dict(self._unflushed)
            self._unflushed.clear()
        self._lose(unflushed, "disk_failed")
        self._files.give_up()

    def _mend(self) -> None:
        """Mend the broken files that can be; the others wait for the next stop or the end."""
        for broken in self._files.broken:
            try:
                self._files.mend(broken, self._topics)
            except (OSError, StorageError) as error:
                log.warning("%s keeps no index for now: %s", broken.path, error)

    def _lose(self, counts: dict[str, int], reason: str) -> None:
        with self._lock:
            for topic, count in counts.items():
                self._written[topic] -= count
                self._dropped[topic, reason] += count

    def _save_metadata(self) -> None:
        with self._lock:
            self._metadata_stale = False
        self._files.save_metadata(dict(self._topics))
