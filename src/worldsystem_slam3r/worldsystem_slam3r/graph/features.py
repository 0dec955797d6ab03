# SPDX-License-Identifier: Apache-2.0
"""What a keyframe is recognised by: corners with descriptors, and their points in its pointmap."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64, UInt8

from worldsystem_core.reconstruction import Keyframe

FEATURES = 400
RATIO = 0.85
CONTRAST = 0.02
"""Half of SIFT's usual threshold: keyframe pictures are small, and soft where video was coded."""


@dataclass(frozen=True, eq=False)
class Features:
    """n corners of a picture: pixels, SIFT codes (Lowe, IJCV 2004) and camera-frame points.

    `points` are in the picture's own unit, NaN where the depth is unknown.
    """

    px: Float32[np.ndarray, "n 2"]
    codes: UInt8[np.ndarray, "n 128"]
    points: Float32[np.ndarray, "n 3"]

    def __len__(self) -> int:
        return len(self.px)

    @property
    def bytes(self) -> int:
        return self.px.nbytes + self.codes.nbytes + self.points.nbytes

    @property
    def known(self) -> Bool[np.ndarray, "n"]:
        """Those whose point is known."""
        return np.asarray(np.isfinite(self.points[:, 2]))

    def unit_codes(self) -> Float32[np.ndarray, "n 128"]:
        """RootSIFT codes, to be compared by their scalar product.

        Arandjelović and Zisserman, CVPR 2012.
        """
        codes = self.codes.astype(np.float32)
        total = codes.sum(axis=1, keepdims=True)
        return np.asarray(np.sqrt(codes / np.maximum(total, 1.0)))

    @staticmethod
    def of_picture(grey: UInt8[np.ndarray, "h w"], count: int = FEATURES) -> Features:
        """Corners of a picture without geometry; a plain one has none."""
        found, codes = cv2.SIFT.create(
            nfeatures=count, contrastThreshold=CONTRAST, enable_precise_upscale=True
        ).detectAndCompute(grey, None)
        if codes is None:
            return Features.none()
        px = np.array([point.pt for point in found], np.float32)
        return Features(px, codes.astype(np.uint8), np.full((len(px), 3), np.nan, np.float32))

    @staticmethod
    def of_keyframe(keyframe: Keyframe) -> Features:
        """Corners of the keyframe's picture with the points that its pointmap gives them."""
        grey = np.asarray(cv2.cvtColor(keyframe.rgb, cv2.COLOR_RGB2GRAY))
        plain = Features.of_picture(grey)
        points = points_at(keyframe.pointmap, keyframe.confidence, plain.px)
        return Features(plain.px, plain.codes, points)

    @staticmethod
    def none() -> Features:
        """Of a plain picture."""
        return Features(
            np.zeros((0, 2), np.float32), np.zeros((0, 128), np.uint8), np.zeros((0, 3), np.float32)
        )


def points_at(
    pointmap: Float32[np.ndarray, "h w 3"],
    confidence: Float32[np.ndarray, "h w"],
    px: Float32[np.ndarray, "n 2"],
) -> Float32[np.ndarray, "n 3"]:
    """Points on the rays through `px` at the depth of the nearest pixel; NaN where unknown.

    Pixels on a depth edge (neighbours differ by more than a tenth) count as unknown: a corner
    there may belong to either side.
    """
    h, w = confidence.shape
    u = np.clip(np.rint(px[:, 0]).astype(int), 1, w - 2)
    v = np.clip(np.rint(px[:, 1]).astype(int), 1, h - 2)
    z = pointmap[..., 2]
    around = np.stack([z[v + dv, u + du] for dv in (-1, 0, 1) for du in (-1, 0, 1)])
    with np.errstate(invalid="ignore"):
        low, high = np.fmin.reduce(around), np.fmax.reduce(around)
        sound = (high - low < 0.1 * low) & (confidence[v, u] > 0) & np.isfinite(z[v, u])
    return np.asarray(np.where(sound[:, None], pointmap[v, u], np.nan), np.float32)


def matches(
    a: Features, b: Features, *, ratio: float = RATIO
) -> tuple[Int64[np.ndarray, "m"], Int64[np.ndarray, "m"]]:
    """Rows of mutual nearest neighbours whose second best is clearly farther (ratio test)."""
    if min(len(a), len(b)) < 2:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    likeness = a.unit_codes() @ b.unit_codes().T
    best = likeness.argmax(axis=1)
    rows = np.arange(len(a))
    mutual = likeness.argmax(axis=0)[best] == rows
    first = likeness[rows, best]
    likeness[rows, best] = -1.0
    second = likeness.max(axis=1)
    distance, next_distance = np.sqrt(2 - 2 * first.clip(max=1)), np.sqrt(2 - 2 * second)
    good = mutual & (distance < ratio * next_distance)
    return rows[good], best[good]


def normalised(
    px: Float32[np.ndarray, "n 2"], K: Float64[np.ndarray, "3 3"]
) -> Float64[np.ndarray, "n 2"]:
    """Pixels on the plane at depth 1."""
    return np.asarray((px - K[:2, 2]) / np.array([K[0, 0], K[1, 1]]), np.float64)
