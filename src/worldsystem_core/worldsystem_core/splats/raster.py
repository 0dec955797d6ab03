# SPDX-License-Identifier: Apache-2.0
"""Gaussians to a picture on a processor: for tests, for quality figures, and without WebGL."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, UInt8
from numba import njit

from worldsystem_core.frames import Camera
from worldsystem_core.splats.gaussians import Gaussians
from worldsystem_core.splats.projection import LEAST_ALPHA, MOST_ALPHA, Ellipses, ellipses

_OPAQUE = 1e-4


@dataclass(frozen=True, eq=False)
class DrawnSplats:
    """A picture (sRGB in [0, 1], premultiplied), how much of each pixel is covered, and z-depth.

    `depth` [world units] is the mean over what covers the pixel, NaN where nothing does.
    """

    rgb: Float32[np.ndarray, "h w 3"]
    alpha: Float32[np.ndarray, "h w"]
    depth: Float32[np.ndarray, "h w"]

    def over(self, background: Float32[np.ndarray, "3"]) -> UInt8[np.ndarray, "h w 3"]:
        """The picture before a background of one colour."""
        picture = self.rgb + (1 - self.alpha[..., None]) * background
        return np.asarray(np.round(255 * np.clip(picture, 0, 1)).astype(np.uint8))


def draw(
    gaussians: Gaussians, world_from_cam: Float64[np.ndarray, "4 4"], camera: Camera
) -> DrawnSplats:
    """Blend `gaussians` (world) front to back, as a page or a GPU would."""
    return draw_ellipses(ellipses(gaussians, world_from_cam, camera), camera)


def draw_ellipses(seen: Ellipses, camera: Camera) -> DrawnSplats:
    """Blend projected Gaussians, nearest first."""
    rgb = np.zeros((camera.height, camera.width, 3), np.float32)
    through = np.ones((camera.height, camera.width), np.float32)
    depth = np.zeros((camera.height, camera.width), np.float32)
    parts = (seen.centre_px, seen.inverse_px2, seen.reach_px, seen.alpha, seen.rgb, seen.depth)
    _blend(*parts, rgb, through, depth)
    alpha = 1 - through
    known = np.where(alpha > 1e-3, depth / np.maximum(alpha, 1e-6), np.nan)
    return DrawnSplats(rgb, alpha, known.astype(np.float32))


@njit(cache=True, fastmath=True, nogil=True)
def _blend(  # type: ignore[no-untyped-def]
    centre, inverse, reach, alpha, rgb, depth, out_rgb, out_through, out_depth
):
    height, width = out_through.shape
    for i in range(len(alpha)):
        x, y = centre[i, 0], centre[i, 1]
        left = max(0, int(np.ceil(x - reach[i, 0])))
        right = min(width - 1, int(np.floor(x + reach[i, 0])))
        top = max(0, int(np.ceil(y - reach[i, 1])))
        bottom = min(height - 1, int(np.floor(y + reach[i, 1])))
        a, b, c = inverse[i, 0], inverse[i, 1], inverse[i, 2]
        red, green, blue = rgb[i, 0], rgb[i, 1], rgb[i, 2]
        for row in range(top, bottom + 1):
            dy = row - y
            for column in range(left, right + 1):
                through = out_through[row, column]
                if through < _OPAQUE:
                    continue
                dx = column - x
                power = 0.5 * (a * dx * dx + c * dy * dy) + b * dx * dy
                if power > 4.5:
                    continue
                weight = min(MOST_ALPHA, alpha[i] * np.exp(-power))
                if weight < LEAST_ALPHA:
                    continue
                share = through * weight
                out_rgb[row, column, 0] += share * red
                out_rgb[row, column, 1] += share * green
                out_rgb[row, column, 2] += share * blue
                out_depth[row, column] += share * depth[i]
                out_through[row, column] = through - share
