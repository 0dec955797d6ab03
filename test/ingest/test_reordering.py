# SPDX-License-Identifier: Apache-2.0
"""Announced but unused reordering must not hold live pictures back."""

from __future__ import annotations

from fractions import Fraction

import av
import pytest
from av.video.frame import PictureType
from ingest_lab import HEIGHT, WIDTH, AccessUnit, encode, number_in, numbered_picture

from worldsystem_core.byte_stream import nal_units
from worldsystem_ingest.codec.decoder import Decoded, Decoder, DecoderSettings, Lost
from worldsystem_ingest.codec.reordering import has_b_slice, without_reordering


def announced_but_unused(count: int, x264: str = "") -> list[AccessUnit]:
    """Every picture forced to be I or P in a stream that may have B-frames."""
    context = av.CodecContext.create("libx264", "w")
    context.width, context.height, context.pix_fmt = WIDTH, HEIGHT, "yuv420p"
    context.time_base, context.framerate = Fraction(1, 30), Fraction(30)
    context.options = {"x264-params": "keyint=10:scenecut=0:bframes=3:threads=1" + x264}
    packets = []
    for number in range(count):
        picture = av.VideoFrame.from_ndarray(numbered_picture(number), format="rgb24")
        picture.pts = number
        picture.pict_type = PictureType.P if number % 10 else PictureType.I
        packets += context.encode(picture)
    packets += context.encode(None)
    return [AccessUnit(bytes(p), p.is_keyframe, p.pts) for p in packets]


@pytest.mark.parametrize(
    "x264", ["", ":nal-hrd=vbr:vbv-maxrate=900:vbv-bufsize=900", ":cqm=jvt:sar=4/3:overscan=show"]
)
def test_pictures_come_at_once_when_reordering_is_announced_and_unused(x264):
    units = announced_but_unused(30, x264)
    patient, live = Decoder(), Decoder(DecoderSettings(low_delay=True))
    assert patient.feed(0, units[0].data, True) == []  # what would happen without the remedy
    for unit in units:
        (outcome,) = live.feed(unit.shows, unit.data, unit.is_key)
        assert isinstance(outcome, Decoded)
        assert number_in(outcome.rgb) == unit.shows == outcome.index


def test_a_b_slice_shows_that_reordering_is_meant():
    units = encode(60, b_frames=2)
    decoder, outcomes = Decoder(DecoderSettings(low_delay=True)), []
    for index, unit in enumerate(units):
        outcomes += decoder.feed(index, unit.data, unit.is_key)
    outcomes += decoder.flush()
    assert sorted(o.index for o in outcomes) == list(range(60))
    shown = [units[o.index].shows for o in outcomes if isinstance(o, Decoded)]
    assert shown == sorted(shown)
    lost = [units[o.index].shows for o in outcomes if isinstance(o, Lost)]
    assert max(lost) < 10


def test_b_slices_are_told_from_others():
    kinds = [has_b_slice(u.data) for u in encode(20, b_frames=2)]
    assert any(kinds)
    assert not kinds[0]
    assert not any(has_b_slice(u.data) for u in encode(20))
    assert not has_b_slice(b"")
    assert not has_b_slice(b"\0\0\1\x41")


def test_only_the_announcement_changes_and_only_once():
    key = announced_but_unused(1)[0].data
    changed = without_reordering(key)
    assert changed != key
    assert without_reordering(changed) is changed
    pairs = zip(nal_units(key), nal_units(changed), strict=True)
    assert [a[0] & 31 for a, b in pairs if a != b] == [7]


def test_a_stream_that_announces_nothing_is_left_alone():
    for unit in encode(3):
        assert without_reordering(unit.data) is unit.data


@pytest.mark.parametrize("length", range(1, 24))
def test_a_truncated_parameter_set_is_left_alone(length):
    sps = next(nal for nal in nal_units(announced_but_unused(1)[0].data) if nal[0] & 31 == 7)
    cut = b"\0\0\0\1" + sps[:length]
    assert without_reordering(cut)[:8] == cut[:8]
