# SPDX-License-Identifier: Apache-2.0
"""Files and folders as sources: every picture, its number, its stamp, and how they break."""

from __future__ import annotations

import threading
import time

import av
import cv2
import numpy as np
import pytest
from ingest_lab import HEIGHT, WIDTH, MemorySink, encode, number_in, numbered_picture, write_video

from worldsystem_core.errors import SourceError
from worldsystem_ingest.codec.h264 import nal_types
from worldsystem_ingest.config import IngestConfig
from worldsystem_ingest.files.delivery import Delivery, camera_with_focal
from worldsystem_ingest.sink import Summary
from worldsystem_ingest.source import open_source


def played(path, **settings) -> tuple[MemorySink, Summary]:
    sink = MemorySink()
    summary = open_source(str(path), IngestConfig(**settings)).run(sink, threading.Event())
    return sink, summary


def access_units_by_ffmpeg(path) -> list[bytes]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        annexb = av.bitstream.BitStreamFilterContext("h264_mp4toannexb", stream)
        packets = [p for p in container.demux(stream) if p.size]
        return [bytes(unit) for packet in packets for unit in annexb.filter(packet)]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
def test_every_picture_of_a_file_comes_in_order_with_its_stamp(tmp_path, suffix):
    path = write_video(tmp_path / f"video{suffix}", 40)
    sink, summary = played(path)
    assert summary == Summary(frames=40, broken=None)
    assert sink.ids == list(range(40))
    assert not sink.drops
    assert [number_in(f.rgb) for f in sink.frames] == list(range(40))
    stamps_s = np.array([f.stamp_ns for f in sink.frames]) * 1e-9
    # Matroska rounds to milliseconds, MPEG-TS to 1/90000 s
    np.testing.assert_allclose(stamps_s - stamps_s[0], np.arange(40) / 25, atol=1.1e-3)


def test_access_units_are_passed_on_unchanged_before_their_pictures(tmp_path):
    path = write_video(tmp_path / "video.mp4", 40)
    sink, _ = played(path)
    assert [u.data for u in sink.units] == access_units_by_ffmpeg(path)
    assert all({7, 8} <= nal_types(u.data) for u in sink.units if u.is_key)


def test_ids_of_a_stream_with_b_frames_belong_to_the_same_picture(tmp_path):
    path = write_video(tmp_path / "video.mp4", 40)  # x264's default has B-frames
    sink, _ = played(path)
    coding_order = [u.id for u in sink.units]
    assert coding_order != sorted(coding_order)
    assert sorted(coding_order) == list(range(40))
    stamp_of = {f.id: f.stamp_ns for f in sink.frames}
    assert all(stamp_of[u.id] == u.stamp_ns for u in sink.units)
    with av.open(str(path)) as container:
        pts = [p.pts for p in container.demux(video=0) if p.size]
    assert coding_order == list(np.argsort(np.argsort(pts)))


@pytest.mark.parametrize("b_frames", [0, 2])
def test_raw_h264_is_numbered_as_shown_and_stamped_by_its_rate(tmp_path, b_frames):
    units = encode(30, b_frames=b_frames)
    path = tmp_path / "video.h264"
    path.write_bytes(b"".join(u.data for u in units))
    sink, summary = played(path, fps=10.0)
    assert summary.frames == 30
    assert summary.broken is None
    assert [number_in(f.rgb) for f in sink.frames] == list(range(30)) == sink.ids
    assert [f.stamp_ns for f in sink.frames] == [round(n * 1e9 / 30) for n in range(30)]
    assert [u.id for u in sink.units] == [u.shows for u in units]
    assert b"".join(u.data for u in sink.units) == path.read_bytes()


def test_a_codec_other_than_h264_gives_pictures_only(tmp_path):
    sink, summary = played(write_video(tmp_path / "video.avi", 20, codec="mpeg4"))
    assert summary.frames == 20
    assert not sink.units
    assert [number_in(f.rgb) for f in sink.frames] == list(range(20))


def test_the_karma_recording_is_complete_and_its_access_units_identical(karma_mp4):
    sink, summary = played(karma_mp4)
    assert summary == Summary(frames=362, broken=None)
    assert not sink.drops
    assert [u.data for u in sink.units] == access_units_by_ffmpeg(karma_mp4)
    assert sink.ids == list(range(362))


def test_a_truncated_mp4_is_played_to_the_break(tmp_path):
    path = write_video(tmp_path / "video.mp4", 60, movflags="faststart")
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    sink, summary = played(path)
    assert 10 < summary.frames < 60
    assert summary.broken
    assert "ends early at frame" in summary.broken
    assert "60" in summary.broken
    # pictures are coded before the B-frames shown ahead of them, so the last may follow a hole
    shown_ns = [number_in(f.rgb) * 40_000_000 for f in sink.frames]
    assert shown_ns == [f.stamp_ns for f in sink.frames]
    assert sink.settled == list(range(len(sink.settled)))


def test_a_truncated_matroska_is_played_to_the_break(tmp_path):
    path = write_video(tmp_path / "video.mkv", 100)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    _sink, summary = played(path)
    assert 10 < summary.frames < 100
    assert "ends early at frame" in (summary.broken or "")


@pytest.mark.parametrize("cut", [5, 200, 1000])
def test_a_truncated_raw_stream_is_played_to_the_break(tmp_path, cut):
    units = encode(30)
    raw = b"".join(u.data for u in units)
    path = tmp_path / "video.h264"
    path.write_bytes(raw[:-cut])
    sink, summary = played(path)
    assert 0 < summary.frames < 30
    assert "ends early at frame" in (summary.broken or "")
    assert [number_in(f.rgb) for f in sink.frames] == sink.ids


def test_a_corrupt_picture_in_the_middle_is_dropped_until_the_next_key_frame(tmp_path):
    units = encode(40)
    broken = units[13].data[:8] + bytes(range(256))
    path = tmp_path / "video.h264"
    path.write_bytes(b"".join(broken if u.shows == 13 else u.data for u in units))
    sink, summary = played(path)
    assert sink.settled == list(range(40))
    assert summary.broken is None
    assert dict(sink.drops) == {13: "corrupt"} | dict.fromkeys(range(14, 20), "no_key_frame")


def test_an_mp4_without_its_index_is_an_error_that_says_so(tmp_path):
    path = write_video(tmp_path / "video.mp4", 20)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(SourceError, match="index is missing"):
        open_source(str(path), IngestConfig())


def test_the_focal_length_gives_the_camera(tmp_path):
    sink, _ = played(write_video(tmp_path / "video.mp4", 5), focal_px=200.0, stream="left")
    (camera, stream), *more = sink.cameras
    assert not more
    assert stream == "left"
    assert camera.fx == 200.0
    assert camera.cx == (WIDTH - 1) / 2
    assert sink.frames[0].camera == camera
    assert sink.frames[0].stream == "left"


def test_the_focal_length_follows_a_change_of_resolution():
    sink = MemorySink()
    delivery = Delivery(sink, "left", camera_with_focal(1400.0))
    for width, height in ((1920, 1080), (1280, 720), (1080, 1920)):
        delivery.picture(np.zeros((height, width, 3), np.uint8), None)
    assert [camera.fx for camera, _ in sink.cameras] == pytest.approx([1400.0, 2800.0 / 3, 1400.0])
    assert [camera.cy for camera, _ in sink.cameras] == [539.5, 359.5, 959.5]


def test_realtime_keeps_the_pace_and_stamps_in_host_time(tmp_path):
    path = write_video(tmp_path / "video.mp4", 15)
    begin_ns = time.time_ns()
    sink, _ = played(path, realtime=True)
    assert time.time_ns() - begin_ns >= 14 / 25 * 1e9
    assert begin_ns <= sink.frames[0].stamp_ns <= time.time_ns()


def test_stop_ends_a_file_at_once(tmp_path):
    path, stop = write_video(tmp_path / "video.mp4", 60), threading.Event()
    sink = MemorySink(on_frame=lambda frame: stop.set() if frame.id == 5 else None)
    summary = open_source(str(path), IngestConfig()).run(sink, stop)
    assert summary.broken is None
    assert 6 <= summary.frames < 20
    assert len(sink.settled) == len(set(sink.settled))


def test_images_come_in_natural_order_with_the_camera_beside_them(tmp_path):
    folder = tmp_path / "rgb"
    folder.mkdir()
    for number in range(12):
        bgr = cv2.cvtColor(numbered_picture(number), cv2.COLOR_RGB2BGR)
        cv2.imwrite(str(folder / f"frame{number}.png"), bgr)
    np.savetxt(tmp_path / "K.txt", [[150, 0, 80], [0, 151, 48], [0, 0, 1]])
    sink, summary = played(folder, fps=5.0)
    assert summary.frames == 12
    assert [number_in(f.rgb) for f in sink.frames] == list(range(12))
    assert sink.frames[3].stamp_ns == 600_000_000
    assert sink.frames[0].camera.fy == 151
    assert sink.frames[0].camera.width == WIDTH
    np.testing.assert_array_equal(sink.frames[7].rgb, numbered_picture(7))


def test_an_unreadable_image_is_dropped_as_corrupt(tmp_path):
    for number in range(3):
        cv2.imwrite(str(tmp_path / f"{number}.png"), numbered_picture(number))
    (tmp_path / "1.png").write_bytes(b"no image")
    sink, summary = played(tmp_path)
    assert summary.frames == 2
    assert sink.ids == [0, 2]
    assert sink.drops == [(1, "corrupt")]


def test_pictures_cannot_be_written_to(tmp_path):
    sink, _ = played(write_video(tmp_path / "video.mp4", 2))
    assert sink.frames[0].rgb.shape == (HEIGHT, WIDTH, 3)
    with pytest.raises(ValueError, match="read-only"):
        sink.frames[0].rgb[0] = 0
