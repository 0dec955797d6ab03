# SPDX-License-Identifier: Apache-2.0
"""The drone app's binary WebSocket messages on `/ws/video`.

Bytes 0-3 are not interpreted, byte 4 is the type, bytes 5-12 the sender's time (u64, big-endian,
ns since the epoch). Parameter sets follow from byte 13; pictures have the frame number (u64) first
and follow from byte 21. Payloads are H.264 NAL units, with or without Annex-B start codes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

from worldsystem_core.errors import ProtocolError

START_CODE = b"\x00\x00\x00\x01"
_HEAD = struct.Struct(">IBQ")
_FRAME_NUMBER = struct.Struct(">Q")


class PacketType(IntEnum):
    """What a packet's payload is."""

    SPS = 0x01
    PPS = 0x02
    KEY_FRAME = 0x03
    FRAME = 0x04

    @property
    def is_picture(self) -> bool:
        return self in (PacketType.KEY_FRAME, PacketType.FRAME)


@dataclass(frozen=True, kw_only=True)
class VideoPacket:
    """One message of `/ws/video`; `frame_number` is -1 for parameter sets."""

    type: PacketType
    sender_ns: int
    payload: bytes
    frame_number: int = -1


def pack(packet: VideoPacket) -> bytes:
    """The bytes of `packet`; bytes 0-3 carry the payload's size."""
    head = _HEAD.pack(len(packet.payload), packet.type, packet.sender_ns)
    number = _FRAME_NUMBER.pack(packet.frame_number) if packet.type.is_picture else b""
    return head + number + packet.payload


def unpack(message: bytes) -> VideoPacket:
    """Read one message; raises `ProtocolError` when it is too short or of an unknown type."""
    if len(message) < _HEAD.size:
        raise ProtocolError(f"packet of {len(message)} bytes is shorter than its 13-byte header")
    _, kind, sender_ns = _HEAD.unpack_from(message)
    if kind not in PacketType.__members__.values():
        raise ProtocolError(f"unknown packet type 0x{kind:02x}; known: 0x01 to 0x04")
    packet_type = PacketType(kind)
    if not packet_type.is_picture:
        return VideoPacket(type=packet_type, sender_ns=sender_ns, payload=message[_HEAD.size :])
    start = _HEAD.size + _FRAME_NUMBER.size
    if len(message) < start:
        raise ProtocolError(f"picture packet of {len(message)} bytes has no frame number")
    (number,) = _FRAME_NUMBER.unpack_from(message, _HEAD.size)
    return VideoPacket(
        type=packet_type, sender_ns=sender_ns, payload=message[start:], frame_number=number
    )


def with_start_code(payload: bytes) -> bytes:
    """`payload` in Annex-B form: a start code is put in front when there is none."""
    if payload.startswith((START_CODE, START_CODE[1:])):
        return payload
    return START_CODE + payload
