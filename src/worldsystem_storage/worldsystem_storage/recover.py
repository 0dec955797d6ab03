# SPDX-License-Identifier: Apache-2.0
"""Repair of bags whose recorder was killed: everything before the break, indexed again."""

from __future__ import annotations

import io
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeAlias

import lz4.frame  # type: ignore[import-untyped]
import zstandard
from mcap.data_stream import ReadDataStream
from mcap.exceptions import McapError
from mcap.opcode import Opcode
from mcap.reader import make_reader
from mcap.records import Channel, Chunk, Message, Schema
from mcap.stream_reader import get_chunk_data_stream
from mcap.writer import MCAP0_MAGIC

from worldsystem_storage.bag_file import BagFile, lock_for_writing
from worldsystem_storage.bag_metadata import BagFileSummary, Topic, write_metadata
from worldsystem_storage.errors import StorageError

_RECORD_HEAD = struct.Struct("<BQ")
_FOOTER_BYTES = _RECORD_HEAD.size + 20 + len(MCAP0_MAGIC)
_CHUNK_HEAD = struct.Struct("<QQQII")
_DAMAGED = (
    McapError,
    zstandard.ZstdError,
    RuntimeError,  # lz4's own error
    ValueError,
    KeyError,
    struct.error,
    EOFError,
    MemoryError,  # a damaged size
)
Record: TypeAlias = Schema | Channel | Message


@dataclass(frozen=True)
class RecoveredBag:
    """What a repair found: the file(s) now readable, messages by topic, bytes that had no use.

    `repaired` is False when every file was whole and nothing was touched.
    """

    path: Path
    messages: dict[str, int]
    lost_bytes: int
    repaired: bool


def recover(path: Path) -> RecoveredBag:
    """Make the bag at `path`, a folder or one `.mcap`, readable by every tool again.

    A file without its end is read up to the break, also into the chunk that was being written, and
    replaced at once by one with an index; a folder's `metadata.yaml` is written anew. Whole files
    are left alone. Never raises for what is in a file: one that is no MCAP at all, or cut before
    its first message, becomes an empty bag. Raises `StorageError` when there is no file at `path`,
    when it is still being recorded, or when there is no room beside it (the size of the largest
    broken file is needed).
    """
    path = Path(path)
    files = bag_files(path)
    try:
        repairs = [_Repair(file) for file in files]
        if path.is_dir():
            topics = {topic.name: topic for repair in repairs for topic in repair.topics.values()}
            write_metadata(path, list(topics.values()), [repair.summary for repair in repairs])
    except OSError as error:
        raise StorageError(f"cannot repair {path}: {error}; make room beside it") from error
    counts = sum((repair.summary.counts for repair in repairs), Counter[str]())
    lost = sum(repair.lost_bytes for repair in repairs)
    return RecoveredBag(path, dict(counts), lost, any(not repair.whole for repair in repairs))


def bag_files(path: Path) -> list[Path]:
    """The `.mcap` files of a bag in order; raises `StorageError` when there is none."""
    path = Path(path)
    files = sorted(path.glob("*.mcap"), key=_split_number) if path.is_dir() else [path]
    if not files or not files[0].is_file():
        raise StorageError(f"no bag at {path}; give a .mcap file or the folder that holds it")
    return files


def is_whole(path: Path) -> bool:
    """Whether the MCAP file at `path` begins and ends as it should."""
    with path.open("rb") as stream:
        if stream.read(len(MCAP0_MAGIC)) != MCAP0_MAGIC:
            return False
        if stream.seek(0, io.SEEK_END) < 2 * len(MCAP0_MAGIC) + _FOOTER_BYTES:
            return False
        stream.seek(-_FOOTER_BYTES, io.SEEK_END)
        end = stream.read()
    return end[:9] == _RECORD_HEAD.pack(Opcode.FOOTER, 20) and end.endswith(MCAP0_MAGIC)


class _Repair:
    """One file, read once and, when it is broken, written anew."""

    def __init__(self, path: Path) -> None:
        self.topics: dict[str, Topic] = {}
        self.summary = BagFileSummary(path.name)
        self.lost_bytes = 0
        self._schemas: dict[int, Schema] = {}
        self._topic_of: dict[int, Topic] = {}
        with path.open("rb") as stream:
            lock_for_writing(stream)
            self.whole = is_whole(path) and self._read_index(stream)
            if not self.whole:
                self._rewrite(path, stream)

    def _read_index(self, stream: BinaryIO) -> bool:
        try:
            index = make_reader(stream).get_summary()
        except _DAMAGED:
            return False
        if index is None or index.statistics is None:
            return False
        self._schemas = dict(index.schemas)
        for channel in index.channels.values():
            self._add_channel(channel)
        statistics = index.statistics
        for number, count in statistics.channel_message_counts.items():
            if number not in self._topic_of:
                return False
            self.summary.counts[self._topic_of[number].name] += count
        if statistics.message_count:
            self.summary.first_ns = statistics.message_start_time
            self.summary.last_ns = statistics.message_end_time
        return True

    def _rewrite(self, path: Path, stream: BinaryIO) -> None:
        self.summary = BagFileSummary(path.name)
        beside = path.with_name(f".{path.name}.recovered")
        beside.unlink(missing_ok=True)
        out = BagFile(beside)
        try:
            self._read(stream, out)
            out.summary.name = path.name
            out.close(list(self.topics.values()))
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)

    def _read(self, stream: BinaryIO, out: BagFile) -> None:
        records = _Records(stream)
        for record in records:
            if isinstance(record, Schema):
                self._schemas[record.id] = record
            elif isinstance(record, Channel):
                self._add_channel(record)
            else:
                self._add_message(record, out)
        self.lost_bytes += records.lost_bytes

    def _add_channel(self, channel: Channel) -> None:
        schema = self._schemas.get(channel.schema_id)
        if schema is None:
            return
        topic = Topic(
            channel.topic,
            schema.name,
            schema.data.decode("utf-8", "replace"),
            channel.metadata.get("topic_type_hash", ""),
            channel.metadata.get("offered_qos_profiles", ""),
        )
        self._topic_of[channel.id] = self.topics.setdefault(topic.name, topic)

    def _add_message(self, message: Message, out: BagFile) -> None:
        topic = self._topic_of.get(message.channel_id)
        if topic is None:
            self.lost_bytes += len(message.data)
            return
        self.summary.count(topic.name, message.log_time)
        out.write(topic, message.data, message.log_time, message.publish_time)


class _Records:
    """The schemas, channels and messages of a possibly broken MCAP file, in file order."""

    def __init__(self, stream: BinaryIO) -> None:
        self.lost_bytes = 0
        self._stream = stream
        self._end = stream.seek(0, io.SEEK_END)
        self._at = stream.seek(0)

    def __iter__(self) -> Iterator[Record]:
        if self._stream.read(len(MCAP0_MAGIC)) != MCAP0_MAGIC:
            self.lost_bytes = self._end
            return
        self._at = len(MCAP0_MAGIC)
        while self._at < self._end:
            head = self._stream.read(_RECORD_HEAD.size)
            if len(head) < _RECORD_HEAD.size:
                self.lost_bytes += len(head)
                return
            opcode, size = _RECORD_HEAD.unpack(head)
            start = self._at + _RECORD_HEAD.size
            if opcode in (Opcode.DATA_END, Opcode.FOOTER):
                return
            if opcode in (Opcode.CHUNK, Opcode.SCHEMA, Opcode.CHANNEL, Opcode.MESSAGE):
                content = self._stream.read(min(size, self._end - start))
                yield from self._parse(opcode, content, whole=len(content) == size)
            self._at = start + size
            self._stream.seek(min(self._at, self._end))

    def _parse(self, opcode: int, content: bytes, *, whole: bool) -> Iterator[Record]:
        if opcode != Opcode.CHUNK:
            if not whole:
                self.lost_bytes += len(content)
                return
            yield from self._records_of(_RECORD_HEAD.pack(opcode, len(content)) + content)
            return
        plain = _chunk_content(content) if whole else None
        if plain is None:
            plain = _cut_chunk_content(content)
            self.lost_bytes += len(content) if not plain else 0
        yield from self._records_of(plain)

    def _records_of(self, plain: bytes) -> Iterator[Record]:
        at = 0
        while at + _RECORD_HEAD.size <= len(plain):
            opcode, size = _RECORD_HEAD.unpack_from(plain, at)
            at += _RECORD_HEAD.size
            if at + size > len(plain):
                self.lost_bytes += len(plain) - at
                return
            record = _parse_record(opcode, plain[at : at + size])
            if record is not None:
                yield record
            at += size


def _parse_record(opcode: int, content: bytes) -> Record | None:
    data = ReadDataStream(io.BytesIO(content))
    record: Record | None = None
    try:
        if opcode == Opcode.SCHEMA:
            record = Schema.read(data)
        elif opcode == Opcode.CHANNEL:
            record = Channel.read(data)
        elif opcode == Opcode.MESSAGE:
            record = Message.read(data, len(content))
    except _DAMAGED:
        return None
    return record


def _chunk_content(content: bytes) -> bytes | None:
    """A whole chunk, unpacked; None when its checksum or packing is wrong."""
    try:
        chunk = Chunk.read(ReadDataStream(io.BytesIO(content)))
        stream, size = get_chunk_data_stream(chunk, validate_crc=True)
        return bytes(stream.read(size))
    except _DAMAGED:
        return None


def _cut_chunk_content(content: bytes) -> bytes:
    """What can be unpacked of a chunk whose end is missing; empty when nothing can."""
    if len(content) < _CHUNK_HEAD.size:
        return b""
    *_, name_size = _CHUNK_HEAD.unpack_from(content)
    start = _CHUNK_HEAD.size + name_size
    name = content[_CHUNK_HEAD.size : start]
    packed = content[start + 8 :]
    try:
        if name == b"lz4":
            return bytes(lz4.frame.LZ4FrameDecompressor().decompress(packed))
        if name == b"zstd":
            return zstandard.ZstdDecompressor().decompressobj().decompress(packed)
    except _DAMAGED:
        return b""
    return packed if name == b"" else b""


def _split_number(path: Path) -> tuple[int, str]:
    number = path.stem.rpartition("_")[2]
    return (int(number) if number.isdigit() else 0, path.name)
