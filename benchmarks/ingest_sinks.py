# SPDX-License-Identifier: Apache-2.0
"""A sink for benchmarks of the server."""

from __future__ import annotations

from worldsystem_core.frames import Camera, EncodedFrame, Frame
from worldsystem_core.telemetry import Telemetry


class Nowhere:
    """Keeps nothing."""

    def encoded(self, unit: EncodedFrame) -> None:
        """Keep nothing."""

    def frame(self, frame: Frame) -> None:
        """Keep nothing."""

    def camera(self, camera: Camera, stream: str) -> None:
        """Keep nothing."""

    def measured(self, sample: Telemetry, stream: str) -> None:
        """Keep nothing."""

    def dropped(self, frame_id: int, reason: str, stream: str) -> None:
        """Keep nothing."""
