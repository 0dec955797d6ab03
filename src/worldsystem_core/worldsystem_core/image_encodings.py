# SPDX-License-Identifier: Apache-2.0
"""The pixels of `sensor_msgs/Image` as RGB, for its encodings of 8 bits a channel."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import UInt8

_CONVERSIONS: dict[str, tuple[int, int | None]] = {
    "rgb8": (3, None),
    "bgr8": (3, cv2.COLOR_BGR2RGB),
    "8uc3": (3, cv2.COLOR_BGR2RGB),
    "rgba8": (4, cv2.COLOR_RGBA2RGB),
    "bgra8": (4, cv2.COLOR_BGRA2RGB),
    "8uc4": (4, cv2.COLOR_BGRA2RGB),
    "mono8": (1, cv2.COLOR_GRAY2RGB),
    "8uc1": (1, cv2.COLOR_GRAY2RGB),
    "bayer_rggb8": (1, cv2.COLOR_BayerRGGB2RGB),
    "bayer_bggr8": (1, cv2.COLOR_BayerBGGR2RGB),
    "bayer_gbrg8": (1, cv2.COLOR_BayerGBRG2RGB),
    "bayer_grbg8": (1, cv2.COLOR_BayerGRBG2RGB),
    "yuv422": (2, cv2.COLOR_YUV2RGB_UYVY),
    "uyvy": (2, cv2.COLOR_YUV2RGB_UYVY),
    "yuv422_yuy2": (2, cv2.COLOR_YUV2RGB_YUYV),
    "yuyv": (2, cv2.COLOR_YUV2RGB_YUYV),
}
"""Of an encoding: bytes a pixel, and OpenCV's conversion to RGB; None: it is RGB."""

KNOWN_ENCODINGS = tuple(_CONVERSIONS)


def is_known(encoding: str) -> bool:
    """Whether `rgb_from` can show pixels of this encoding, written in capitals or not."""
    return encoding.lower() in _CONVERSIONS


def rgb_from(
    data: UInt8[np.ndarray, "n"], encoding: str, *, height: int, width: int, step: int
) -> UInt8[np.ndarray, "h w 3"] | None:
    """The picture in rows of `step` bytes (0: without padding), a copy only where it must be; None
    where the encoding is not known or the data do not fill it."""
    if not is_known(encoding):
        return None
    pixel_bytes, conversion = _CONVERSIONS[encoding.lower()]
    step = step or width * pixel_bytes
    if not height or not width or step < width * pixel_bytes or data.size < height * step:
        return None
    rows = data[: height * step].reshape(height, step)[:, : width * pixel_bytes]
    if conversion is None:
        return rows.reshape(height, width, pixel_bytes)
    pixels = np.ascontiguousarray(rows).reshape(height, width, pixel_bytes)
    try:
        return np.asarray(cv2.cvtColor(pixels, conversion))
    except cv2.error:  # for instance an odd width with two pixels a sample
        return None
