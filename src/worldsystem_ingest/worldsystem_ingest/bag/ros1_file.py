# SPDX-License-Identifier: Apache-2.0
"""One rosbag1 file without its index, read chunk by chunk up to the break (rosbag format 2.0)."""

from __future__ import annotations

import bz2
import struct
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path

import lz4.frame  # type: ignore[import-untyped]

from worldsystem_ingest.bag.messages import DAMAGE, BagBroken, Channel, Recorded, full_type_name

MAGIC = b"#ROSBAG V2.0\n"
_MESSAGE, _CHUNK, _CONNECTION = 2, 5, 7
_NS = 10**9
_Fields = dict[str, bytes]


class Ros1File:
    """The messages of a bag whose recorder was killed, in the order of the file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        channels: dict[Channel, None] = {}
        counts: Counter[str] = Counter()
        self.start_ns = self.end_ns = 0
        try:
            for message in self._read():
                channels[message.channel] = None
                counts[message.channel.topic] += 1
                self.start_ns = min(self.start_ns or message.log_ns, message.log_ns)
                self.end_ns = max(self.end_ns, message.log_ns)
        except BagBroken:
            if not channels:
                raise
        self.channels, self.counts = list(channels), dict(counts)

    def messages(self, topics: Collection[str]) -> Iterator[Recorded]:
        """Those of `topics`; raises `BagBroken` at the break."""
        for message in self._read():
            if message.channel.topic in topics:
                yield message

    def _read(self) -> Iterator[Recorded]:
        channels: dict[int, Channel] = {}
        name = self._path.name
        with self._path.open("rb") as stream:
            if stream.read(len(MAGIC)) != MAGIC:
                raise BagBroken(f"{name} is no rosbag of version 2.0: its first bytes are others")
            try:
                while head := stream.read(4):
                    fields = _fields(stream.read(*struct.unpack("<I", head)))
                    size = struct.unpack("<I", stream.read(4))[0]
                    content = stream.read(size)
                    is_whole = len(content) == size
                    if is_whole or fields["op"][0] == _CHUNK:
                        yield from _messages_in(fields, content, channels)
                    if not is_whole:
                        break
            except DAMAGE as error:
                raise BagBroken(f"{name} is damaged or cut off, and has no index") from error
        raise BagBroken(f"{name} was cut off and has no index")


def _messages_in(
    fields: _Fields, content: bytes, channels: dict[int, Channel]
) -> Iterator[Recorded]:
    kind = fields["op"][0]
    if kind == _CONNECTION:
        inner = _fields(content)
        channels[_uint32(fields["conn"])] = Channel(
            topic=fields["topic"].decode(),
            type_name=full_type_name(inner["type"].decode()),
            encoding="ros1",
            definition=inner["message_definition"].decode("utf-8", "replace"),
        )
    elif kind == _MESSAGE and _uint32(fields["conn"]) in channels:
        seconds, nanoseconds = struct.unpack("<II", fields["time"])
        channel = channels[_uint32(fields["conn"])]
        yield Recorded(channel, seconds * _NS + nanoseconds, content)
    elif kind == _CHUNK:
        yield from _messages_in_chunk(_unpacked(content, fields["compression"]), channels)


def _messages_in_chunk(plain: bytes, channels: dict[int, Channel]) -> Iterator[Recorded]:
    at = 0
    while at + 4 <= len(plain):
        head_size = struct.unpack_from("<I", plain, at)[0]
        content_at = at + 4 + head_size + 4
        if content_at > len(plain):
            return
        content_size = struct.unpack_from("<I", plain, content_at - 4)[0]
        if content_at + content_size > len(plain):
            return
        fields = _fields(plain[at + 4 : at + 4 + head_size])
        at = content_at + content_size
        yield from _messages_in(fields, plain[content_at:at], channels)


def _unpacked(content: bytes, packing: bytes) -> bytes:
    """As far as the chunk is there."""
    if packing == b"bz2":
        return bz2.BZ2Decompressor().decompress(content)
    if packing == b"lz4":
        return bytes(lz4.frame.LZ4FrameDecompressor().decompress(content))
    return content


def _fields(header: bytes) -> _Fields:
    """`name=value` pairs, each with its size in front."""
    fields, at = {}, 0
    while at + 4 <= len(header):
        size = struct.unpack_from("<I", header, at)[0]
        name, _, value = header[at + 4 : at + 4 + size].partition(b"=")
        fields[name.decode("ascii")] = value
        at += 4 + size
    return fields


def _uint32(value: bytes) -> int:
    return int(struct.unpack("<I", value)[0])
