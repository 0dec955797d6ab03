# SPDX-License-Identifier: Apache-2.0
"""The session folder: the very H.264 that came in, playable also after a crash."""

import io
import json
import resource
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from datetime import UTC, datetime
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from av.bitstream import BitStreamFilterContext

from worldsystem_core import whole_file
from worldsystem_core.byte_stream import nal_units
from worldsystem_core.frames import EncodedFrame, Frame
from worldsystem_storage import video_file
from worldsystem_storage.config import StorageConfig
from worldsystem_storage.errors import StorageError
from worldsystem_storage.still_list import STILLS_FILE, StillList
from worldsystem_storage.video_file import VideoSession

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture
def session(tmp_path):
    session = VideoSession(tmp_path, StorageConfig(still_every=3, metadata_every=10), START)
    yield session
    session.close()


def units_of(access_units):
    """The NAL units of these access units."""
    return [unit for data in access_units for unit in nal_units(data)]


def annex_b_of(path):
    """The mp4's access units as Annex-B, and their times [s]."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        to_annex_b = BitStreamFilterContext("h264_mp4toannexb", stream)
        packets = [packet for packet in container.demux(stream) if packet.dts is not None]
        times_s = [float(packet.pts * packet.time_base) for packet in packets]
        units = [bytes(out) for packet in packets for out in to_annex_b.filter(packet)]
    return units, times_s


def test_the_h264_in_the_mp4_is_bit_identical_to_what_came(session, encoded_video):
    frames = encoded_video(45)
    assert all(session.write(frame) for frame in frames)
    session.close()
    stored, times_s = annex_b_of(session.folder / "video.mp4")
    assert b"".join(stored) == b"".join(frame.data for frame in frames)
    expected_s = [(frame.stamp_ns - frames[0].stamp_ns) / 1e9 for frame in frames]
    np.testing.assert_allclose(times_s, expected_s, atol=1 / 90_000)


def test_every_picture_of_the_mp4_decodes(session, encoded_video):
    for frame in encoded_video(25):
        session.write(frame)
    session.close()
    with av.open(str(session.folder / "video.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 25


def test_nothing_is_stored_before_the_first_key_frame(session, encoded_video):
    frames = encoded_video(15)[5:]
    assert [session.write(frame) for frame in frames] == [False] * 5 + [True] * 5
    assert session.dropped == {"before_key_frame": 5}
    assert session.total_frames == 5


def test_a_new_resolution_goes_on_in_another_file(session, encoded_video):
    small, large = encoded_video(12), encoded_video(8, 128, 96, first_id=12)
    for frame in small + large:
        session.write(frame)
    session.close()
    assert [path.name for path in session.videos] == ["video.mp4", "video_2.mp4"]
    for path, frames in zip(session.videos, (small, large), strict=True):
        stored, _ = annex_b_of(path)
        assert units_of(stored) == units_of(f.data for f in frames)


def test_a_stamp_that_goes_back_does_not_stop_the_video(session, encoded_video):
    frames = encoded_video(10)
    for frame in [*frames, frames[3], frames[3]]:
        session.write(frame)
    session.close()
    _, times_s = annex_b_of(session.folder / "video.mp4")
    assert len(times_s) == 12
    assert np.all(np.diff(times_s) > 0)


@pytest.mark.parametrize("step_s", [7 * 3600, -60])
def test_a_second_flight_after_a_step_of_the_clock_goes_on_in_a_file_of_its_own(
    session, encoded_video, step_s
):
    """Longer than an mp4 can step: the same drone flies in the morning and in the afternoon. Or its
    clock is set right by a server of time: an mp4 cannot go back."""
    morning, step_ns = encoded_video(24), step_s * 10**9
    later = [replace(f, id=f.id + 24, stamp_ns=f.stamp_ns + step_ns) for f in morning]
    for frame in [*morning, *later]:
        session.write(frame)
    session.close()
    assert [path.name for path in session.videos] == ["video.mp4", "video_2.mp4"]
    for path in session.videos:
        units, times_s = annex_b_of(path)
        assert len(units) == 24
        expected_s = [(frame.stamp_ns - morning[0].stamp_ns) / 1e9 for frame in morning]
        np.testing.assert_allclose(times_s, expected_s, atol=1 / 90_000)


def test_a_clock_that_is_set_back_a_little_divides_no_video(session, encoded_video):
    frames = encoded_video(24)
    again = [replace(f, id=f.id + 24, stamp_ns=f.stamp_ns + 3 * 10**8) for f in frames]
    assert again[0].stamp_ns < frames[-1].stamp_ns
    assert all(session.write(frame) for frame in [*frames, *again])
    assert [path.name for path in session.videos] == ["video.mp4"]


def test_pictures_coded_out_of_order_keep_their_times(session):
    units = coded_out_of_order(24)
    assert [number for number, *_ in units] != sorted(number for number, *_ in units)
    for number, data, is_key in units:
        stamp_ns = 10**18 + number * 33_333_333
        unit = EncodedFrame(id=number, stamp_ns=stamp_ns, arrival_ns=0, data=data, is_key=is_key)
        assert session.write(unit)
    session.close()
    with av.open(str(session.folder / "video.mp4")) as container:
        pictures = list(container.decode(video=0))
    times_s = [float(picture.pts * picture.time_base) for picture in pictures]
    greys = [picture.to_ndarray(format="gray").mean() for picture in pictures]
    np.testing.assert_allclose(times_s, np.arange(24) / 30, atol=1e-4)
    assert np.all(np.diff(greys) > 0), "pictures lie at the times of others"


def test_out_of_order_though_nothing_tells_so_is_noticed_after_the_first_pictures(
    session, encoded_video
):
    order = [0, 3, 1, 2, 6, 4, 5, 9, 7, 8]
    for frame, number in zip(encoded_video(10), order, strict=True):
        assert session.write(replace(frame, stamp_ns=10**18 + number * 33_333_333))
    session.close()
    _, times_s = annex_b_of(session.folder / "video.mp4")
    np.testing.assert_allclose(times_s[4:], np.array(order[4:]) / 30, atol=1e-4)


def coded_out_of_order(pictures):
    """H.264 with B-frames in coding order, each with its place in time; they grow brighter."""
    container = av.open(io.BytesIO(), "w", format="h264")
    stream = container.add_stream("libx264", rate=30)
    stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
    stream.options = {"x264-params": "bframes=2:b-adapt=0:keyint=12:scenecut=0:repeat-headers=1"}
    packets = []
    for number in range(pictures):
        rgb = np.full((48, 64, 3), 20 + 8 * number, np.uint8)
        picture = av.VideoFrame.from_ndarray(rgb, format="rgb24")
        picture.pts, picture.time_base = number, Fraction(1, 30)
        packets += stream.encode(picture)
    packets += stream.encode(None)
    return [
        (round(packet.pts * packet.time_base * 30), bytes(packet), packet.is_keyframe)
        for packet in packets
    ]


@pytest.mark.parametrize("data", [b"", b"noise", b"\x00\x00\x00\x01\x65abc"])
def test_a_key_frame_without_parameter_sets_is_counted(session, data):
    frame = EncodedFrame(id=0, stamp_ns=0, arrival_ns=0, data=data, is_key=True)
    assert not session.write(frame)
    assert session.dropped == {"key_frame_without_parameters": 1}
    assert session.videos == []


@pytest.mark.parametrize("data", [b"", b"\x00\x00\x01\x67\xff\x00\x00\x01\x68\xff"])
def test_an_unreadable_frame_is_counted_and_the_video_goes_on(session, encoded_video, data):
    frames = encoded_video(20)
    for frame in frames[:5]:
        session.write(frame)
    broken = EncodedFrame(id=5, stamp_ns=0, arrival_ns=0, data=data, is_key=True)
    stored = session.write(broken)
    for frame in frames[10:]:
        session.write(frame)
    session.close()
    assert session.total_frames == 15 + stored
    assert session.dropped.total() == 1 - stored
    assert sum(len(annex_b_of(path)[0]) for path in session.videos) >= 15


def test_every_nth_picture_becomes_a_still_listed_in_the_metadata(session, encoded_video):
    for frame in encoded_video(12):
        session.write(frame)
    red = np.zeros((48, 64, 3), np.uint8)
    red[..., 0] = 200
    for number in range(7):
        session.still(Frame(id=number, stamp_ns=1_000_000_000 * number, rgb=red.copy()))
    session.close()
    content = json.loads((session.folder / "metadata.json").read_text())
    assert session.folder.name == content["session_id"] == "20260102_030405"
    assert content["total_frames"] == 12
    assert [still["frame_number"] for still in content["frames"]] == [0, 3, 6]
    assert content["start_time"] <= content["end_time"]
    for still in content["frames"]:
        blue_green_red = cv2.imread(str(session.folder / still["path"]))
        assert abs(int(blue_green_red[24, 32, 2]) - 200) < 4
    assert content["frames"][1]["timestamp"] == "1970-01-01T00:00:03.000000+00:00"


def test_stills_are_counted_also_when_ids_are_stamps_as_from_another_process(session):
    grey = np.full((6, 8, 3), 90, np.uint8)
    for number in range(7):
        stamp_ns = 1_700_000_000_000_000_001 + number * 33_333_333
        session.still(Frame(id=stamp_ns, stamp_ns=stamp_ns, rgb=grey))
    session.close()
    content = json.loads((session.folder / "metadata.json").read_text())
    listed = {still["frame_number"]: still["path"] for still in content["frames"]}
    assert listed == {number: f"frame_{number}.jpg" for number in (0, 3, 6)}
    assert {path.name for path in session.folder.glob("*.jpg")} == set(listed.values())


def test_a_save_costs_the_same_however_many_stills_there_are_and_the_last_lists_all(
    tmp_path, encoded_video, monkeypatch
):
    saved_bytes, held = [], []

    def replace_text(path, text):
        saved_bytes.append(len(text))
        whole_file.replace_text(path, text)

    monkeypatch.setattr(video_file, "replace_text", replace_text)
    config = StorageConfig(still_every=1, metadata_every=10, reserve_mib=1)
    session = VideoSession(tmp_path, config, START)
    grey = np.full((6, 8, 3), 90, np.uint8)
    frames = encoded_video(20)
    for numbers, filmed in ((range(10), frames[:10]), (range(10, 1000), frames[10:])):
        for number in numbers:
            assert session.still(Frame(id=number, stamp_ns=number, rgb=grey)) is not None
        assert all(session.write(frame) for frame in filmed)
        kept = vars(session).values()
        held.append(sum(len(value) for value in kept if isinstance(value, list | dict)))
    assert saved_bytes[1] == saved_bytes[2], "after 10 stills and 10 pictures, after 1000 and 20"
    assert held[0] == held[1]
    session.close()
    content = json.loads((session.folder / "metadata.json").read_text())
    assert [still["frame_number"] for still in content["frames"]] == list(range(1000))
    assert not (session.folder / STILLS_FILE).exists()


def test_a_still_of_which_the_disk_took_a_part_only_does_not_spoil_the_list(tmp_path):
    """The file size limit stands for a disk that is full in the middle of a line."""
    stills = StillList(tmp_path)
    stills.add({"frame_number": 0})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    most_bytes = (tmp_path / STILLS_FILE).stat().st_size + 5
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, hard))
    try:
        with pytest.raises(OSError, match="No space left"):
            stills.add({"frame_number": 1})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    stills.add({"frame_number": 2})
    content = json.loads(stills.in_full({"session_id": "x"}))
    assert content == {"session_id": "x", "frames": [{"frame_number": 0}, {"frame_number": 2}]}


def test_nothing_is_added_after_close(session, encoded_video):
    frames = encoded_video(12)
    for frame in frames[:10]:
        session.write(frame)
    session.close()
    content = (session.folder / "metadata.json").read_text()
    assert [session.write(frame) for frame in frames[10:]] == [False, False]
    assert session.still(Frame(id=0, stamp_ns=0, rgb=np.zeros((4, 4, 3), np.uint8))) is None
    session.close()
    assert session.dropped == {"closed": 2}
    assert len(session.videos) == 1
    assert (session.folder / "metadata.json").read_text() == content


def test_a_second_session_in_the_same_second_gets_its_own_folder(session, tmp_path):
    other = VideoSession(tmp_path, StorageConfig(), START)
    assert other.folder.name == "20260102_030405_2"
    other.close()


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"cannot make .*file"):
        VideoSession(tmp_path / "file", StorageConfig())


def test_a_killed_recorder_leaves_a_video_that_plays_to_the_last_fragment_and_lists_its_stills(
    tmp_path, encoded_video
):
    frames = encoded_video(200, gop=60)
    (tmp_path / "units.json").write_text(json.dumps([[f.data.hex(), f.is_key] for f in frames]))
    program = textwrap.dedent("""
        import json, sys, time
        from pathlib import Path
        import numpy as np
        from worldsystem_core.frames import EncodedFrame, Frame
        from worldsystem_storage.config import StorageConfig
        from worldsystem_storage.video_file import VideoSession
        root = Path(sys.argv[1])
        session = VideoSession(root / "runs", StorageConfig())
        for n, (data, is_key) in enumerate(json.loads((root / "units.json").read_text())):
            session.write(EncodedFrame(id=n, stamp_ns=n * 33_333_333, arrival_ns=0,
                                       data=bytes.fromhex(data), is_key=is_key))
            session.still(Frame(id=n, stamp_ns=0, rgb=np.zeros((48, 64, 3), np.uint8)))
        print("written", flush=True)
        time.sleep(60)
    """)
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        env={"PYTHONPATH": ":".join(sys.path)},
        stdout=subprocess.PIPE,
    )
    assert process.stdout.readline() == b"written\n"
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    (video,) = (tmp_path / "runs").glob("*/video.mp4")
    stored, _ = annex_b_of(video)
    assert len(stored) >= 200 - 30 * 0.5 - 2, "more than a fragment of half a second is lost"
    assert b"".join(stored) == b"".join(frame.data for frame in frames[: len(stored)])
    content = json.loads((video.parent / "metadata.json").read_text())
    assert content["end_time"] is None
    lines = (video.parent / content["frames_file"]).read_text().splitlines()
    stills = [json.loads(line) for line in lines]
    assert [still["frame_number"] for still in stills] == list(range(0, 200, 30))
    assert all((video.parent / still["path"]).is_file() for still in stills)


@pytest.mark.skipif("libx265" not in av.codecs_available, reason="this PyAV has no libx265")
def test_h265_is_copied_into_the_mp4_too(session):
    context = av.CodecContext.create("libx265", "w")
    context.width, context.height, context.pix_fmt = 128, 96, "yuv420p"
    context.time_base = Fraction(1, 30)
    params = "keyint=10:bframes=0:repeat-headers=1:log-level=none"
    context.options = {"preset": "ultrafast", "x265-params": params}
    packets = []
    for number in range(20):
        rgb = np.full((96, 128, 3), 5 * number, np.uint8)
        picture = av.VideoFrame.from_ndarray(rgb, format="rgb24")
        picture.pts = number
        packets += context.encode(picture)
    packets += context.encode(None)
    units = [(bytes(packet), packet.is_keyframe) for packet in packets]
    for number, (data, is_key) in enumerate(units):
        stamp_ns = number * 33_000_000
        assert session.write(
            EncodedFrame(
                id=number,
                stamp_ns=stamp_ns,
                arrival_ns=stamp_ns,
                data=data,
                is_key=is_key,
                codec="h265",
            )
        )
    session.close()
    with av.open(str(session.folder / "video.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "hevc"
        to_annex_b = BitStreamFilterContext("hevc_mp4toannexb", stream)
        stored = [bytes(o) for p in container.demux(stream) if p.size for o in to_annex_b.filter(p)]
    pictures = [
        [unit for unit in nal_units(b"".join(video)) if unit[0] >> 1 & 0x3F < 32]
        for video in (stored, [data for data, _ in units])
    ]
    assert pictures[0] == pictures[1]
    assert len(pictures[0]) == 20
    with av.open(str(session.folder / "video.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 20


def test_a_video_cut_anywhere_plays_up_to_the_last_whole_fragment(session, encoded_video):
    for frame in encoded_video(90, gop=10):
        session.write(frame)
    session.close()
    whole = (session.folder / "video.mp4").read_bytes()
    cut = session.folder / "cut.mp4"
    counts = []
    for share in np.linspace(0.02, 1.0, 25):
        cut.write_bytes(whole[: int(len(whole) * share)])
        try:
            with av.open(str(cut)) as container:
                counts.append(sum(1 for p in container.demux(video=0) if p.size))
        except av.FFmpegError:
            counts.append(0)
    assert counts == sorted(counts)
    assert counts[-1] == 90
    assert counts[len(counts) // 2] > 30
