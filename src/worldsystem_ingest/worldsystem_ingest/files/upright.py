# SPDX-License-Identifier: Apache-2.0
"""Turning the pictures of a camera that was held sideways, as its file says."""

from __future__ import annotations

from dataclasses import replace

import cv2

from worldsystem_core.frames import Frame
from worldsystem_ingest.files.delivery import CameraOf
from worldsystem_ingest.passing import PassingSink
from worldsystem_ingest.sink import Sink

_TURNS = (None, cv2.ROTATE_90_COUNTERCLOCKWISE, cv2.ROTATE_180, cv2.ROTATE_90_CLOCKWISE)


class Upright(PassingSink):
    """Hands on each picture turned by quarters counter-clockwise; all else passes unchanged.

    Encoded units stay as they were received: their players read the turn from the file. The camera
    of a frame must be that of the turned picture already, see `upright_camera`.
    """

    def __init__(self, sink: Sink, quarters: int) -> None:
        super().__init__(sink)
        self._turn = _TURNS[quarters % 4]

    def frame(self, frame: Frame) -> None:
        """Turn and pass on."""
        if self._turn is not None:
            frame = replace(frame, rgb=cv2.rotate(frame.rgb, self._turn))
        self._sink.frame(frame)


def upright_camera(camera_of: CameraOf, quarters: int) -> CameraOf:
    """`camera_of` asked with the turned size: width and height change places at odd quarters."""
    if quarters % 2 == 0:
        return camera_of
    return lambda width, height: camera_of(height, width)
