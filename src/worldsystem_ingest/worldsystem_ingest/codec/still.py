# SPDX-License-Identifier: Apache-2.0
"""Pictures that are coded one by one: JPEG and PNG, and what else OpenCV reads."""

from __future__ import annotations

import re

import cv2
import numpy as np
from jaxtyping import UInt8

_JPEG_BEGIN, _JPEG_END = b"\xff\xd8", b"\xd9"
# not those without a segment, nor what stands for 0xff in coded data
_MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd8\xff])")


def rgb_of_still(data: bytes, *, upright: bool) -> UInt8[np.ndarray, "h w 3"] | None:
    """The picture; None for what is none, was cut off, or claims more than OpenCV takes.

    With `upright` it is turned as a JPEG may ask for.
    """
    if not data or (data.startswith(_JPEG_BEGIN) and not _has_end(data)):
        return None
    flags = cv2.IMREAD_COLOR_RGB | (0 if upright else cv2.IMREAD_IGNORE_ORIENTATION)
    try:
        rgb = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        return None
    return None if rgb is None else np.asarray(rgb)


def _has_end(jpeg: bytes) -> bool:
    """Whether the end of a JPEG is there: the decoder would fill what is missing with grey.

    Segments are skipped by their length, since a preview in one has an end, too; and what phones
    append after the end, as a film, may hold any bytes.
    """
    marker = _MARKER.search(jpeg)
    while marker and marker[1] != _JPEG_END:
        length = int.from_bytes(jpeg[marker.end() : marker.end() + 2])
        marker = _MARKER.search(jpeg, marker.end() + length)
    return marker is not None
