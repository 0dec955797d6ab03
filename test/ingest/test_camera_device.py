# SPDX-License-Identifier: Apache-2.0
"""Cameras of this machine, as far as that can be tested without one: a file plays the device."""

from __future__ import annotations

import contextlib
import threading
import time
from fractions import Fraction
from pathlib import Path

import av
import pytest
from ingest_lab import (
    HEIGHT,
    WIDTH,
    MemorySink,
    number_in,
    numbered_picture,
    wait_until,
    write_video,
)

from worldsystem_core.errors import SourceError
from worldsystem_ingest import camera_device
from worldsystem_ingest.camera_device import (
    CameraDevice,
    CaptureRequest,
    capture_ns,
    capture_request,
)
from worldsystem_ingest.config import IngestConfig

SECOND = 10**9


def test_an_address_says_what_is_asked_of_the_camera():
    asked = capture_request("/dev/video2?size=1280X720&fps=29.97&format=MJPG")
    assert asked == CaptureRequest("/dev/video2", "1280x720", 29.97, "mjpeg")
    assert asked.options() == {
        "fflags": "nonblock",
        "timestamps": "default",
        "video_size": "1280x720",
        "framerate": "29.97",
        "input_format": "mjpeg",
    }


def test_without_settings_the_driver_decides():
    assert capture_request("3") == CaptureRequest("/dev/video3")
    assert set(capture_request("3").options()) == {"fflags", "timestamps"}


@pytest.mark.parametrize("name", ["h264", "yuyv", "nv12", "mjpeg"])
def test_ffmpeg_knows_each_pixel_format(name):
    asked = capture_request(f"0?format={name}").format
    codecs, formats = {"h264", "mjpeg", "hevc"}, {"yuyv422", "uyvy422", "nv12", "yuv420p"}
    assert asked in codecs | formats
    if asked in formats:
        assert av.VideoFormat(asked).name == asked


@pytest.mark.parametrize(
    ("query", "what"),
    [
        ("size=big", "size=big is no size.*size=1280x720"),
        ("size=0x720", "size=0x720 is no size"),
        ("fps=fast", "fps=fast is no rate"),
        ("fps=-1", "fps=-1 is no rate"),
        ("format=divx", "format=divx is not known; known: mjpeg"),
        ("szie=1x1", "no setting 'szie'; did you mean size"),
    ],
)
def test_a_setting_that_makes_no_sense_is_an_error(query, what):
    with pytest.raises(SourceError, match=what):
        capture_request(f"0?{query}")


def test_a_missing_camera_is_an_error_that_lists_those_that_are_there(tmp_path, monkeypatch):
    monkeypatch.setattr(camera_device, "_DEVICES", tmp_path)
    with pytest.raises(SourceError, match="no camera 7; cameras of this machine: none"):
        CameraDevice("7", IngestConfig())
    (tmp_path / "video0").touch()
    with pytest.raises(SourceError, match=r"video0 \(unnamed\)"):
        CameraDevice("/dev/video99", IngestConfig())


def test_a_camera_that_is_away_for_long_does_not_fill_the_log(tmp_path, monkeypatch, caplog):
    (tmp_path / "video0").touch()
    monkeypatch.setattr(camera_device, "_DEVICES", tmp_path)

    def away(request: CaptureRequest) -> None:
        raise FileNotFoundError

    monkeypatch.setattr(camera_device, "open_device", away)
    config = IngestConfig(backoff_first_s=0.01, backoff_max_s=0.01, connect_attempts=20)
    with pytest.raises(SourceError, match="given up after 20 tries"):
        CameraDevice("0", config).run(MemorySink(), threading.Event())
    (warning,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert "is not there; was it unplugged?; trying again in" in warning.getMessage()


def test_the_kernels_stamp_becomes_host_time():
    now_ns, monotonic_ns = 1_700_000_000 * SECOND, 5_000 * SECOND
    taken_ns = capture_ns(monotonic_ns - 30_000_000, now_ns, monotonic_ns)
    assert taken_ns == now_ns - 30_000_000
    assert capture_ns(now_ns - 20_000_000, now_ns, monotonic_ns) == now_ns - 20_000_000
    assert capture_ns(123, now_ns, monotonic_ns) == now_ns
    assert capture_ns(monotonic_ns + 5_000_000, now_ns, monotonic_ns) == now_ns


def recording(path: Path, codec: str, count: int = 20) -> Path:
    """Numbered pictures as a camera codes them."""
    if codec != "mjpeg":
        return write_video(path, count, codec=codec)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuvj420p"
        for number in range(count):
            picture = av.VideoFrame.from_ndarray(numbered_picture(number), format="rgb24")
            container.mux(stream.encode(picture.reformat(format="yuvj420p")))
        container.mux(stream.encode(None))
    return path


class Device:
    """Plays a file as a device that cannot always read at once, and may be unplugged."""

    def __init__(self, path: Path, packets: int) -> None:
        self._container = av.open(str(path))
        self.streams = self._container.streams
        self._left = packets
        self._packets = self._container.demux(video=0)
        self._turn = 0

    def demux(self, stream):
        self._turn += 1
        if self._turn % 3 == 0:
            raise av.error.BlockingIOError(11, "Resource temporarily unavailable")
        self._left -= 1
        if self._left < 0:
            raise av.error.OSError(19, "No such device")
        time.sleep(0.005)
        packet = next(self._packets)
        if packet.size:
            packet.pts = (time.monotonic_ns() - 2_000_000) // 1000
            packet.time_base = Fraction(1, 1_000_000)
        yield packet


@contextlib.contextmanager
def running(source: CameraDevice):
    sink, stop, results = MemorySink(), threading.Event(), []

    def run() -> None:
        try:
            results.append(source.run(sink, stop))
        except SourceError as error:
            results.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield sink, results
    finally:
        stop.set()
        thread.join(5.0)
        assert not thread.is_alive()


@pytest.fixture
def plugged(tmp_path, monkeypatch):
    """A device node, and what opening it gives, one after the other."""
    (tmp_path / "video0").touch()
    monkeypatch.setattr(camera_device, "_DEVICES", tmp_path)
    opened: list[object] = []

    @contextlib.contextmanager
    def open_device(request):
        device = opened.pop(0)
        if isinstance(device, BaseException):
            raise device
        yield device

    monkeypatch.setattr(camera_device, "open_device", open_device)
    return opened


QUICK = {"backoff_first_s": 0.05, "backoff_max_s": 0.1}


@pytest.mark.parametrize("codec", ["mjpeg", "libx264"])
def test_a_camera_that_was_unplugged_is_opened_again_and_ids_go_on(tmp_path, plugged, codec):
    path = recording(tmp_path / "camera.mkv", codec)
    plugged += [Device(path, 10), av.error.FileNotFoundError(2, "No such file"), Device(path, 10)]
    plugged += [Device(path, 0)] * 1000
    source, began_ns = CameraDevice("0", IngestConfig(**QUICK)), time.time_ns()
    with running(source) as (sink, _):
        wait_until(lambda: len(sink.settled) >= 20)
        wait_until(lambda: "No such device" in source.problem())
    assert [number_in(f.rgb) for f in sink.frames[:8]] == list(range(8))
    assert sink.settled == list(range(len(sink.settled)))
    stamps = [frame.stamp_ns for frame in sink.frames]
    assert stamps == sorted(set(stamps))
    assert began_ns - 5_000_000 < stamps[0] < stamps[-1] < time.time_ns()
    assert (len(sink.units) > 0) == (codec == "libx264")


def test_a_camera_that_hangs_is_opened_again(plugged):
    class Hanging:
        def __init__(self) -> None:
            self.streams = Device(self.path, 0).streams

        def demux(self, stream):
            raise av.error.BlockingIOError(11, "Resource temporarily unavailable")

    Hanging.path = recording(camera_device._DEVICES / "camera.mkv", "mjpeg", 2)
    plugged += [Hanging() for _ in range(20)]
    source = CameraDevice("0", IngestConfig(stall_s=0.2, **QUICK))
    with running(source) as _:
        wait_until(lambda: "no picture for 0.2 s" in source.problem())
        wait_until(lambda: len(plugged) < 17)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (av.error.PermissionError(13, "Permission denied"), "add this user to the group 'video'"),
        (av.error.OSError(16, "Device or resource busy"), "another program uses it"),
        (av.error.ArgumentError(22, "Invalid argument"), "may not offer 9x9"),
        (av.error.FileNotFoundError(2, "No such file"), "was it unplugged"),
    ],
)
def test_a_camera_that_cannot_be_opened_is_explained(plugged, error, said):
    plugged.append(error)
    source = CameraDevice("0?size=9x9", IngestConfig(connect_attempts=1, **QUICK))
    with pytest.raises(SourceError, match=said):
        source.run(MemorySink(), threading.Event())
