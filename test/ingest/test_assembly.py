# SPDX-License-Identifier: Apache-2.0
"""Pictures and parameter sets that came apart become access units that can be decoded."""

from __future__ import annotations

import json

import av
import pytest
from coding_lab import Coding, coded, moving_scene, without_sets
from ingest_lab import MemorySink, encode, split_sets

from worldsystem_core import wire
from worldsystem_core.byte_stream import joined, nal_units
from worldsystem_core.wire import START_CODE
from worldsystem_ingest.codec import h264, h265
from worldsystem_ingest.codec.assembly import Assembled, Assembly, Refused
from worldsystem_ingest.codec.entry import Entry
from worldsystem_ingest.codec.unit_intake import UnitIntake
from worldsystem_ingest.config import IngestConfig
from worldsystem_ingest.sender.session import SenderSession

KEY, RECOVERY = Entry.KEY, Entry.RECOVERY
REFRESH = "keyint=10:intra-refresh=1:bframes=0:threads=1"


def hevc(count: int) -> list[bytes]:
    """H.265 access units with a key frame among ten."""
    return [unit.data for unit in coded(moving_scene(count), Coding(codec="h265"))]


def apart(unit: bytes) -> tuple[bytes, bytes]:
    """The parameter sets of an H.265 access unit, and the rest."""
    nals = list(nal_units(unit))
    sets = [nal for nal in nals if nal[0] >> 1 & 63 in (h265.VPS, h265.SPS, h265.PPS)]
    return joined(sets), joined([nal for nal in nals if nal not in sets])


def test_sets_are_put_before_a_key_frame_that_lacks_them_and_nowhere_else():
    assembly = Assembly()
    first, second = encode(11)[0], encode(11)[1]
    sets, picture = split_sets(first.data)
    for nal in sets:
        assembly.take_sets(nal)
    assembled = assembly.take(START_CODE + picture, is_key=False)
    assert assembled == Assembled(b"".join(START_CODE + nal for nal in [*sets, picture]), True)
    assert assembly.take(first.data, is_key=True) == Assembled(first.data, True)
    assert assembly.take(second.data, is_key=False) == Assembled(second.data, False)


def test_what_can_never_be_decoded_is_refused_by_name():
    assembly = Assembly()
    picture = START_CODE + split_sets(encode(1)[0].data)[1]
    assert assembly.take(picture, is_key=True) == Refused("no_parameter_sets")
    for data in (b"", START_CODE, START_CODE + b"\x09\x10", b"\0\0\0\0\0"):
        assert assembly.take(data, is_key=True) == Refused("corrupt")


def test_a_stream_that_refreshes_by_and_by_gets_its_sets_at_recovery_points():
    units = encode(40, **{"x264-params": REFRESH})
    assembly = Assembly()
    for nal in split_sets(units[0].data)[0]:
        assembly.take_sets(nal)
    bare = [without_sets(unit).data for unit in units]
    grown = [n for n, data in enumerate(bare) if len(assembly.take(data, False).data) > len(data)]
    entries = [n for n, data in enumerate(bare) if h264.entry_of(data) in (KEY, RECOVERY)]
    assert grown == entries
    assert len(entries) > 4


def test_a_stream_without_key_frames_is_joined_at_a_recovery_point_and_loses_nothing():
    units = encode(40, **{"x264-params": REFRESH})
    bare = [units[0].data, *(without_sets(unit).data for unit in units[1:])]
    first, *entries = [n for n, d in enumerate(bare) if h264.entry_of(d) in (KEY, RECOVERY)]
    sink, delivered = MemorySink(), []
    intake = UnitIntake(sink, lambda unit, lost: delivered.append(unit), "camera")
    intake.take(bare[first], "h264", 1)
    intake.connected()
    for number, data in enumerate(bare[entries[0] :], entries[0]):
        intake.take(data, "h264", 1 + number)
    assert sink.drops == []
    assert [unit.is_key for unit in delivered[1:]] == [n in entries for n in range(entries[0], 40)]
    keys = [unit for unit in delivered if unit.is_key]
    assert all({h264.SPS, h264.PPS} <= h264.nal_types(unit.data) for unit in keys)
    assert sink.units == delivered


@pytest.mark.parametrize("name", ["h265", "HEVC", "video/hevc"])
def test_a_drone_may_send_h265(name):
    said, delivered = [], []
    sink = MemorySink()
    session = SenderSession(
        sink, lambda unit, lost: delivered.append(unit), "camera", IngestConfig(), said.append
    )
    session.take_control(json.dumps({"type": "video_config", "config": {"codec": name}}))
    for number, unit in enumerate(hevc(20)):
        sets, picture = apart(unit)
        if number == 0:
            session.take_packet(packed(wire.PacketType.SPS, sets))
        session.take_packet(packed(wire.PacketType.FRAME, picture, number))
    assert [unit.codec for unit in delivered] == ["h265"] * 20
    assert [unit.is_key for unit in delivered] == [n % 10 == 0 for n in range(20)]
    decoder = av.CodecContext.create("hevc", "r")
    pictures = [p for u in delivered[10:] for p in decoder.decode(av.Packet(u.data))]
    assert len(pictures + decoder.decode(None)) == 10


def packed(kind: wire.PacketType, payload: bytes, number: int = -1) -> bytes:
    stamp_ns = 2 * 10**18 + max(0, number) * 33_000_000
    packet = wire.VideoPacket(type=kind, sender_ns=stamp_ns, payload=payload, frame_number=number)
    return wire.pack(packet)


def test_a_codec_that_nobody_knows_changes_nothing():
    assembly = Assembly()
    for name in ("", "mpeg2", "h266"):
        assembly.use_codec(name)
    assert assembly.codec == "h264"
