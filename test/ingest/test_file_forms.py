# SPDX-License-Identifier: Apache-2.0
"""Forms that video files have in the field: turned, dated, unevenly timed, still being written."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
from conftest import shared_data
from ingest_lab import HEIGHT, WIDTH, MemorySink, number_in, numbered_picture, write_video

from worldsystem_core.errors import SourceError
from worldsystem_ingest.config import IngestConfig
from worldsystem_ingest.files.video_file import VideoFile, rate_of, recording_time
from worldsystem_ingest.sink import OUTSIDE


def played(path: Path, **settings) -> tuple[MemorySink, VideoFile]:
    source, sink = VideoFile(path, IngestConfig(**settings)), MemorySink()
    source.run(sink, threading.Event())
    return sink, source


def write_turned(path: Path, degrees: int, codec: str = "libx264", count: int = 12) -> Path:
    """Numbered pictures, to be shown turned counter-clockwise."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.set_display_rotation(degrees)
        for number in range(count):
            picture = av.VideoFrame.from_ndarray(numbered_picture(number), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_pictures_of_a_camera_held_sideways_are_upright(tmp_path, codec, degrees):
    path = write_turned(tmp_path / "phone.mp4", degrees, codec)
    sink, source = played(path, focal_px=120.0)
    quarters = degrees // 90
    unturned = [np.rot90(frame.rgb, -quarters) for frame in sink.frames]
    assert [number_in(rgb) for rgb in unturned] == list(range(12))
    height, width = (HEIGHT, WIDTH) if quarters == 2 else (WIDTH, HEIGHT)
    camera = sink.frames[0].camera
    assert sink.frames[0].rgb.shape == (height, width, 3)
    assert (camera.width, camera.height) == (width, height)
    assert (camera.cx, camera.cy) == ((width - 1) / 2, (height - 1) / 2)
    assert source.facts()["turned"] == f"{degrees} degrees counter-clockwise"


def test_a_file_whose_display_matrix_is_all_zeros_plays_unturned(tmp_path):
    path = write_video(tmp_path / "video.mp4", 12)
    data = bytearray(path.read_bytes())
    header = data.rindex(b"tkhd") + 4  # version and flags, times, id, duration, 16 bytes, matrix
    matrix = header + 4 + (32 if data[header] else 20) + 16
    assert int.from_bytes(data[matrix : matrix + 4], "big") == 1 << 16  # of no turn
    data[matrix : matrix + 36] = bytes(36)
    path.write_bytes(data)
    sink, source = played(path)
    assert [number_in(frame.rgb) for frame in sink.frames] == list(range(12))
    assert "turned" not in source.facts()


@pytest.mark.parametrize("suffix", [".avi", ".mkv", ".mp4", ".ts"])
def test_a_title_in_another_encoding_than_utf_8_does_not_matter(tmp_path, suffix):
    path = titled(tmp_path / f"video{suffix}")
    sink, _ = played(path)
    assert [number_in(frame.rgb) for frame in sink.frames] == list(range(5))


def written(path: Path, count: int, codec: str, **metadata: str) -> Path:
    """So many numbered pictures."""
    with av.open(str(path), "w") as container:
        container.metadata.update(metadata)
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number in range(count):
            picture = av.VideoFrame.from_ndarray(numbered_picture(number), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


def titled(path: Path) -> Path:
    """Numbered pictures under a title in Latin-1."""
    written(path, 5, "mpeg4", title="Stra_e", service_name="Stra_e")
    body = path.read_bytes()
    assert b"Stra_e" in body
    path.write_bytes(body.replace(b"Stra_e", "Straße".encode("latin-1")))
    return path


def test_a_codec_without_a_decoder_is_an_error_that_says_so(tmp_path):
    path = titled(tmp_path / "video.avi")
    path.write_bytes(path.read_bytes().replace(b"FMP4", b"ZQ9Z"))
    with pytest.raises(SourceError, match="FFmpeg cannot decode"):
        VideoFile(path, IngestConfig())


def test_a_turn_leaves_the_encoded_units_alone(tmp_path):
    turned, _ = played(write_turned(tmp_path / "turned.mp4", 90))
    straight, _ = played(write_turned(tmp_path / "straight.mp4", 0))
    assert [u.data for u in turned.units] == [u.data for u in straight.units]
    assert len(turned.units) == 12


def dated(path: Path, moment: str) -> Path:
    return written(path, 3, "libx264", creation_time=moment)


def test_stamps_begin_at_zero_unless_the_time_of_recording_is_asked_for(tmp_path):
    path = dated(tmp_path / "dated.mp4", "2023-05-06T07:08:09.000000Z")
    began_ns = int(datetime(2023, 5, 6, 7, 8, 9, tzinfo=UTC).timestamp()) * 10**9
    for settings, start_ns in (({}, 0), ({"file_time": "recorded"}, began_ns)):
        sink, source = played(path, **settings)
        assert [f.stamp_ns - start_ns for f in sink.frames] == [0, 40_000_000, 80_000_000]
        assert source.facts()["recorded"] == "2023-05-06T07:08:09+00:00"


@pytest.mark.parametrize("moment", ["1970-01-01T00:00:00Z", "2199-01-01T00:00:00Z"])
def test_a_clock_that_was_never_set_is_no_time_of_recording(tmp_path, moment):
    path = dated(tmp_path / "dated.mp4", moment)
    assert len(played(path)[0].frames) == 3
    with pytest.raises(SourceError, match="does not say when it was recorded; set `file_time`"):
        VideoFile(path, IngestConfig(file_time="recorded"))


def test_a_time_of_recording_with_a_zone_of_its_own_is_kept():
    metadata = {"com.apple.quicktime.creationdate": "2024-01-02T03:04:05+0200"}
    assert recording_time(metadata) == datetime(2024, 1, 2, 1, 4, 5, tzinfo=UTC)
    assert recording_time({"creation_time": "yesterday"}) is None


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_uneven_stamps_are_kept(tmp_path, suffix):
    at_ms = [0, 33, 66, 100, 400, 420, 1000, 1033, 1500, 3000]
    path = tmp_path / f"video{suffix}"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=1000)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for number, pts in enumerate(at_ms):
            picture = av.VideoFrame.from_ndarray(numbered_picture(number), format="rgb24")
            picture.pts, picture.time_base = pts, Fraction(1, 1000)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    sink, _ = played(path)
    np.testing.assert_allclose([f.stamp_ns / 1e6 for f in sink.frames], at_ms, atol=0.01)
    assert [number_in(f.rgb) for f in sink.frames] == list(range(10))


def test_stamps_that_begin_again_go_on_where_they_were(tmp_path):
    """As where `cat` put two recordings together; x264's default has B pictures."""
    part = write_video(tmp_path / "part.ts", 40)
    joined = tmp_path / "joined.ts"
    joined.write_bytes(part.read_bytes() * 2)
    sink, source = played(joined)
    assert [number_in(f.rgb) for f in sink.frames] == [*range(40)] * 2
    steps_ns = np.diff([f.stamp_ns for f in sink.frames])
    np.testing.assert_allclose(steps_ns, 40e6, atol=2e4)  # MPEG-TS counts steps of 11 us
    stamp_of = {f.id: f.stamp_ns for f in sink.frames}
    assert all(stamp_of[unit.id] == unit.stamp_ns for unit in sink.units)
    assert source.problem() == ""


FRAGMENTS = {"movflags": "frag_keyframe+empty_moov"}


@pytest.mark.parametrize(
    ("name", "options"), [("video.mp4", FRAGMENTS), ("video.mkv", {}), ("video.ts", {})]
)
@pytest.mark.parametrize("share", [0.5, 0.83])
def test_a_file_that_is_still_being_written_plays_to_where_it_is_now(
    tmp_path, name, options, share
):
    path = write_video(tmp_path / name, 100, **options)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    sink, _ = played(path)
    assert 100 * share - 25 < len(sink.frames) < 100
    assert [number_in(f.rgb) for f in sink.frames] == [
        round(f.stamp_ns / 40e6) for f in sink.frames
    ]
    assert sink.settled == list(range(len(sink.settled)))


def test_a_whole_fragmented_file_is_not_broken(tmp_path):
    path = write_video(tmp_path / "video.mp4", 40, **FRAGMENTS)
    source, sink = VideoFile(path, IngestConfig()), MemorySink()
    assert source.run(sink, threading.Event()).broken is None
    assert len(sink.frames) == 40


def test_the_position_and_the_break_show_while_and_after_playing(tmp_path):
    path = write_video(tmp_path / "video.mp4", 50, movflags="faststart")
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    seen = []
    source = VideoFile(path, IngestConfig())
    sink = MemorySink(on_frame=lambda frame: seen.append(source.facts()["position"]))
    assert source.problem() == ""
    source.run(sink, threading.Event())
    assert seen[5].endswith("of 2.0 s")
    assert 0 <= float(seen[0].split()[0]) < float(seen[-1].split()[0]) < 2.0
    assert "ends early" in source.problem()


REAL_VIDEOS = [
    ("gopro_karma_drone/karma.mp4", (480, 854), 30000 / 1001),
    ("gopro_hero7_walk/hero7.mp4", (480, 848), 30000 / 1001),
    ("h264_annexb_static/VIDEO-0x0001-0x00e0.h264", (1080, 1920), 25.0),
]


@pytest.mark.parametrize(("name", "size", "rate_hz"), REAL_VIDEOS)
def test_a_real_recording_plays_at_its_rate(name, size, rate_hz):
    path = shared_data() / name
    if not path.is_file():
        pytest.skip(f"{path} is not here; set WORLDSYSTEM_DATA to the folder of recordings")
    stop = threading.Event()
    sink = MemorySink(on_frame=lambda frame: stop.set() if frame.id == 59 else None)
    VideoFile(path, IngestConfig(fps=25.0)).run(sink, stop)
    assert sink.ids[:60] == list(range(60))
    assert sink.frames[0].rgb.shape == (*size, 3)
    np.testing.assert_allclose(np.diff([f.stamp_ns for f in sink.frames]), 1e9 / rate_hz, rtol=1e-3)
    assert all(frame.rgb.std() > 10 for frame in sink.frames)
    assert [unit.id for unit in sink.units[:60]] == sink.ids[:60]


def test_raw_h265_is_stamped_by_the_rate_that_its_codec_tells(tmp_path):
    path = write_video(tmp_path / "video.h265", 20, codec="libx265")
    sink, source = played(path, fps=10.0)
    assert sorted(number_in(f.rgb) for f in sink.frames) == list(range(20))
    assert sink.ids == list(range(20))
    assert [f.stamp_ns for f in sink.frames] == [n * 40_000_000 for n in range(20)]
    assert {unit.codec for unit in sink.units} == {"h265"}
    assert source.facts()["video"] == f"hevc {WIDTH}x{HEIGHT}"


def test_a_file_that_is_named_by_the_time_of_day_is_a_file(tmp_path, monkeypatch):
    name = "2026-01-02T12:30:00.mp4"
    write_video(tmp_path / name, 5)
    monkeypatch.chdir(tmp_path)
    sink, _ = played(Path(name))
    assert [number_in(frame.rgb) for frame in sink.frames] == list(range(5))


def write_cut(path: Path, whole: Path, first: int) -> Path:
    """The packets of a video at 25 fps as they are; an edit list hides those before `first`.

    That is what `ffmpeg -ss … -c copy` makes of an MP4.
    """
    uncut = {"avoid_negative_ts": "disabled"}
    with av.open(str(whole)) as source, av.open(str(path), "w", options=uncut) as container:
        stream = source.streams.video[0]
        copy = container.add_stream_from_template(stream)
        shift = round(Fraction(first, 25) / stream.time_base)
        for packet in source.demux(stream):
            if packet.size:
                packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
                packet.stream = copy
                container.mux(packet)
    return path


def test_what_an_edit_list_cut_away_at_the_start_is_decoded_and_not_shown(tmp_path):
    path = write_cut(tmp_path / "cut.mp4", write_video(tmp_path / "whole.mp4", 12), first=4)
    sink, source = played(path)
    assert [number_in(frame.rgb) for frame in sink.frames] == list(range(4, 12))
    assert [round(frame.stamp_ns * 1e-6) for frame in sink.frames] == [40 * n for n in range(8)]
    assert sink.drops == [(n, OUTSIDE) for n in range(4)]
    assert sink.units == []  # a record of them would show what is hidden when it is played again
    assert source.facts()["cut away"] == "4 pictures, by its edit list"
    assert source.problem() == ""


def test_a_film_from_which_nothing_is_cut_away_passes_its_units_on(tmp_path):
    sink, source = played(write_video(tmp_path / "whole.mp4", 12))
    assert "cut away" not in source.facts()
    assert len(sink.units) == len(sink.frames) == 12


@pytest.mark.parametrize("shown", [5, 8])
def test_an_mp4_cut_at_its_end_by_an_edit_list_does_not_end_early(tmp_path, shown):
    path = write_video(tmp_path / "whole.mp4", 30)
    data = bytearray(path.read_bytes())
    entry = data.rindex(b"elst") + 12  # version and flags, count, then the length in ms
    assert int.from_bytes(data[entry : entry + 4], "big") == 30 * 40
    data[entry : entry + 4] = (shown * 40).to_bytes(4, "big")
    path.write_bytes(data)
    sink, source = played(path)
    assert [number_in(frame.rgb) for frame in sink.frames] == list(range(shown))
    assert source.problem() == ""


@pytest.mark.parametrize(
    ("container", "told_hz", "used_hz"),
    [("hevc", None, 10.0), ("h264", None, 10.0), ("h264", 30, 30.0), ("matroska", None, 25.0)],
)
def test_what_a_raw_streams_container_says_of_its_rate_is_invented(container, told_hz, used_hz):
    stream = SimpleNamespace(
        container=SimpleNamespace(format=SimpleNamespace(name=container)),
        codec_context=SimpleNamespace(framerate=told_hz),
        average_rate=25,
    )
    assert rate_of(stream, 10.0) == used_hz
