# SPDX-License-Identifier: Apache-2.0
"""A camera of this machine (Video4Linux), opened again after it was unplugged."""

from __future__ import annotations

import difflib
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import parse_qsl

import av

from worldsystem_core.errors import SourceError
from worldsystem_ingest.config import IngestConfig
from worldsystem_ingest.files.delivery import Delivery, camera_with_focal
from worldsystem_ingest.files.packets import PacketReader, packet_reader
from worldsystem_ingest.files.video_file import rate_of
from worldsystem_ingest.sink import Sink, Summary
from worldsystem_ingest.url.backoff import Backoff, SparseWarnings

_log = logging.getLogger(__name__)
_DEVICES = Path("/dev")
_DEVICE_NAMES = Path("/sys/class/video4linux")
# what people write -> what FFmpeg calls it
_FORMATS = {
    "mjpeg": "mjpeg",
    "mjpg": "mjpeg",
    "h264": "h264",
    "hevc": "hevc",
    "h265": "hevc",
    "yuyv": "yuyv422",
    "yuyv422": "yuyv422",
    "uyvy": "uyvy422",
    "uyvy422": "uyvy422",
    "nv12": "nv12",
    "yuv420p": "yuv420p",
    "rgb24": "rgb24",
    "bgr24": "bgr24",
    "grey": "gray",
    "gray": "gray",
}
_SETTINGS = ("size", "fps", "format")
_POLL_S = 0.002
_PLAUSIBLE_NS = 10 * 10**9


@dataclass(frozen=True)
class CaptureRequest:
    """A device, and what it is asked for; empty or 0: as the driver has it."""

    device: str
    size: str = ""
    fps: float = 0.0
    format: str = ""

    def options(self) -> dict[str, str]:
        """FFmpeg's options. Reading does not wait, so that a camera that hangs can be left."""
        options = {"fflags": "nonblock", "timestamps": "default"}
        if self.size:
            options["video_size"] = self.size
        if self.fps:
            options["framerate"] = f"{self.fps:g}"
        if self.format:
            options["input_format"] = self.format
        return options


def capture_request(address: str) -> CaptureRequest:
    """Read `0`, `/dev/video0` or `/dev/video0?size=1280x720&fps=30&format=mjpeg`.

    Raises `SourceError` for settings that are not known or make no sense.
    """
    name, _, query = address.partition("?")
    given = dict(parse_qsl(query, keep_blank_values=True))
    for setting in given:
        if setting not in _SETTINGS:
            near = difflib.get_close_matches(setting, _SETTINGS, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise SourceError(
                f"a camera has no setting '{setting}'{hint}; known: {', '.join(_SETTINGS)}"
            )
    return CaptureRequest(
        device=f"{_DEVICES}/video{name}" if name.isdecimal() else name,
        size=_size(given.get("size", "")),
        fps=_rate(given.get("fps", "")),
        format=_format(given.get("format", "")),
    )


def cameras() -> list[str]:
    """The cameras of this machine, as `/dev/videoN (name)`."""
    found = sorted(_DEVICES.glob("video*"), key=lambda path: (len(path.name), path.name))
    return [f"{path} ({_device_name(path)})" for path in found]


def capture_ns(kernel_ns: int, arrival_ns: int, monotonic_ns: int) -> int:
    """When a picture was taken, in host time, from the stamp that the kernel gave its buffer.

    Drivers stamp by the monotonic clock, some by the time of day; `monotonic_ns` is the former at
    `arrival_ns` of the latter. Any other stamp is replaced by the arrival.
    """
    for clock_ns in (monotonic_ns, arrival_ns):
        age_ns = clock_ns - kernel_ns
        if -_PLAUSIBLE_NS < age_ns < _PLAUSIBLE_NS:
            return arrival_ns - max(0, age_ns)
    return arrival_ns


class CameraDevice:
    """A Video4Linux camera; stamps are those of the kernel's buffers in host time.

    Cameras that deliver H.264 are passed through. A camera that is unplugged, or silent for
    `stall_s`, is opened again, as often as `connect_attempts` allows.
    """

    live = True

    def __init__(self, address: str, config: IngestConfig) -> None:
        self._request = capture_request(address)
        self._config = config
        self._warnings = SparseWarnings(_log)
        self._state = "not opened yet"
        self._since = _now()
        self._attempts = 0
        self._error = ""
        self._video = ""
        if not Path(self._request.device).exists() or not self._request.device:
            here = ", ".join(cameras()) or "none"
            raise SourceError(
                f"there is no camera {address or '(none named)'}; cameras of this machine: {here}"
            )

    def facts(self) -> dict[str, object]:
        """The camera, what it delivers, and how the connection is."""
        return {
            "camera": self._request.device,
            "name": _device_name(Path(self._request.device)),
            "video": self._video or "unknown",
            "link": self._state,
            "link since": self._since,
            "attempts in vain": self._attempts,
            "last error": self._error,
        }

    def problem(self) -> str:
        """Why no pictures come now."""
        if self._state == "connected" or not self._error:
            return ""
        return f"{self._request.device}: {self._error}"

    def run(self, sink: Sink, stop: threading.Event) -> Summary:
        """Deliver until `stop`; raises `SourceError` after `connect_attempts` vain attempts."""
        config, device = self._config, self._request.device
        delivery = Delivery(sink, config.stream, camera_with_focal(config.focal_px))
        backoff = Backoff(config.backoff_first_s, config.backoff_max_s)
        while not stop.is_set():
            before = delivery.frames
            try:
                self._play(delivery, stop)
                continue
            except (av.FFmpegError, OSError) as error:
                self._error = _explained(error, self._request)
            if delivery.frames > before:
                backoff.succeeded()
            wait_s = backoff.next_s()
            self._attempts = backoff.failures
            self._enter("waiting")
            if config.connect_attempts and backoff.failures >= config.connect_attempts:
                raise SourceError(f"{device}: {self._error}; given up after {self._attempts} tries")
            self._warnings.warn(f"{device}: {self._error}", wait_s)
            stop.wait(wait_s)
        self._enter("ended")
        return Summary(frames=delivery.frames)

    def _play(self, delivery: Delivery, stop: threading.Event) -> None:
        with open_device(self._request) as container:
            stream = container.streams.video[0]
            codec = stream.codec_context
            self._video = f"{codec.name} {codec.width}x{codec.height}"
            self._attempts = 0
            self._enter("connected")
            delivery.rate_hz = rate_of(stream, self._config.fps)
            reader = packet_reader(stream, delivery, self._config, low_delay=True)
            try:
                self._feed(lambda: _next_packet(container, stream), reader, stop)
            finally:
                reader.flush()

    def _feed(
        self,
        next_packet: Callable[[], av.Packet | None],
        reader: PacketReader,
        stop: threading.Event,
    ) -> None:
        heard_s = time.monotonic()
        while not stop.is_set():
            packet = next_packet()
            if packet is None:
                if time.monotonic() - heard_s > self._config.stall_s:
                    raise OSError(f"no picture for {self._config.stall_s:g} s")
                stop.wait(_POLL_S)
                continue
            heard_s = time.monotonic()
            self._warnings.over(f"{self._request.device}: pictures come")
            arrival_ns = stamp_ns = time.time_ns()
            if packet.pts is not None:
                kernel_ns = round(packet.pts * packet.time_base * 10**9)
                stamp_ns = capture_ns(kernel_ns, arrival_ns, time.monotonic_ns())
            reader.feed(packet, stamp_ns)

    def _enter(self, state: str) -> None:
        self._state, self._since = state, _now()


def open_device(request: CaptureRequest) -> av.container.InputContainer:
    """Open the device by FFmpeg; raises `av.FFmpegError`."""
    return av.open(
        request.device, format="v4l2", options=request.options(), metadata_errors="replace"
    )


def _next_packet(
    container: av.container.InputContainer, stream: av.VideoStream
) -> av.Packet | None:
    """The next picture; None while there is none. Raises `OSError` when the device ended."""
    try:
        for packet in container.demux(stream):
            if packet.size:
                return packet
    except BlockingIOError:
        return None
    raise OSError("the camera ended its stream; was it unplugged?")


def _explained(error: BaseException, request: CaptureRequest) -> str:
    if isinstance(error, FileNotFoundError):
        return "it is not there; was it unplugged?"
    if isinstance(error, PermissionError):
        return "it may not be opened; add this user to the group 'video'"
    text = str(getattr(error, "strerror", "") or error)
    busy = "busy" in text.lower()
    if busy:
        return f"{text}: another program uses it (`fuser {request.device}` names it)"
    if isinstance(error, ValueError):
        asked = " ".join(filter(None, (request.size, f"{request.fps:g} Hz", request.format)))
        return (
            f"{text}: it may not offer {asked} (`v4l2-ctl --list-formats-ext` shows what it does)"
        )
    return text


def _size(text: str) -> str:
    width, _, height = text.lower().partition("x")
    if text and not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise SourceError(f"size={text} is no size of a picture; write it like size=1280x720")
    return text.lower()


def _rate(text: str) -> float:
    try:
        rate_hz = float(text or 0.0)
    except ValueError:
        rate_hz = -1.0
    if not 0.0 <= rate_hz <= 1000.0:
        raise SourceError(f"fps={text} is no rate; write it like fps=30")
    return rate_hz


def _format(text: str) -> str:
    if text and text.lower() not in _FORMATS:
        raise SourceError(f"format={text} is not known; known: {', '.join(_FORMATS)}")
    return _FORMATS.get(text.lower(), "")


def _device_name(path: Path) -> str:
    name = _DEVICE_NAMES / path.name / "name"
    return name.read_text().strip() if name.is_file() else "unnamed"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
