# SPDX-License-Identifier: Apache-2.0
"""The drone app's packets, byte by byte."""

from __future__ import annotations

import pytest

from worldsystem_core.errors import ProtocolError
from worldsystem_core.wire import PacketType, VideoPacket, pack, unpack, with_start_code


@pytest.mark.parametrize("kind", list(PacketType))
def test_a_packet_survives_the_way_there_and_back(kind):
    number = 2**40 if kind.is_picture else -1
    packet = VideoPacket(type=kind, sender_ns=2**60, payload=b"\x65abc", frame_number=number)
    assert unpack(pack(packet)) == packet


def test_the_layout_is_the_deployed_one():
    packet = VideoPacket(type=PacketType.FRAME, sender_ns=5, payload=b"xy", frame_number=7)
    message = pack(packet)
    assert message[4] == 0x04
    assert message[5:13] == (5).to_bytes(8, "big")
    assert message[13:21] == (7).to_bytes(8, "big")
    assert message[21:] == b"xy"
    assert pack(VideoPacket(type=PacketType.SPS, sender_ns=5, payload=b"xy"))[13:] == b"xy"


@pytest.mark.parametrize("message", [b"", b"\x00" * 12, b"\x00" * 4 + b"\x03" + b"\x00" * 15])
def test_a_packet_that_is_too_short_is_refused(message):
    with pytest.raises(ProtocolError):
        unpack(message)


def test_an_unknown_type_is_named():
    with pytest.raises(ProtocolError, match="0x09"):
        unpack(b"\x00" * 4 + b"\x09" + b"\x00" * 16)


@pytest.mark.parametrize("code", [b"\x00\x00\x01", b"\x00\x00\x00\x01"])
def test_a_start_code_is_put_in_front_only_where_there_is_none(code):
    assert with_start_code(code + b"\x65") == code + b"\x65"
    assert with_start_code(b"\x65\x00") == b"\x00\x00\x00\x01\x65\x00"
