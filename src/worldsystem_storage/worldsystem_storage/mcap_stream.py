# SPDX-License-Identifier: Apache-2.0
"""MCAP as a stream of chunks, with each message's bytes copied once.

Laid out as by the `mcap` library's own writer (https://mcap.dev/spec), whose record types it uses.
That one copies each message four times on its way; messages here wait as references until their
chunk is closed, and are joined only to be packed. A chunk that would not shrink is stored as it is.
"""

from __future__ import annotations

import struct
import zlib
from collections import defaultdict
from collections.abc import Iterable
from typing import BinaryIO

import lz4.frame  # type: ignore[import-untyped]
import numpy as np
import zstandard
from mcap.data_stream import RecordBuilder
from mcap.opcode import Opcode
from mcap.records import (
    Attachment,
    AttachmentIndex,
    Channel,
    ChunkIndex,
    DataEnd,
    Footer,
    Header,
    McapRecord,
    Metadata,
    MetadataIndex,
    Schema,
    Statistics,
    SummaryOffset,
)
from mcap.writer import MCAP0_MAGIC

_MESSAGE_HEAD = struct.Struct("<BQHIQQ")
_MESSAGE_FIXED_BYTES = _MESSAGE_HEAD.size - 9
_CHUNK_HEAD = struct.Struct("<BQQQQII")
_INDEX_HEAD = struct.Struct("<BQHI")
_SIZE = struct.Struct("<Q")
_PIECES, _PIECE_BYTES = 8, 8192


class McapStream:
    """Writes one MCAP file to `stream`; not thread-safe; every method may raise `OSError`."""

    def __init__(self, stream: BinaryIO, library: str, compression: str, chunk_bytes: int) -> None:
        self.size_bytes = 0
        self._stream = stream
        self._compression = compression
        self._chunk_bytes = chunk_bytes
        self._schemas: list[Schema] = []
        self._channels: list[Channel] = []
        self._chunks = _PackedChunkIndexes()
        self._attachments: list[AttachmentIndex] = []
        self._metadata: list[MetadataIndex] = []
        self._counts: defaultdict[int, int] = defaultdict(int)
        self._parts: list[bytes] = []
        self._part_bytes = 0
        self._entries: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
        self._put(MCAP0_MAGIC)
        self._put(_bytes_of(Header(profile="ros2", library=library)))

    def add_schema(self, name: str, text: str, encoding: str = "ros2msg") -> int:
        """The new schema's id; it is stored in front of the next message."""
        schema = Schema(
            id=len(self._schemas) + 1,
            name=name,
            encoding=encoding,
            data=text.encode("utf-8", "surrogateescape"),
        )
        self._schemas.append(schema)
        self._append(_bytes_of(schema))
        return int(schema.id)

    def add_channel(
        self, topic: str, schema_id: int, metadata: dict[str, str], encoding: str = "cdr"
    ) -> int:
        """The new channel's id; it is stored in front of the next message."""
        channel = Channel(
            id=len(self._channels) + 1,
            topic=topic,
            message_encoding=encoding,
            schema_id=schema_id,
            metadata=metadata,
        )
        self._channels.append(channel)
        self._append(_bytes_of(channel))
        return int(channel.id)

    def add_message(
        self, channel: int, data: bytes, log_time_ns: int, publish_time_ns: int
    ) -> None:
        """Append one message; numbered in its channel from 0."""
        number = self._counts[channel]
        self._counts[channel] = number + 1
        self._entries[channel].append((log_time_ns, self._part_bytes))
        size = _MESSAGE_FIXED_BYTES + len(data)
        self._append(
            _MESSAGE_HEAD.pack(
                Opcode.MESSAGE, size, channel, number & 0xFFFFFFFF, log_time_ns, publish_time_ns
            )
        )
        self._append(data)
        if self._part_bytes > self._chunk_bytes:
            self._end_chunk()

    def flush(self) -> None:
        """Close the chunk and hand everything to the system."""
        self._end_chunk()
        self._stream.flush()

    def add_metadata(self, name: str, metadata: dict[str, str]) -> None:
        """Write `metadata` behind what has been written so far, outside of the chunks."""
        self._end_chunk()
        record = _bytes_of(Metadata(name=name, metadata=metadata))
        self._metadata.append(MetadataIndex(offset=self.size_bytes, length=len(record), name=name))
        self._put(record)

    def add_attachment(self, attachment: Attachment) -> None:
        """Write a file that goes with the messages, outside of the chunks."""
        self._end_chunk()
        record = _bytes_of(attachment)
        self._attachments.append(
            AttachmentIndex(
                offset=self.size_bytes,
                length=len(record),
                log_time=attachment.log_time,
                create_time=attachment.create_time,
                data_size=len(attachment.data),
                name=attachment.name,
                media_type=attachment.media_type,
            )
        )
        self._put(record)

    def finish(self, metadata_name: str, metadata: dict[str, str]) -> None:
        """Close the chunk, then write `metadata`, the index and the end."""
        self.add_metadata(metadata_name, metadata)
        self._put(_bytes_of(DataEnd(data_section_crc=0)))
        self._write_summary()
        self._put(MCAP0_MAGIC)
        self._stream.flush()

    def _append(self, part: bytes) -> None:
        self._parts.append(part)
        self._part_bytes += len(part)

    def _put(self, data: bytes) -> None:
        self._stream.write(data)
        self.size_bytes += len(data)

    def _end_chunk(self) -> None:
        """Write what waits, with its index; schemas and channels alone wait for a message."""
        if not self._entries:
            return
        compression, packed = _packed(self._parts, self._compression)
        name = compression.encode()
        times_ns = [stamp for entries in self._entries.values() for stamp, _ in entries]
        index = ChunkIndex(
            message_start_time=min(times_ns),
            message_end_time=max(times_ns),
            chunk_start_offset=self.size_bytes,
            chunk_length=_CHUNK_HEAD.size + len(name) + _SIZE.size + sum(map(len, packed)),
            message_index_offsets={},
            message_index_length=0,
            compression=compression,
            compressed_size=sum(map(len, packed)),
            uncompressed_size=self._part_bytes,
        )
        head = _CHUNK_HEAD.pack(
            Opcode.CHUNK,
            index.chunk_length - 9,
            index.message_start_time,
            index.message_end_time,
            self._part_bytes,
            _crc_of(self._parts),
            len(name),
        )
        self._put(head + name + _SIZE.pack(index.compressed_size))
        for part in packed:
            self._put(part)
        self._put_message_index(index)
        self._chunks.add(index)
        self._parts.clear()
        self._part_bytes = 0
        self._entries.clear()

    def _put_message_index(self, index: ChunkIndex) -> None:
        start = self.size_bytes
        for channel, entries in self._entries.items():
            index.message_index_offsets[channel] = self.size_bytes
            table = np.array(entries, "<u8").tobytes()
            head = _INDEX_HEAD.pack(Opcode.MESSAGE_INDEX, 6 + len(table), channel, len(table))
            self._put(head + table)
        index.message_index_length = self.size_bytes - start

    def _write_summary(self) -> None:
        start = self.size_bytes
        groups: list[tuple[Opcode, bytes]] = [
            (Opcode.SCHEMA, _joined(self._schemas)),
            (Opcode.CHANNEL, _joined(self._channels)),
            (Opcode.STATISTICS, _bytes_of(self._statistics())),
            (Opcode.CHUNK_INDEX, bytes(self._chunks.packed)),
            (Opcode.ATTACHMENT_INDEX, _joined(self._attachments)),
            (Opcode.METADATA_INDEX, _joined(self._metadata)),
        ]
        summary, offsets = b"", b""
        for opcode, content in groups:
            if content:
                offset = SummaryOffset(
                    group_opcode=opcode,
                    group_start=start + len(summary),
                    group_length=len(content),
                )
                offsets += _bytes_of(offset)
            summary += content
        footer = Footer(
            summary_start=start, summary_offset_start=start + len(summary), summary_crc=0
        )
        covered = summary + offsets + _bytes_of(footer)[:-4]
        footer.summary_crc = zlib.crc32(covered)
        self._put(summary + offsets + _bytes_of(footer))

    def _statistics(self) -> Statistics:
        return Statistics(
            attachment_count=len(self._attachments),
            channel_count=len(self._channels),
            channel_message_counts=dict(self._counts),
            chunk_count=self._chunks.count,
            message_count=sum(self._counts.values()),
            metadata_count=len(self._metadata),
            message_start_time=self._chunks.start_ns,
            message_end_time=self._chunks.end_ns,
            schema_count=len(self._schemas),
        )


class _PackedChunkIndexes:
    """The chunks' indexes as they are written; as objects they would take hundreds of MB a day.

    `start_ns` and `end_ns` are the times of the oldest and the newest message, 0 without any.
    """

    def __init__(self) -> None:
        self.packed = bytearray()
        self.count = 0
        self.start_ns, self.end_ns = 0, 0

    def add(self, index: ChunkIndex) -> None:
        """One more chunk; `index` is complete."""
        start_ns, end_ns = int(index.message_start_time), int(index.message_end_time)
        self.start_ns = min(self.start_ns, start_ns) if self.count else start_ns
        self.end_ns = max(self.end_ns, end_ns)
        self.packed += _bytes_of(index)
        self.count += 1


def _packed(parts: list[bytes], compression: str) -> tuple[str, list[bytes]]:
    """`parts` compressed, and by what; as they are when a sample says that it would not shrink."""
    if compression == "none":
        return "", parts
    plain = b"".join(parts)
    if not _shrinks(plain):
        return "", [plain]
    pack = lz4.frame.compress if compression == "lz4" else zstandard.compress
    return compression, [bytes(pack(plain))]


def _crc_of(parts: list[bytes]) -> int:
    crc = 0
    for part in parts:
        crc = zlib.crc32(part, crc)
    return crc


def _shrinks(plain: bytes) -> bool:
    """Whether lz4 takes more than a tenth off `plain`, judged by pieces spread over it.

    H.264, JPEG and Draco do not shrink; to try costs more than to write them.
    """
    step = max(_PIECE_BYTES, len(plain) // _PIECES)
    sample = b"".join(plain[at : at + _PIECE_BYTES] for at in range(0, len(plain), step))
    return len(lz4.frame.compress(sample)) < 0.9 * len(sample)


def _joined(records: Iterable[McapRecord]) -> bytes:
    return b"".join(map(_bytes_of, records))


def _bytes_of(record: McapRecord) -> bytes:
    builder = RecordBuilder()
    record.write(builder)
    return bytes(builder.end())
