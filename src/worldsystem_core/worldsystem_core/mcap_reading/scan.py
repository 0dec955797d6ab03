# SPDX-License-Identifier: Apache-2.0
"""A file from its first byte to its last, also one that was cut off or damaged.

No size in the file is trusted that nothing else confirms. Where bytes make no sense the next chunk
is searched for by the redundancy of its head, so that one wrong bit costs one chunk, not the rest.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from mcap.opcode import Opcode

from worldsystem_core.mcap_reading.records import (
    CHUNK_HEAD_BYTES,
    CHUNK_PATTERN,
    DAMAGE,
    FOOTER_SIZE,
    HEAD,
    MAGIC,
    ChunkHead,
    Record,
    chunk_head,
    parsed,
    records_in,
    unpacked,
    unpacked_beginning,
)

_SEARCH_BYTES = 4 << 20
_SKIPPED = (
    Opcode.HEADER,
    Opcode.MESSAGE_INDEX,
    Opcode.CHUNK_INDEX,
    Opcode.ATTACHMENT_INDEX,
    Opcode.METADATA_INDEX,
    Opcode.SUMMARY_OFFSET,
)


@dataclass(frozen=True)
class Break:
    """Bytes that could not be read: where they begin, how many they are, and why.

    `size` is 0 where the file only lacks its end.
    """

    at: int
    size: int
    reason: str


CUT_OFF = "it ends in the middle of a record"
NO_END = "its end is missing"
NO_MCAP = "it does not begin as an MCAP"
BAD_CHUNK = "a chunk's checksum is wrong"
BAD_BYTES = "bytes that are no record"


def scan(stream: BinaryIO) -> Iterator[Record | Break]:
    """The records of `stream` that hold something, in the order of the file, and its statistics.

    A `Break` stands where something is missing; never raises for what is in the file. Messages out
    of a chunk whose checksum is wrong are not given; those of a last chunk that was cut off are, as
    far as they are whole.
    """
    yield from _Scan(stream).records()


class _Scan:
    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._end = stream.seek(0, io.SEEK_END)
        self._at = 0

    def records(self) -> Iterator[Record | Break]:
        start = self._read(0, len(MAGIC))
        if MAGIC.startswith(start):
            self._at = len(start)
        else:
            yield self._lost_until(self._next_chunk(0), NO_MCAP)
        while self._at < self._end:
            head = self._read(self._at, HEAD.size)
            opcode, size = HEAD.unpack(head) if len(head) == HEAD.size else (0, self._end)
            if opcode == Opcode.FOOTER and size == FOOTER_SIZE:
                return
            if opcode == Opcode.CHUNK:
                yield from self._chunk(size)
            elif self._is_sound(opcode, size):
                yield from self._record(opcode, size)
            else:
                yield from self._damaged()
        yield Break(self._end, 0, NO_END)

    def _chunk(self, size: int) -> Iterator[Record | Break]:
        begin = self._at + HEAD.size
        head = chunk_head(self._read(begin, CHUNK_HEAD_BYTES), size)
        if head is None:
            yield from self._damaged()
        elif begin + size <= self._end:
            yield from self._whole_chunk(head, begin, size)
        else:
            yield from self._cut_chunk(head, begin)

    def _whole_chunk(self, head: ChunkHead, begin: int, size: int) -> Iterator[Record | Break]:
        plain = unpacked(head, self._read(begin, size))
        if plain is None:
            yield self._lost_until(begin + size, BAD_CHUNK)
            return
        yield from self._contents(plain)
        self._at = begin + size

    def _cut_chunk(self, head: ChunkHead, begin: int) -> Iterator[Record | Break]:
        plain = unpacked_beginning(head, self._read(begin, self._end - begin))
        used = 0
        for at, opcode, content in records_in(plain):
            used = at + HEAD.size + len(content)
            yield from _given(opcode, content, self._at)
        lost = self._end - begin if not used else len(plain) - used
        yield Break(self._at, lost, CUT_OFF)
        self._at = self._end

    def _contents(self, plain: bytes) -> Iterator[Record | Break]:
        for _, opcode, content in records_in(plain):
            yield from _given(opcode, content, self._at)

    def _is_sound(self, opcode: int, size: int) -> bool:
        """Whether a record of this size can be there: it fits, and a record or the end follows."""
        after = self._at + HEAD.size + size
        if not opcode > 0 or after > self._end:
            return False
        if opcode == Opcode.DATA_END and size != 4:
            return False
        following = self._read(after, HEAD.size)
        if len(following) < HEAD.size:
            return self._end - after < HEAD.size
        next_opcode, next_size = HEAD.unpack(following)
        known = 0 < next_opcode <= Opcode.DATA_END or next_opcode >= 0x80
        return known and (after + HEAD.size + next_size <= self._end or self._is_cut(after))

    def _is_cut(self, at: int) -> bool:
        """Whether the record at `at` may be the last one, cut off: no chunk comes after it."""
        return self._next_chunk(at + 1) == self._end

    def _record(self, opcode: int, size: int) -> Iterator[Record | Break]:
        begin = self._at + HEAD.size
        skipped = opcode in _SKIPPED or opcode == Opcode.DATA_END or opcode >= 0x80
        if not skipped:
            yield from _given(opcode, self._read(begin, size), self._at)
        self._at = begin + size

    def _damaged(self) -> Iterator[Record | Break]:
        found = self._next_chunk(self._at + 1)
        reason = BAD_BYTES if found < self._end else CUT_OFF
        yield self._lost_until(found, reason)

    def _lost_until(self, end: int, reason: str) -> Break:
        lost = Break(self._at, end - self._at, reason)
        self._at = end
        return lost

    def _next_chunk(self, start: int) -> int:
        """Where the next chunk begins, or the file's end."""
        while start < self._end:
            block = self._read(start, _SEARCH_BYTES)
            at = 0
            while match := CHUNK_PATTERN.search(block, at):
                found = start + match.start()
                head = self._read(found, HEAD.size + CHUNK_HEAD_BYTES)
                size = HEAD.unpack_from(head)[1]
                if chunk_head(head[HEAD.size :], size):
                    return found
                at = match.start() + 1
            start += max(1, len(block) - CHUNK_HEAD_BYTES)
        return self._end

    def _read(self, at: int, size: int) -> bytes:
        self._stream.seek(at)
        return self._stream.read(max(0, min(size, self._end - at)))


def _given(opcode: int, content: bytes, at: int) -> Iterator[Record | Break]:
    try:
        record = parsed(opcode, content)
    except DAMAGE:
        yield Break(at, len(content), BAD_BYTES)
        return
    if record is not None:
        yield record
