# SPDX-License-Identifier: Apache-2.0
"""One `.mcap` file of a bag, as rosbag2 lays it out."""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import yaml
from mcap.records import Attachment, Metadata

from worldsystem_storage.bag_metadata import BagFileSummary, Topic, information
from worldsystem_storage.errors import StorageError
from worldsystem_storage.mcap_stream import McapStream

log = logging.getLogger(__name__)

_NO_SCHEMA = 0
_LOCK_TRIES, _LOCK_PAUSE_S = 5, 0.01
LIBRARY = "worldsystem_storage"
RECORDER_NOTE = "worldsystem_recorder"
_ROSBAG2_NOTE = "rosbag2"


def lock_for_writing(stream: BinaryIO) -> None:
    """Mark the file as being recorded, until it is closed or its process ends, however it ends.

    Raises `StorageError` when another recorder holds it. File systems without locks are let be.
    """
    for _ in range(_LOCK_TRIES):  # somebody may be looking whether it is held
        if _is_locked(stream, fcntl.LOCK_EX):
            return
        time.sleep(_LOCK_PAUSE_S)
    raise StorageError(f"{stream.name} is still being recorded; stop that first")


def _is_locked(stream: BinaryIO, kind: int) -> bool:
    """Take the lock; False while another process holds it."""
    try:
        fcntl.flock(stream.fileno(), kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        log.warning("%s lies on a file system without locks", stream.name)
    return True


def is_being_recorded(path: Path) -> bool:
    """Whether a recorder holds the file at `path` at this moment."""
    try:
        with path.open("rb") as stream:
            return not _is_locked(stream, fcntl.LOCK_SH)
    except OSError:
        return False  # gone meanwhile


class BagFile:
    """Appends messages to one MCAP file; not thread-safe; every method may raise `OSError`.

    `note` is written at its start, for whoever repairs it after a crash. One that cannot be begun
    is not left behind.
    """

    def __init__(
        self,
        path: Path,
        compression: str = "lz4",
        chunk_bytes: int = 1 << 20,
        note: dict[str, str] | None = None,
    ) -> None:
        self.path = path
        self.summary = BagFileSummary(path.name)
        self.has_its_end = False
        self._stream = path.open("xb")
        self._schemas: dict[tuple[str, str], int] = {}
        self._channels: dict[Topic, int] = {}
        try:
            lock_for_writing(self._stream)
            self._mcap = McapStream(self._stream, LIBRARY, compression, chunk_bytes)
            if note:
                self._mcap.add_metadata(RECORDER_NOTE, note)
                self._mcap.flush()
        except BaseException:
            self.discard()
            raise

    @property
    def size_bytes(self) -> int:
        """Bytes in the file, without the chunk that is being filled."""
        return self._mcap.size_bytes

    def add_topic(self, topic: Topic) -> int:
        """The channel of `topic`, registered when it is new to this file."""
        channel = self._channels.get(topic)
        if channel is None:
            channel = self._register(topic)
        return channel

    def write(self, topic: Topic, cdr: bytes, log_time_ns: int, publish_time_ns: int) -> None:
        """Append one message; it is in memory until its chunk is full or `flush` is called."""
        self._mcap.add_message(self.add_topic(topic), cdr, log_time_ns, publish_time_ns)
        self.summary.count(topic, log_time_ns)

    def add_extra(self, extra: Attachment | Metadata) -> None:
        """Append what goes with the messages; what the bag says of itself is written at its end."""
        if isinstance(extra, Attachment):
            self._mcap.add_attachment(extra)
        elif extra.name not in (RECORDER_NOTE, _ROSBAG2_NOTE):
            self._mcap.add_metadata(extra.name, dict(extra.metadata))

    def flush(self) -> None:
        """Close the chunk and hand everything to the system: a crash of this process loses none."""
        self._mcap.flush()

    def fileno(self) -> int:
        """The open file's descriptor, for syncing it."""
        return self._stream.fileno()

    def close(self, topics: Sequence[Topic]) -> None:
        """Write the index with all `topics`, also those without a message, and sync to the disk."""
        for topic in topics:
            self.add_topic(topic)
        self._mcap.flush()
        content = yaml.safe_dump(information(list(self._channels), [self.summary]), sort_keys=False)
        self._mcap.finish(_ROSBAG2_NOTE, {"serialized_metadata": content})
        os.fsync(self._stream.fileno())
        self._stream.close()
        self.has_its_end = True

    def abandon(self) -> None:
        """Let go of the file without its index, as after a failed write; `recover` repairs it."""
        with suppress(OSError):
            self._stream.raw.close()

    def discard(self) -> None:
        """Let go of the file and remove it."""
        self.abandon()
        with suppress(OSError):
            self.path.unlink()

    def _register(self, topic: Topic) -> int:
        key = (topic.type_name, topic.schema_text)
        if not topic.type_name:
            self._schemas[key] = _NO_SCHEMA
        elif key not in self._schemas:
            self._schemas[key] = self._mcap.add_schema(*key, topic.schema_encoding)
        self._channels[topic] = self._mcap.add_channel(
            topic.name,
            self._schemas[key],
            {"offered_qos_profiles": topic.qos_yaml, "topic_type_hash": topic.type_hash},
            topic.message_encoding,
        )
        return self._channels[topic]
