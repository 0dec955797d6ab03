# SPDX-License-Identifier: Apache-2.0
"""H.265 is passed through and decoded like H.264."""

from __future__ import annotations

import threading
from pathlib import Path

import av
import numpy as np
import pytest
from coding_lab import AccessUnit, Coding, coded, decode, losses_in, moving_scene, pictures_in
from ingest_lab import MemorySink

from worldsystem_core.byte_stream import joined, nal_units
from worldsystem_core.frames import EncodedFrame
from worldsystem_ingest.codec import h265
from worldsystem_ingest.codec.decoder import DecoderSettings
from worldsystem_ingest.codec.entry import Entry
from worldsystem_ingest.codec.live_decoding import LiveDecoding
from worldsystem_ingest.config import IngestConfig
from worldsystem_ingest.files.video_file import VideoFile

H265 = Coding(codec="h265")
LIVE = DecoderSettings(codec="h265", low_delay=True)


def without(unit: AccessUnit, *kinds: int) -> AccessUnit:
    kept = [nal for nal in nal_units(unit.data) if nal[0] >> 1 & 0x3F not in kinds]
    return AccessUnit(joined(kept), unit.is_key, unit.shows)


def test_key_frames_and_parameter_sets_are_told_from_others():
    units = coded(moving_scene(20), H265)
    entries = [h265.entry_of(unit.data) for unit in units]
    assert [n for n, entry in enumerate(entries) if entry is Entry.KEY] == [0, 10]
    assert {32, 33, 34} <= h265.nal_types(units[0].data)
    sets = h265.ParameterSets()
    sets.take(units[3].data)
    assert not sets.complete
    sets.take(units[0].data)
    assert sets.complete
    assert [nal[0] >> 1 for nal in nal_units(sets.annexb())] == [32, 33, 34]


@pytest.mark.parametrize("length", [0, 1, 2, 3, 8, 14, 20])
def test_a_cut_off_parameter_set_does_no_harm(length):
    key = coded(moving_scene(1), H265)[0]
    sps = next(nal for nal in nal_units(key.data) if nal[0] >> 1 == h265.SPS)
    sets = h265.ParameterSets()
    sets.take(sps[:length])
    assert not sets.complete


def test_each_picture_comes_out_of_the_call_that_its_unit_went_into():
    scene = moving_scene(20)
    outcomes = decode(coded(scene, H265), LIVE)
    assert [o.index for o in outcomes] == list(range(20))
    for index, shown in enumerate(outcomes):
        apart = [np.abs(shown.rgb.astype(int) - picture).mean() for picture in scene]
        assert int(np.argmin(apart)) == index


def test_it_begins_at_a_key_frame_and_asks_for_parameter_sets():
    units = coded(moving_scene(30), H265)
    assert losses_in(decode(units[5:], LIVE)) == dict.fromkeys(range(5), "no_key_frame")
    bare = [without(unit, h265.VPS, h265.SPS, h265.PPS) for unit in units[:10]]
    assert losses_in(decode(bare + units[10:], LIVE)) == dict.fromkeys(
        range(10), "no_parameter_sets"
    )


def test_pictures_before_an_open_key_frame_are_lost_when_decoding_begins_there():
    coding = Coding(codec="h265", b_frames=3, params="open-gop=1")
    units = coded(moving_scene(40), coding)
    clean = pictures_in(decode(units, DecoderSettings(codec="h265")))
    leading = [n for n, unit in enumerate(units) if h265.leads_key_frame(unit.data)]
    first = next(n for n, unit in enumerate(units) if n and unit.is_key)
    assert leading
    assert len(clean) == 40
    outcomes = decode(units[first:], DecoderSettings(codec="h265"), first=first)
    lost = losses_in(outcomes)
    assert lost == {n: "no_key_frame" for n in leading if first < n < first + 5}
    for index, rgb in pictures_in(outcomes).items():
        np.testing.assert_array_equal(rgb, clean[index])


@pytest.mark.parametrize("container", ["mp4", "mkv", "ts"])
def test_a_file_is_passed_through_in_annex_b_and_decoded(tmp_path: Path, container: str):
    path = tmp_path / f"video.{container}"
    coded(moving_scene(1), H265)  # skips where there is no encoder
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx265", rate=30)
        stream.width, stream.height, stream.pix_fmt = 160, 96, "yuv420p"
        stream.options = {"preset": "ultrafast", "x265-params": "keyint=10:log-level=none"}
        for picture in moving_scene(25):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        out.mux(stream.encode(None))
    sink = MemorySink()
    assert VideoFile(path, IngestConfig()).run(sink, threading.Event()).frames == 25
    assert sink.ids == list(range(25))
    assert {unit.codec for unit in sink.units} == {"h265"}
    for unit in sink.units:
        assert unit.data.startswith((b"\0\0\0\1", b"\0\0\1"))
        assert not unit.is_key or {32, 33, 34} <= h265.nal_types(unit.data)


def test_a_stream_may_change_its_codec():
    sink, reasons = MemorySink(), []
    decoding = LiveDecoding(sink, IngestConfig(), lambda: None, reasons.append)
    units = [
        *((unit, "h264") for unit in coded(moving_scene(10), Coding())),
        *((unit, "h265") for unit in coded(moving_scene(10), H265)),
    ]
    for number, (unit, codec) in enumerate(units):
        frame = EncodedFrame(
            id=number,
            stamp_ns=number,
            arrival_ns=0,
            data=unit.data,
            is_key=unit.is_key,
            codec=codec,
        )
        decoding.put(frame, False)
    stop = threading.Event()
    thread = threading.Thread(target=decoding.run, args=(stop,))
    thread.start()
    sink.wait_settled(20)
    stop.set()
    thread.join(5.0)
    decoding.close()
    assert sink.ids == list(range(20))
    assert reasons == []
