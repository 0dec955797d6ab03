# SPDX-License-Identifier: Apache-2.0
"""A video file as a source: every picture, in order, however long the sink takes."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import av

from worldsystem_core.errors import SourceError
from worldsystem_ingest.config import IngestConfig
from worldsystem_ingest.delivery import Delivery, Pace, camera_with_focal
from worldsystem_ingest.packets import packet_reader
from worldsystem_ingest.sink import Sink, Summary

_END_TOLERANCE_S = 1.0


class VideoFile:
    """Any container that FFmpeg opens, and raw H.264; stamps are the file's own, from its start.

    With `realtime` pictures come at the pace of their stamps, which then are host times. A file
    that was cut off is delivered up to the break, which the summary tells.
    """

    live = False

    def __init__(self, path: Path, config: IngestConfig) -> None:
        if not path.is_file():
            raise SourceError(f"{path} does not exist; give a video, a folder of images, or a URL")
        self._path = path
        self._config = config
        self._open().close()

    def facts(self) -> dict[str, object]:
        """Nothing beside the ledger."""
        return {}

    def problem(self) -> str:
        """None that would not end the source."""
        return ""

    def run(self, sink: Sink, stop: threading.Event) -> Summary:
        """Deliver the whole file."""
        config = self._config
        start_ns = time.time_ns() if config.realtime else 0
        pace = pace_of(stop) if config.realtime else None
        delivery = Delivery(sink, config.stream, camera_with_focal(config.focal_px), pace)
        with self._open() as container:
            broken = self._play(container, delivery, start_ns, stop)
        return Summary(frames=delivery.frames, broken=broken)

    def _open(self) -> av.container.InputContainer:
        try:
            container = av.open(str(self._path))
        except av.FFmpegError as error:
            raise SourceError(
                f"{self._path} is not a video that FFmpeg can read ({error.strerror}); if it is an "
                f"MP4 whose recording was cut off, its index is missing and must be rebuilt first"
            ) from error
        if not container.streams.video:
            container.close()
            raise SourceError(f"{self._path} holds no video stream, only sound or data")
        return container

    def _play(
        self,
        container: av.container.InputContainer,
        delivery: Delivery,
        start_ns: int,
        stop: threading.Event,
    ) -> str | None:
        stream = container.streams.video[0]
        delivery.rate_hz = rate_of(stream, self._config.fps)
        delivery.start_ns = start_ns
        reader = packet_reader(stream, delivery)
        has_stamps = container.format.name != "h264"
        packets, last_s, failure = 0, 0.0, ""
        try:
            for packet in container.demux(stream):
                if stop.is_set():
                    break
                if packet.size == 0:
                    continue
                stamp_ns = None
                if has_stamps and packet.pts is not None:
                    since_start = packet.pts - (stream.start_time or 0)
                    stamp_ns = start_ns + round(since_start * stream.time_base * 10**9)
                    last_s = max(last_s, float(since_start * stream.time_base))
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


def pace_of(stop: threading.Event) -> Pace:
    """Waits until the host time of each stamp, or until `stop`."""

    def wait(stamp_ns: int) -> None:
        stop.wait(max(0.0, (stamp_ns - time.time_ns()) * 1e-9))

    return wait


def rate_of(stream: av.VideoStream, otherwise_hz: float) -> float:
    """Pictures per second: as the codec says, else the container, else `otherwise_hz`."""
    raw = stream.container.format.name == "h264"
    rate = stream.codec_context.framerate or (None if raw else stream.average_rate)
    return float(rate) if rate else otherwise_hz


def _missing(
    container: av.container.InputContainer, stream: av.VideoStream, packets: int, last_s: float
) -> str:
    """What the file promised and does not hold, in words; empty when it is whole."""
    if stream.frames > packets:
        return f"its index promises {stream.frames} pictures, {packets} are there"
    promised_s = float(stream.duration * stream.time_base) if stream.duration else 0.0
    if not promised_s and len(container.streams) == 1 and container.duration:
        promised_s = container.duration / av.time_base
    if last_s and promised_s > last_s + _END_TOLERANCE_S:
        return f"its header promises {promised_s:.1f} s, the last picture is at {last_s:.1f} s"
    return ""
