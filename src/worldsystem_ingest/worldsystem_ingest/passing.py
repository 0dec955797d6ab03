# SPDX-License-Identifier: Apache-2.0
"""A sink that hands everything on, for those that change one thing."""

from __future__ import annotations

from worldsystem_core.frames import Camera, EncodedFrame, Frame
from worldsystem_core.telemetry import Telemetry
from worldsystem_ingest.sink import Sink


class PassingSink:
    """Passes every call to another sink, in the same thread."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def encoded(self, unit: EncodedFrame) -> None:
        """Pass on."""
        self._sink.encoded(unit)

    def frame(self, frame: Frame) -> None:
        """Pass on."""
        self._sink.frame(frame)

    def camera(self, camera: Camera, stream: str) -> None:
        """Pass on."""
        self._sink.camera(camera, stream)

    def measured(self, sample: Telemetry, stream: str) -> None:
        """Pass on."""
        self._sink.measured(sample, stream)

    def dropped(self, frame_id: int, reason: str, stream: str) -> None:
        """Pass on."""
        self._sink.dropped(frame_id, reason, stream)
