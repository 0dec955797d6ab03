# SPDX-License-Identifier: Apache-2.0
"""A video file as a source: every picture, in order, however long the sink takes."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import av

from worldsystem_core.errors import SourceError
from worldsystem_core.frames import EncodedFrame
from worldsystem_ingest.config import IngestConfig
from worldsystem_ingest.files.delivery import Delivery, Pace, camera_with_focal
from worldsystem_ingest.files.packets import packet_reader
from worldsystem_ingest.files.stream_time import StreamTime
from worldsystem_ingest.files.upright import Upright, upright_camera
from worldsystem_ingest.passing import PassingSink
from worldsystem_ingest.sink import Sink, Summary

_log = logging.getLogger(__name__)
_END_TOLERANCE_S = 1.0
_WITHOUT_STAMPS = ("h264", "hevc")  # raw streams: what FFmpeg gives them is invented
_PACKETS_UNTIL_TURN_IS_KNOWN = 60
_EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)  # cameras whose clock was never set begin before


@dataclass(frozen=True)
class _About:
    """What is known of a file before it is played."""

    codec: str
    width: int
    height: int
    duration_s: float
    recorded: datetime | None
    quarters: int
    cut_away: int


def missing(path: Path) -> SourceError:
    """What is said of a path where nothing is."""
    return SourceError(f"{path} does not exist; give a video, a folder of images, or a URL")


class VideoFile:
    """Any container that FFmpeg opens, and raw H.264; stamps are the file's own, from its start.

    Its start is zero; with `file_time` = `recorded` it is when the metadata say that the recording
    was made (`SourceError` when they do not). With `realtime` pictures come at the pace of their
    stamps, which then are host times. Stamps that begin again go on after the last (`StreamTime`).
    Pictures are upright, whichever way the camera was held. What an edit list cut away without
    coding anew is decoded, as later pictures need it, and dropped as outside. A file that was cut
    off, or is still being written, is delivered up to where it ends now, which the summary tells.
    """

    live = False

    def __init__(self, path: Path, config: IngestConfig) -> None:
        if not path.exists():
            raise missing(path)
        if not path.is_file():
            raise SourceError(
                f"{path} is a device or a pipe, no file; a camera is `v4l2:{path}`, and what comes "
                "through a pipe must be in a file first"
            )
        self._path = path
        self._config = config
        self._position_s = 0.0
        self._broken = ""
        with self._open() as container:
            self._about = _about(container)
        if config.file_time == "recorded" and self._about.recorded is None:
            raise SourceError(
                f"{path} does not say when it was recorded; set `file_time` to `zero` "
                f"for stamps from its start"
            )

    def facts(self) -> dict[str, object]:
        """What the file is, and how far it has been played."""
        about = self._about
        facts: dict[str, object] = {
            "file": self._path.name,
            "video": f"{about.codec} {about.width}x{about.height}",
            "position": f"{self._position_s:.1f} of {about.duration_s:.1f} s",
        }
        if about.quarters:
            facts["turned"] = f"{90 * about.quarters} degrees counter-clockwise"
        if about.cut_away:
            facts["cut away"] = f"{about.cut_away} pictures, by its edit list"
        if about.recorded:
            facts["recorded"] = about.recorded.isoformat(timespec="seconds")
        return facts

    def problem(self) -> str:
        """Where the file is broken, once that is known."""
        return self._broken

    def run(self, sink: Sink, stop: threading.Event) -> Summary:
        """Deliver the whole file."""
        config, quarters = self._config, self._about.quarters
        pace = pace_of(stop) if config.realtime else None
        camera_of = upright_camera(camera_with_focal(config.focal_px), quarters)
        if self._about.cut_away:
            sink = _PicturesAlone(sink)
        delivery = Delivery(
            Upright(sink, quarters) if quarters else sink, config.stream, camera_of, pace
        )
        delivery.start_ns = self._start_ns()
        with self._open() as container:
            broken = self._play(container, delivery, stop)
        self._broken = broken or ""
        return Summary(frames=delivery.frames, broken=broken)

    def _start_ns(self) -> int:
        if self._config.realtime:
            return time.time_ns()
        recorded = self._about.recorded
        if self._config.file_time == "recorded" and recorded:
            return round(recorded.timestamp() * 1e3) * 10**6
        return 0

    def _open(self) -> av.container.InputContainer:
        try:
            whole = str(self._path.absolute())  # FFmpeg takes `12:30.mp4` for a protocol
            container = av.open(whole, metadata_errors="replace")
        except av.FFmpegError as error:
            raise SourceError(
                f"{self._path} is not a video that FFmpeg can read ({error.strerror}); if it is an "
                f"MP4 whose recording was cut off, its index is missing and must be rebuilt first"
            ) from error
        if not container.streams.video:
            container.close()
            raise SourceError(f"{self._path} holds no video stream, only sound or data")
        if container.streams.video[0].codec_context is None:
            container.close()
            raise SourceError(
                f"{self._path} is coded in a way that this build of FFmpeg cannot decode; "
                f"convert it to H.264"
            )
        return container

    def _play(
        self, container: av.container.InputContainer, delivery: Delivery, stop: threading.Event
    ) -> str | None:
        stream = container.streams.video[0]
        delivery.rate_hz = rate_of(stream, self._config.fps)
        reader = packet_reader(stream, delivery, self._config)
        has_stamps = container.format.name not in _WITHOUT_STAMPS
        stream_time = StreamTime(stream, delivery.rate_hz)
        packets, last_s, failure = 0, 0.0, ""
        try:
            for packet in container.demux(stream):
                if stop.is_set():
                    break
                if packet.size == 0:
                    continue
                stamp_ns = None
                if has_stamps and packet.pts is not None:
                    since_start = stream_time.since_start(packet)
                    stamp_ns = delivery.start_ns + round(since_start * stream.time_base * 10**9)
                    self._position_s = last_s = max(last_s, float(since_start * stream.time_base))
                packets += 1
                reader.feed(packet, stamp_ns)
        except av.FFmpegError as error:
            failure = f"cannot be read further ({error.strerror})"
        reader.flush()
        if stop.is_set():
            return None
        failure = failure or _missing(container, stream, packets, last_s)
        if not failure and reader.last_was_lost:
            failure = "its last picture is cut off"
        return f"video ends early at frame {delivery.next_id}: {failure}" if failure else None


class _PicturesAlone(PassingSink):
    """Passes no coded units on: a record of them cannot say whose pictures are hidden."""

    def encoded(self, unit: EncodedFrame) -> None:
        """Let it go; its picture is recorded as JPEG, where that is shown."""


def pace_of(stop: threading.Event) -> Pace:
    """Waits until the host time of each stamp, or until `stop`.

    Host time is that of the clock as it is now: setting the clock later changes nothing.
    """
    ahead_ns = time.time_ns() - time.monotonic_ns()

    def wait(stamp_ns: int) -> None:
        stop.wait(max(0.0, (stamp_ns - ahead_ns - time.monotonic_ns()) * 1e-9))

    return wait


def rate_of(stream: av.VideoStream, otherwise_hz: float) -> float:
    """Pictures per second: as the codec says, else the container, else `otherwise_hz`."""
    raw = stream.container.format.name in _WITHOUT_STAMPS
    rate = stream.codec_context.framerate or (None if raw else stream.average_rate)
    return float(rate) if rate else otherwise_hz


def recording_time(metadata: dict[str, str]) -> datetime | None:
    """When a file says that it was recorded, if that can be true: since 2000, not in the future."""
    for name in ("com.apple.quicktime.creationdate", "creation_time"):
        try:
            moment = datetime.fromisoformat(metadata[name])
        except (KeyError, ValueError):
            continue
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        if _EARLIEST <= moment <= datetime.now(UTC):
            return moment
    return None


def _about(container: av.container.InputContainer) -> _About:
    stream = container.streams.video[0]
    return _About(
        codec=stream.codec_context.name,
        width=stream.codec_context.width,
        height=stream.codec_context.height,
        duration_s=(container.duration or 0) / av.time_base,
        recorded=recording_time({**stream.metadata, **container.metadata}),
        quarters=_quarters(container),
        cut_away=sum(entry.is_discard for entry in stream.index_entries),
    )


def _quarters(container: av.container.InputContainer) -> int:
    """Quarter turns counter-clockwise that make the pictures upright; a picture must tell."""
    stream = container.streams.video[0]
    try:
        for number, packet in enumerate(container.demux(stream)):
            for picture in packet.decode():
                rotation_deg = _rotation_deg(picture)
                if rotation_deg % 90:
                    _log.warning(
                        "%s asks to be turned by %d degrees; only quarter turns are made",
                        container.name,
                        rotation_deg,
                    )
                return rotation_deg // 90 % 4
            if number == _PACKETS_UNTIL_TURN_IS_KNOWN:
                break
    except av.FFmpegError as error:
        _log.debug("no picture can be decoded at the start: %s", error)
    return 0


def _rotation_deg(picture: av.VideoFrame) -> int:
    """How far the picture is to be turned counter-clockwise; 0 where its matrix is no turn.

    The angle of a matrix of zeros is no number, which PyAV may take for one that is far too large.
    """
    try:
        rotation_deg = int(picture.rotation)
    except ValueError:
        return 0
    return rotation_deg if abs(rotation_deg) <= 360 else 0


def _missing(
    container: av.container.InputContainer, stream: av.VideoStream, packets: int, last_s: float
) -> str:
    """What the file promised and does not hold, in words; empty when it is whole."""
    promised = stream.frames
    if "mov" in container.format.name:  # an edit list takes entries away, the number stays
        promised = min(promised, len(stream.index_entries))
    if promised > packets:
        return f"its index promises {promised} pictures, {packets} are there"
    promised_s = float(stream.duration * stream.time_base) if stream.duration else 0.0
    if not promised_s and len(container.streams) == 1 and container.duration:
        promised_s = container.duration / av.time_base
    if last_s and promised_s > last_s + _END_TOLERANCE_S:
        return f"its header promises {promised_s:.1f} s, the last picture is at {last_s:.1f} s"
    return ""
