# SPDX-License-Identifier: Apache-2.0
"""The bytes of records: chunks unpacked and checked, messages and their definitions parsed."""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, TypeAlias

import lz4.frame  # type: ignore[import-untyped]
import zstandard
from mcap.data_stream import ReadDataStream
from mcap.exceptions import McapError
from mcap.opcode import Opcode
from mcap.records import Attachment, Channel, Message, Metadata, Schema, Statistics

MAGIC = b"\x89MCAP0\r\n"
HEAD = struct.Struct("<BQ")
FOOTER_SIZE = 20
_FOOTER = struct.Struct("<QQI")
_CHUNK_HEAD = struct.Struct("<QQQII")
_SIZE = struct.Struct("<Q")
_MESSAGE_HEAD = struct.Struct("<HIQQ")
_PACKINGS = (b"", b"lz4", b"zstd")
# a chunk's opcode and size, its times, sizes and checksum, and the name of its packing
CHUNK_PATTERN = re.compile(
    rb"\x06.{36}(?:\x00\x00\x00\x00|\x03\x00\x00\x00lz4|\x04\x00\x00\x00zstd)", re.DOTALL
)
CHUNK_HEAD_BYTES = HEAD.size + _CHUNK_HEAD.size + 4 + _SIZE.size

# what libraries raise when bytes are not what they expect
DAMAGE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,  # a damaged size
    RuntimeError,  # lz4's own error
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
    zstandard.ZstdError,
    McapError,
)
Record: TypeAlias = Schema | Channel | Message | Metadata | Attachment | Statistics
_READERS = {
    Opcode.SCHEMA: Schema,
    Opcode.CHANNEL: Channel,
    Opcode.METADATA: Metadata,
    Opcode.ATTACHMENT: Attachment,
    Opcode.STATISTICS: Statistics,
}


@dataclass(frozen=True)
class ChunkHead:
    """The head of a chunk's record, whose sizes agree with each other."""

    plain_size: int
    crc: int
    packing: bytes
    packed_start: int
    packed_size: int


def chunk_head(content: bytes, size: int) -> ChunkHead | None:
    """The head of a chunk's record of `size` bytes, of which `content` is the beginning.

    None when it is no chunk: its own size, that of what is packed and the packing's name must
    agree, which bytes that are none hardly ever do.
    """
    if len(content) < _CHUNK_HEAD.size:
        return None
    start_ns, end_ns, plain_size, crc, name_size = _CHUNK_HEAD.unpack_from(content)
    after_name = _CHUNK_HEAD.size + name_size
    if name_size > 4 or start_ns > end_ns or len(content) < after_name + _SIZE.size:
        return None
    name = content[_CHUNK_HEAD.size : after_name]
    (packed_size,) = _SIZE.unpack_from(content, after_name)
    start = after_name + _SIZE.size
    if name not in _PACKINGS or size != start + packed_size:
        return None
    if not name and plain_size != packed_size:
        return None
    return ChunkHead(plain_size, crc, name, start, packed_size)


def unpacked(head: ChunkHead, content: bytes) -> bytes | None:
    """A whole chunk's records; None when its checksum or its packing is wrong."""
    packed = content[head.packed_start :]
    try:
        plain = _decompressed(head.packing, packed)
    except DAMAGE:
        return None
    if len(plain) != head.plain_size or (head.crc and zlib.crc32(plain) != head.crc):
        return None
    return plain


def unpacked_beginning(head: ChunkHead, content: bytes) -> bytes:
    """What can be unpacked of a chunk whose end is missing; empty when nothing can."""
    try:
        return _decompressed(head.packing, content[head.packed_start :])
    except DAMAGE:
        return b""


def _decompressed(packing: bytes, packed: bytes) -> bytes:
    if packing == b"lz4":
        return bytes(lz4.frame.LZ4FrameDecompressor().decompress(packed))
    if packing == b"zstd":
        return bytes(zstandard.ZstdDecompressor().decompressobj().decompress(packed))
    return packed


def records_in(plain: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Where each record of a chunk's content begins, its opcode and its bytes; whole ones only."""
    at = 0
    while at + HEAD.size <= len(plain):
        opcode, size = HEAD.unpack_from(plain, at)
        begin = at + HEAD.size
        if begin + size > len(plain):
            return
        yield at, opcode, plain[begin : begin + size]
        at = begin + size


def parsed(opcode: int, content: bytes) -> Record | None:
    """The record; None for kinds that are of no use here. May raise any of `DAMAGE`."""
    if opcode == Opcode.MESSAGE:
        channel, number, log_ns, publish_ns = _MESSAGE_HEAD.unpack_from(content)
        return Message(
            channel_id=channel,
            sequence=number,
            log_time=log_ns,
            publish_time=publish_ns,
            data=content[_MESSAGE_HEAD.size :],
        )
    kind = _READERS.get(Opcode(opcode)) if opcode in _READERS else None
    return kind.read(ReadDataStream(io.BytesIO(content))) if kind else None


def summary_is_right(stream: BinaryIO) -> bool:
    """Whether the checksum of the file's summary is, where there is a summary that has one."""
    footer_at = stream.seek(0, io.SEEK_END) - len(MAGIC) - FOOTER_SIZE
    if footer_at < len(MAGIC):
        return False
    stream.seek(footer_at)
    summary_start, _, crc = _FOOTER.unpack(stream.read(FOOTER_SIZE))
    if not crc or not 0 < summary_start <= footer_at:
        return not crc
    stream.seek(summary_start)
    covered = stream.read(footer_at + FOOTER_SIZE - 4 - summary_start)
    return bool(zlib.crc32(covered) == crc)
