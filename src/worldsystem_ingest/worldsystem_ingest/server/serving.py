# SPDX-License-Identifier: Apache-2.0
"""Relay, health and metrics beside a source that is not the server."""

from __future__ import annotations

import functools
import logging
import threading
from typing import TYPE_CHECKING

from worldsystem_core.frames import Camera, EncodedFrame, Frame
from worldsystem_core.telemetry import Telemetry
from worldsystem_ingest.config import IngestConfig
from worldsystem_ingest.server.network import Network
from worldsystem_ingest.server.source import Listening, facts_of
from worldsystem_ingest.sink import Sink, Summary
from worldsystem_ingest.stream.registry import BadStreamName, TooManyStreams, VideoStream

if TYPE_CHECKING:  # which needs this package
    from worldsystem_ingest.source import Source

_log = logging.getLogger(__name__)
_WAITING = 64  # access units on their way to the network thread
_PATIENCE_S = 5.0


class ServingSource(Listening):
    """Runs another source as it is, and serves its video to consumers as the server would.

    Nobody can send here: `/ws/video`, `/ws/phone` and `/whip` do not exist. What the source
    delivers without access units, as image folders do, cannot be relayed.
    """

    def __init__(self, source: Source, config: IngestConfig) -> None:
        super().__init__(config)
        self._source = source
        self.live = source.live

    def facts(self) -> dict[str, object]:
        """What the source knows, and who is served; safe from any thread."""
        status = self.status()
        return {**(facts_of(status) if status else {}), **self._source.facts()}

    def problem(self) -> str:
        """What is wrong with the source; safe from any thread."""
        return self._source.problem()

    def run(self, sink: Sink, stop: threading.Event) -> Summary:
        """As the source's `run`; raises `PortInUse` too, before anything is delivered."""
        network = Network(
            self._config, sink, stop, push=lambda: self.push_status(), takes_video=False
        )
        self._listen(network)
        try:
            return self._source.run(_ServedSink(sink, network), stop)
        finally:
            network.close()


class _ServedSink:
    """Passes everything on, counted by stream, and access units to the relay as well."""

    def __init__(self, sink: Sink, network: Network) -> None:
        self._sink = sink
        self._network = network
        self._streams: dict[str, VideoStream | None] = {}
        self._waiting = threading.BoundedSemaphore(_WAITING)

    def encoded(self, unit: EncodedFrame) -> None:
        """Pass on and relay; waits while the network thread has too many to take."""
        self._counted(unit.stream).encoded(unit)
        stream = self._streams[unit.stream]
        if stream and self._waiting.acquire(timeout=_PATIENCE_S):
            self._network.call_soon(functools.partial(self._relay, stream, unit))

    def frame(self, frame: Frame) -> None:
        """Pass on."""
        self._counted(frame.stream).frame(frame)

    def camera(self, camera: Camera, stream: str) -> None:
        """Pass on."""
        self._counted(stream).camera(camera, stream)

    def measured(self, sample: Telemetry, stream: str) -> None:
        """Pass on."""
        self._counted(stream).measured(sample, stream)

    def dropped(self, frame_id: int, reason: str, stream: str) -> None:
        """Pass on."""
        self._counted(stream).dropped(frame_id, reason, stream)

    def _relay(self, stream: VideoStream, unit: EncodedFrame) -> None:
        self._waiting.release()
        stream.pass_on(unit)

    def _counted(self, name: str) -> Sink:
        """The sink that counts for a stream, or the plain one when the stream cannot be served."""
        if name not in self._streams:
            try:
                self._streams[name] = self._network.streams.stream(name)
            except (BadStreamName, TooManyStreams) as error:
                _log.warning("%s is not served: %s", name, error)
                self._streams[name] = None
        stream = self._streams[name]
        return stream.sink if stream else self._sink
