# SPDX-License-Identifier: Apache-2.0
"""Turning the pictures of a camera that was held sideways, as its file says."""

from __future__ import annotations

from dataclasses import replace

import cv2

from worldsystem_core.frames import Camera, EncodedFrame, Frame
from worldsystem_core.telemetry import Telemetry
from worldsystem_ingest.delivery import CameraOf
from worldsystem_ingest.sink import Sink

_TURNS = (None, cv2.ROTATE_90_COUNTERCLOCKWISE, cv2.ROTATE_180, cv2.ROTATE_90_CLOCKWISE)


class Upright:
    """Hands on each picture turned by quarters counter-clockwise; all else passes unchanged.

    Encoded units stay as they were received: their players read the turn from the file. The camera
    of a frame must be that of the turned picture already, see `upright_camera`.
    """

    def __init__(self, sink: Sink, quarters: int) -> None:
        self._sink = sink
        self._turn = _TURNS[quarters % 4]

    def frame(self, frame: Frame) -> None:
        """Turn and pass on."""
        if self._turn is not None:
            frame = replace(frame, rgb=cv2.rotate(frame.rgb, self._turn))
        self._sink.frame(frame)

    def encoded(self, unit: EncodedFrame) -> None:
        """Pass on."""
        self._sink.encoded(unit)

    def camera(self, camera: Camera, stream: str) -> None:
        """Pass on."""
        self._sink.camera(camera, stream)

    def measured(self, sample: Telemetry, stream: str) -> None:
        """Pass on."""
        self._sink.measured(sample, stream)

    def dropped(self, frame_id: int, reason: str, stream: str) -> None:
        """Pass on."""
        self._sink.dropped(frame_id, reason, stream)


def upright_camera(camera_of: CameraOf, quarters: int) -> CameraOf:
    """`camera_of` asked with the turned size: width and height change places at odd quarters."""
    if quarters % 2 == 0:
        return camera_of
    return lambda width, height: camera_of(height, width)
