# SPDX-License-Identifier: Apache-2.0
"""Live video from a URL or a camera through FFmpeg, opened again whenever it ends or stalls."""

from __future__ import annotations

import logging
import threading
import time

import av

from worldsystem_core.errors import SourceError
from worldsystem_ingest.backoff import Backoff
from worldsystem_ingest.clock import ClockEstimator
from worldsystem_ingest.config import IngestConfig
from worldsystem_ingest.delivery import Delivery, camera_with_focal
from worldsystem_ingest.packets import PacketReader, packet_reader
from worldsystem_ingest.sink import Sink, Summary
from worldsystem_ingest.video_file import rate_of

_log = logging.getLogger(__name__)
_OPEN_TIMEOUT_S = 5.0
_OPTIONS = {"rtsp_transport": "tcp"}  # "nobuffer" would throw the first key frame away


class LiveUrl:
    """One live stream over any number of connections; ids go on, stamps are host times.

    A stream of known length (a file behind HTTP) ends the source; any other end, an error or
    `stall_s` without data leads to the next connection.
    """

    live = True

    def __init__(self, url: str, config: IngestConfig, format: str | None = None) -> None:
        self._url = url
        self._format = format
        self._config = config

    def facts(self) -> dict[str, object]:
        """Nothing beside the ledger."""
        return {}

    def problem(self) -> str:
        """None that would not end the source."""
        return ""

    def run(self, sink: Sink, stop: threading.Event) -> Summary:
        """Deliver until `stop`; raises `SourceError` after `connect_attempts` vain attempts."""
        config = self._config
        delivery = Delivery(sink, config.stream, camera_with_focal(config.focal_px))
        backoff = Backoff(config.backoff_first_s, config.backoff_max_s)
        while not stop.is_set():
            before = delivery.next_id
            try:
                if self._play(delivery, stop):
                    break
                reason = "the stream ended"
            except (av.FFmpegError, OSError) as error:
                reason = str(error)
            if delivery.next_id > before:
                backoff.succeeded()
            wait_s = backoff.next_s()
            if config.connect_attempts and backoff.failures >= config.connect_attempts:
                raise SourceError(
                    f"{self._url}: {reason}; given up after {backoff.failures} attempts. Is the "
                    f"sender running, and the address right?"
                )
            _log.warning("%s: %s; opening it again in %.1f s", self._url, reason, wait_s)
            stop.wait(wait_s)
        return Summary(frames=delivery.frames)

    def _play(self, delivery: Delivery, stop: threading.Event) -> bool:
        """Deliver one connection; True when the stream came to its regular end or was stopped."""
        timeout_s = (_OPEN_TIMEOUT_S, self._config.stall_s)
        with av.open(
            self._url, format=self._format, options=_OPTIONS, timeout=timeout_s
        ) as container:
            if not container.streams.video:
                raise SourceError(f"{self._url} holds no video stream, only sound or data")
            stream = container.streams.video[0]
            delivery.rate_hz = rate_of(stream, self._config.fps)
            reader = packet_reader(stream, delivery, low_delay=True)
            try:
                self._feed(container, stream, reader, stop)
            finally:
                reader.flush()
            return stop.is_set() or bool(container.duration and container.duration > 0)

    def _feed(
        self,
        container: av.container.InputContainer,
        stream: av.VideoStream,
        reader: PacketReader,
        stop: threading.Event,
    ) -> None:
        clock = ClockEstimator(self._config.clock_window_s, epoch=False)
        for packet in container.demux(stream):
            if stop.is_set():
                return
            if packet.size == 0:
                continue
            stamp_ns = arrival_ns = time.time_ns()
            if packet.pts is not None:
                stamp_ns = clock.host_ns(round(packet.pts * stream.time_base * 10**9), arrival_ns)
            reader.feed(packet, stamp_ns)
