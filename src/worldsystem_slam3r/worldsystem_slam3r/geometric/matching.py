# SPDX-License-Identifier: Apache-2.0
"""Descriptor matches between two pictures that lie too far apart to follow corners."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float32, Float64, UInt8

RATIO = 0.8
FEATURES = 600
MIN_MATCHES = 25
NEAREST = 5


@dataclass(frozen=True, eq=False)
class Features:
    """Corners of one picture with their descriptors (SIFT; Lowe, IJCV 2004)."""

    px: Float64[np.ndarray, "n 2"]
    codes: Float32[np.ndarray, "n 128"]

    @staticmethod
    def of_half(grey: UInt8[np.ndarray, "h w"]) -> Features:
        """Those of the picture at half its size, at a quarter of the cost; pixels of the whole."""
        size = grey.shape[1] // 2, grey.shape[0] // 2
        small = Features.of(np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA)))
        return Features(2.0 * small.px + 0.5, small.codes)

    @staticmethod
    def of(grey: UInt8[np.ndarray, "h w"]) -> Features:
        """Find them; a plain picture has none."""
        points, codes = cv2.SIFT.create(nfeatures=FEATURES).detectAndCompute(grey, None)
        if codes is None:
            return Features(np.zeros((0, 2)), np.zeros((0, 128), np.float32))
        return Features(np.array([point.pt for point in points], np.float64), np.asarray(codes))


def matches(
    a: Features, b: Features
) -> tuple[Float64[np.ndarray, "n 2"], Float64[np.ndarray, "n 2"]]:
    """Pixels of the same points in two pictures (ratio test); empty when either is too plain."""
    if min(len(a.px), len(b.px)) < MIN_MATCHES:
        return np.zeros((0, 2)), np.zeros((0, 2))
    pairs = cv2.BFMatcher(cv2.NORM_L2).knnMatch(a.codes, b.codes, k=2)
    good = [p[0] for p in pairs if len(p) == 2 and p[0].distance < RATIO * p[1].distance]
    return a.px[[m.queryIdx for m in good]], b.px[[m.trainIdx for m in good]]


def start_from_matches(
    reference: UInt8[np.ndarray, "h w"],
    grey: UInt8[np.ndarray, "h w"],
    px: Float32[np.ndarray, "n 2"],
) -> Float32[np.ndarray, "n 2"] | None:
    """Where pixels of `reference` should be in `grey`: each moves like its nearest matches.

    None when there are too few matches.
    """
    a, b = matches(Features.of_half(reference), Features.of_half(grey))
    if len(a) < MIN_MATCHES:
        return None
    distance = np.linalg.norm(px[:, None, :] - a[None, :, :], axis=2)
    nearest = np.argpartition(distance, NEAREST, axis=1)[:, :NEAREST]
    return np.asarray(px + np.median((b - a)[nearest], axis=1), np.float32)
