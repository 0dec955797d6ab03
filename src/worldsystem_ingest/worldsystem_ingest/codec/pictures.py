# SPDX-License-Identifier: Apache-2.0
"""From the decoder's pictures to RGB arrays, and the camera that they have in their size."""

from __future__ import annotations

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from jaxtyping import UInt8

from worldsystem_core.frames import Camera


class RgbConversion:
    """Converts pictures of any format by their own colour matrix and range; BT.601 if untagged.

    It keeps the conversion's tables from picture to picture, so each stream has one.
    """

    def __init__(self, threads: int = 0) -> None:
        self._threads = threads
        self._reformatter = VideoReformatter()

    def __call__(self, picture: av.VideoFrame) -> UInt8[np.ndarray, "h w 3"]:
        """The picture as a contiguous, read-only array.

        It is the very memory that the conversion wrote, unless rows are padded there.
        """
        converted = self._reformatter.reformat(picture, format="rgb24", threads=self._threads)
        plane = converted.planes[0]
        height, width = picture.height, picture.width
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(height, plane.line_size)
        rgb: UInt8[np.ndarray, "h w 3"] = np.ascontiguousarray(rows[:, : 3 * width])
        rgb = rgb.reshape(height, width, 3)
        rgb.flags.writeable = False
        return rgb


def camera_of_size(camera: Camera, width: int, height: int) -> Camera:
    """`camera` for pictures of that size: turned where just its sides have changed places."""
    if (camera.width, camera.height) == (width, height):
        return camera
    has_turned = camera.width != camera.height and camera.width * width == camera.height * height
    return (camera.turned() if has_turned else camera).resized(width, height)
