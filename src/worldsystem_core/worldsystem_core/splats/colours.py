# SPDX-License-Identifier: Apache-2.0
"""Colours of discs whose picture is the keyframe's, and not a blurred copy of it.

A disc is a Gaussian, so discs that have their pixels' colours draw the picture blurred, as a cubic
B-spline through samples would without its prefilter (Unser, 1999). Here colours are corrected until
what the discs draw, twice as large, is the picture enlarged (SIRT, Gilbert, 1972). Discs lie one a
pixel, so each sample of the large picture is blended from the 3 × 3 discs around it, nearest first;
that order belongs in: the best fixed filter gains 0.5 dB, and this one 1.2 dB (decision 061).
"""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Bool, Float32, UInt8

from worldsystem_core.splats.kernels import clamp_to_corners, correct_colours, share_samples
from worldsystem_core.splats.projection import BLUR_PX2, LEAST_ALPHA

STEPS = (2.5, 2.5, 1.2, 1.2)
"""How far a colour follows its residual, one number a turn. Of an error that the discs blur to the
share b, the product of (1 - step b) stays: at most a tenth where b is above 0.25."""
ROUNDED = 6.0
"""Corrections are multiples of this many grey levels: even surfaces stay even, and deflate well."""
CLOSED = 0.9
"""Samples that discs cover less are not brightened: something else will show through there."""


def prefiltered(
    rgb: UInt8[np.ndarray, "h w 3"],
    depth: Float32[np.ndarray, "h w"],
    opacity: Float32[np.ndarray, "h w"],
    chosen: Bool[np.ndarray, "h w"],
    width: float,
) -> Float32[np.ndarray, "n 3"]:
    """Colours in [0, 1] of the discs of the `chosen` pixels, row-major.

    Discs lie at all pixels of some `opacity` (0: none), nearest is the least `depth`; `width` is
    their standard deviation [px]. Colours do not depend on which pixels are chosen.
    """
    padded = np.pad(opacity, 1)
    order = np.pad(depth, 1, constant_values=np.float32(0))
    colours = np.pad(rgb, ((1, 1), (1, 1), (0, 0))).astype(np.float32)
    wanted = enlarged(rgb)
    reach = 2 * len(STEPS) - 1  # pixels whose colour bears on a chosen one's
    needed = cv2.dilate(chosen.astype(np.uint8), np.ones((2 * reach + 1,) * 2, np.uint8)) > 0
    shares = np.empty((*chosen.shape, 4, 9), np.float32)
    share_samples(order, padded, needed, falloff(width), shares)
    closed = np.float32(CLOSED)
    for step in STEPS:
        correct_colours(shares, needed, wanted, np.float32(step), closed, colours)
    own = rgb[chosen].astype(np.float32)
    change = colours[1:-1, 1:-1][chosen] - own
    rounded = own + np.float32(ROUNDED) * np.round(change / np.float32(ROUNDED))
    return np.asarray(np.clip(rounded, 0, 255) / np.float32(255))


def enlarged(rgb: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "2*h 2*w 3"]:
    """The picture twice as large, bicubic, without the halos: each sample between its corners."""
    height, width = rgb.shape[:2]
    large = cv2.resize(rgb, (2 * width, 2 * height), interpolation=cv2.INTER_CUBIC)
    clamp_to_corners(np.ascontiguousarray(rgb), large)
    return np.asarray(large)


def falloff(width: float) -> Float32[np.ndarray, "4 9"]:
    """Weights at a pixel's four samples, row-major, of the 3 × 3 discs around it, row-major."""
    variance = width**2 + BLUR_PX2 / 4  # the blur of a renderer whose pixels are half as wide
    sample, disc = np.array([-0.25, 0.25]), np.array([-1.0, 0.0, 1.0])
    along = np.exp(-0.5 * (sample[:, None] - disc) ** 2 / variance)
    found = np.einsum("ai,bj->abij", along, along).reshape(4, 9)
    return np.where(found < LEAST_ALPHA, 0, found).astype(np.float32)
