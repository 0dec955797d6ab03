# SPDX-License-Identifier: Apache-2.0
"""A video or a folder of pictures, imported, plays as the original does."""

from __future__ import annotations

import threading
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from PIL import Image
from rosbags.highlevel import AnyReader

from worldsystem.cli import main
from worldsystem_core.frames import Frame
from worldsystem_ingest.config import IngestConfig
from worldsystem_ingest.source import open_source
from worldsystem_storage.bag_check import verify
from worldsystem_storage.bag_tools import cut

FRAMES = 20


def picture(number: int) -> np.ndarray:
    v, u = np.mgrid[:96, :128]
    return np.stack([2 * u, 2 * v, np.full_like(u, 10 * number)], -1).astype(np.uint8)


def write_video(path: Path, codec: str, **options: str) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        stream.time_base = Fraction(1, 25)
        for number in range(FRAMES):
            frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


class Sink:
    def __init__(self) -> None:
        self.frames: list[Frame] = []

    def frame(self, frame: Frame) -> None:
        self.frames.append(frame)

    def __getattr__(self, name: str):
        return lambda *arguments: None


def played(path: Path) -> list[Frame]:
    sink = Sink()
    assert open_source(str(path), IngestConfig()).run(sink, threading.Event()).broken is None
    return sink.frames


@pytest.mark.parametrize("b_frames", ["0", "2"])
def test_h264_is_kept_bit_for_bit_and_every_picture_and_stamp_is_the_same(
    tmp_path, b_frames, capsys
):
    options = {"preset": "ultrafast", "bf": b_frames, "g": "10"}
    video = write_video(tmp_path / "film.mp4", "libx264", **options)
    assert main(["import", str(video), "--out", str(tmp_path / "bag"), "--focal", "100"]) == 0
    assert f"{FRAMES}  /camera/video" in capsys.readouterr().out
    ours, theirs = played(tmp_path / "bag"), played(video)
    assert [f.stamp_ns for f in ours] == [f.stamp_ns for f in theirs]
    assert all(np.array_equal(a.rgb, b.rgb) for a, b in zip(ours, theirs, strict=True))
    assert ours[0].camera.fx == 100.0
    assert verify(tmp_path / "bag") == []
    cut(tmp_path / "bag", tmp_path / "again")  # sorts by time of recording
    again = played(tmp_path / "again")
    assert all(np.array_equal(a.rgb, b.rgb) for a, b in zip(again, theirs, strict=True))


def test_other_codecs_become_jpeg_with_the_same_stamps(tmp_path):
    video = write_video(tmp_path / "film.avi", "mpeg4", q="2")
    assert main(["import", str(video), "--out", str(tmp_path / "bag")]) == 0
    ours, theirs = played(tmp_path / "bag"), played(video)
    assert [f.stamp_ns for f in ours] == [f.stamp_ns for f in theirs]
    for a, b in zip(ours, theirs, strict=True):
        assert np.abs(a.rgb.astype(int) - b.rgb).mean() < 3


def test_a_video_that_was_cut_off_is_imported_to_the_break_and_says_so(tmp_path, capsys):
    whole = write_video(tmp_path / "film.mp4", "libx264", preset="ultrafast", g="5")
    video = tmp_path / "cut.mp4"
    with (
        av.open(str(whole)) as source,
        av.open(str(video), "w", options={"movflags": "faststart"}) as out,
    ):
        stream = out.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                out.mux(packet)
    content = video.read_bytes()
    video.write_bytes(content[: len(content) * 2 // 3])
    assert main(["import", str(video), "--out", str(tmp_path / "bag")]) == 1
    assert "not all could be read" in capsys.readouterr().err
    assert 3 < len(played(tmp_path / "bag")) < FRAMES


def test_a_video_whose_edit_list_hides_its_beginning_is_imported_as_it_is_shown(tmp_path):
    whole = write_video(tmp_path / "film.mp4", "libx264", preset="ultrafast", g="50")
    video = tmp_path / "cut.mp4"
    uncut = {"avoid_negative_ts": "disabled"}
    with av.open(str(whole)) as source, av.open(str(video), "w", options=uncut) as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.pts -= round(Fraction(6, 25) / packet.time_base)
                packet.dts -= round(Fraction(6, 25) / packet.time_base)
                packet.stream = stream
                out.mux(packet)
    assert main(["import", str(video), "--out", str(tmp_path / "bag")]) == 0
    ours = played(tmp_path / "bag")
    assert len(ours) == FRAMES - 6
    assert [round(f.rgb[..., 2].mean() / 10) for f in ours] == list(range(6, FRAMES))


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp"])
def test_pictures_keep_their_files_and_get_their_stamps(tmp_path, suffix):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(12):
        assert cv2.imwrite(str(folder / f"p{number}{suffix}"), picture(number))
    np.savetxt(folder / "K.txt", [[90, 0, 63.5], [0, 91, 47.5], [0, 0, 1]])
    assert main(["import", str(folder), "--out", str(tmp_path / "bag"), "--fps", "10"]) == 0
    ours, theirs = played(tmp_path / "bag"), played(folder)
    assert [f.stamp_ns for f in ours] == [n * 10**8 for n in range(12)]
    assert all(np.array_equal(a.rgb, b.rgb) for a, b in zip(ours, theirs, strict=True))
    assert ours[3].camera.fy == 91.0
    with AnyReader([tmp_path / "bag"]) as reader:
        stored = [
            bytes(reader.deserialize(raw, c.msgtype).data)
            for c, _, raw in reader.messages()
            if c.topic == "/camera/image/compressed"
        ]
    if suffix != ".bmp":
        assert stored == [(folder / f"p{n}{suffix}").read_bytes() for n in range(12)]


def test_what_is_neither_is_refused_in_one_line(tmp_path, capsys):
    assert main(["import", str(tmp_path), "--out", str(tmp_path / "bag")]) == 2
    (tmp_path / "letter.txt").write_text("dear")
    assert main(["import", str(tmp_path / "letter.txt"), "--out", str(tmp_path / "bag")]) == 2
    assert "not a video" in capsys.readouterr().err


def test_pictures_stamped_by_a_list_of_times_are_no_kitti_sequence(tmp_path):
    (tmp_path / "pictures").mkdir()
    for number in range(4):
        assert cv2.imwrite(str(tmp_path / "pictures" / f"{number}.png"), picture(number))
    times_s = [0.5 * number for number in range(4)]
    (tmp_path / "pictures" / "times.txt").write_text("".join(f"{time}\n" for time in times_s))
    assert main(["import", str(tmp_path / "pictures"), "--out", str(tmp_path / "bag")]) == 0
    stamps_s = [frame.stamp_ns / 1e9 for frame in played(tmp_path / "bag")]
    np.testing.assert_allclose(stamps_s, times_s, atol=1e-9)


def test_photos_that_ask_to_be_turned_are_as_upright_as_in_their_folder(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, orientation in enumerate((6, 1, 3)):
        exif = Image.Exif()
        exif[0x0112] = orientation
        photo = Image.fromarray(picture(number))
        photo.save(folder / f"p{number}.jpg", quality=95, exif=exif)
    assert main(["import", str(folder), "--out", str(tmp_path / "bag")]) == 0
    ours, theirs = played(tmp_path / "bag"), played(folder)
    assert [f.rgb.shape for f in ours] == [(128, 96, 3), (96, 128, 3), (96, 128, 3)]
    for a, b in zip(ours, theirs, strict=True):
        assert np.abs(a.rgb.astype(int) - b.rgb).mean() < 1
