# SPDX-License-Identifier: Apache-2.0
"""What the codes of all levels share: the head, the list of blocks, deflated sections."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int, Int32, UInt8

from worldsystem_core.errors import ProtocolError

VERSION = 1
MAX_BLOCKS = 1 << 20
FREE_BLOCKS, BLOCKS_PER_BYTE = 4096, 4
"""A code of more blocks than these together is refused: in memory each takes kilobytes, and a
thousand empty ones deflate to a few bytes. A plane of one colour takes half a byte a block."""
_HEAD = struct.Struct("<2sBBId")
_MAGIC = b"WM"
_DEFLATE_LEVEL = 6


@dataclass(frozen=True, kw_only=True, eq=False)
class Head:
    """What stands before the deflated part."""

    level: int
    block_count: int
    voxel: float


def packed(head: Head, sections: Sequence[UInt8[np.ndarray, "n"]]) -> bytes:
    """Head and sections as bytes.

    Each section ends a deflate block, so that each has Huffman codes of its own: 5 bytes a
    section, and a tenth less in all. Runs are rare, hence the strategy for filtered data.
    """
    start = _HEAD.pack(_MAGIC, VERSION, head.level, head.block_count, head.voxel)
    deflate = zlib.compressobj(_DEFLATE_LEVEL, zlib.DEFLATED, 15, 9, zlib.Z_FILTERED)
    parts = [start]
    for section in sections:
        parts.append(deflate.compress(bytes(section)))
        parts.append(deflate.flush(zlib.Z_SYNC_FLUSH))
    parts.append(deflate.flush())
    return b"".join(parts)


def unpacked(data: bytes) -> tuple[Head, SectionReader]:
    """Head of a code, and its inflated sections; raises `ProtocolError` when it is damaged."""
    if len(data) < _HEAD.size:
        raise ProtocolError(f"mesh code of {len(data)} bytes is shorter than its head")
    magic, version, level, count, voxel = _HEAD.unpack_from(data)
    if magic != _MAGIC or version != VERSION:
        raise ProtocolError(f"not a mesh code of version {VERSION}: starts with {data[:3].hex()}")
    if level > 2 or count > MAX_BLOCKS or not np.isfinite(voxel) or voxel <= 0:
        raise ProtocolError(f"mesh code of level {level}, {count} blocks, voxel {voxel}")
    if count > FREE_BLOCKS + BLOCKS_PER_BYTE * len(data):
        raise ProtocolError(f"mesh code of {count} blocks in only {len(data)} bytes")
    return Head(level=level, block_count=count, voxel=voxel), SectionReader(
        _inflated(data[_HEAD.size :], 64 + 10_000 * count)
    )


def _inflated(data: bytes, limit: int) -> bytes:
    inflate = zlib.decompressobj()
    try:
        content = inflate.decompress(data, limit)
    except zlib.error as error:
        raise ProtocolError(f"damaged mesh code: {error}") from error
    if not inflate.eof:
        raise ProtocolError("damaged mesh code: it ends too early, or holds more than it says")
    return content


class SectionReader:
    """Takes section after section; asking for more than there is raises `ProtocolError`."""

    def __init__(self, content: bytes) -> None:
        self._content = np.frombuffer(content, np.uint8)
        self._at = 0

    def take(self, count: int) -> UInt8[np.ndarray, "n"]:
        """The next `count` bytes."""
        if self._at + count > len(self._content):
            raise ProtocolError(f"damaged mesh code: {count} bytes wanted behind {self._at}")
        self._at += count
        return np.asarray(self._content[self._at - count : self._at])

    def take_bits(self, count: int) -> UInt8[np.ndarray, "n"]:
        """The next `count` bits, lowest first; the rest of the last byte is skipped."""
        return np.unpackbits(self.take((count + 7) // 8), count=count, bitorder="little")

    def take_numbers(self, count: int) -> Int[np.ndarray, "n"]:
        """The next `count` unsigned numbers of seven bits a byte, lowest first."""
        rest = self._content[self._at :]
        ends = np.flatnonzero(rest[: 5 * count] < 128)[:count]
        if len(ends) < count:
            raise ProtocolError(f"damaged mesh code: fewer than {count} numbers")
        if not count:
            return np.zeros(0, np.int64)
        coded = self.take(int(ends[-1]) + 1).astype(np.int64)
        starts = np.concatenate([[0], ends[:-1] + 1])
        place = np.arange(len(coded)) - np.repeat(starts, ends - starts + 1)
        if place.max() > 4:
            raise ProtocolError("damaged mesh code: a number of more than five bytes")
        return np.asarray(np.add.reduceat((coded & 127) << (7 * place), starts))

    def end(self) -> None:
        """Nothing may be left."""
        if self._at != len(self._content):
            raise ProtocolError(
                f"damaged mesh code: {len(self._content) - self._at} bytes too many"
            )


def numbers_section(numbers: Int[np.ndarray, "n"]) -> UInt8[np.ndarray, "m"]:
    """Unsigned numbers below 2³⁵, seven bits a byte, lowest first; the top bit says `more`."""
    digits = (numbers[:, None] >> (7 * np.arange(5))) & 127
    length = 1 + (numbers[:, None] >> (7 * np.arange(1, 5)) > 0).sum(axis=1)
    digits[np.arange(5) < length[:, None] - 1] |= 128
    return np.asarray(digits[np.arange(5) < length[:, None]].astype(np.uint8))


def bits_section(bits: np.ndarray) -> UInt8[np.ndarray, "m"]:
    """Bits, lowest first, filled up to a byte."""
    return np.packbits(bits, bitorder="little")


def blocks_section(
    index: Int32[np.ndarray, "b 3"], version: Int32[np.ndarray, "b"]
) -> UInt8[np.ndarray, "m"]:
    """Indices and versions as differences to the block before; the sign in the lowest bit."""
    rows = np.concatenate([index, version[:, None]], axis=1).astype(np.int64)
    steps = np.diff(rows, axis=0, prepend=np.zeros((1, 4), np.int64)).reshape(-1)
    return numbers_section((steps << 1) ^ (steps >> 63))


def take_blocks(
    reader: SectionReader, count: int
) -> tuple[Int32[np.ndarray, "b 3"], Int32[np.ndarray, "b"]]:
    """Inverse of `blocks_section`."""
    coded = reader.take_numbers(4 * count)
    rows = np.cumsum(((coded >> 1) ^ -(coded & 1)).reshape(-1, 4), axis=0)
    versions = rows[:, 3]
    is_odd = (np.abs(rows[:, :3]).max(axis=1) >= 1 << 28) | (versions < 0) | (versions >= 1 << 31)
    if is_odd.any():
        raise ProtocolError("damaged mesh code: a block far outside the world")
    return rows[:, :3].astype(np.int32), rows[:, 3].astype(np.int32)


def differences(values: Int[np.ndarray, "n"]) -> UInt8[np.ndarray, "n"]:
    """Each value less the one before, as bytes; the first less 0."""
    return np.asarray((np.diff(values, prepend=0) & 255).astype(np.uint8))


def sums(coded: UInt8[np.ndarray, "n"], signed: bool) -> Int[np.ndarray, "n"]:
    """Inverse of `differences`, for values of a byte."""
    values = np.cumsum(coded.astype(np.int64)) & 255
    return np.asarray(np.where(values > 127, values - 256, values) if signed else values)
