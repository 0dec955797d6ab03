# SPDX-License-Identifier: Apache-2.0
"""Printed ArUco markers: the only objects that carry their own honest name."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np
from jaxtyping import Float, UInt8


@cache
def _detector() -> cv2.aruco.ArucoDetector:
    return cv2.aruco.ArucoDetector(cv2.aruco.getPredefinedDictionary(cv2.aruco.DICT_4X4_50))


def find_tags(rgb: UInt8[np.ndarray, "h w 3"]) -> list[tuple[int, Float[np.ndarray, "2"]]]:
    """Markers of the 4x4 dictionary of 50: their numbers and centres (u, v) in pixels."""
    corners, numbers, _ = _detector().detectMarkers(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY))
    if numbers is None:
        return []
    return [
        (int(number), quad.reshape(-1, 2).mean(axis=0))
        for number, quad in zip(numbers.ravel(), corners, strict=True)
    ]
