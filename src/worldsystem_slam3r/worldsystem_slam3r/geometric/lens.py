# SPDX-License-Identifier: Apache-2.0
"""From the filmed picture to the one of a pinhole camera, and from one pinhole picture to another.

The filmed picture belongs to a `Camera` with OpenCV's distortion; the pinhole picture has the same
size and no distortion. All of the map lives in pinhole pixels; when the lens becomes better known,
pictures and pixels move over to the new pinhole.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import cv2
import numpy as np
from jaxtyping import Float64, UInt8

from worldsystem_core.frames import Camera

BORDER_STEP_PX = 8


@dataclass(frozen=True)
class Lens:
    """A filmed camera and the pinhole camera its pictures are brought to."""

    filmed: Camera
    pinhole: Camera

    @staticmethod
    def of(filmed: Camera) -> Lens:
        """The pinhole of the same focal length, or longer so that the filmed picture fills it."""
        plain = replace(filmed, distortion=())
        if not any(filmed.distortion):
            return Lens(filmed, plain)
        scale = _fill_scale(filmed)
        return Lens(filmed, replace(plain, fx=filmed.fx * scale, fy=filmed.fy * scale))

    @property
    def distorted(self) -> bool:
        """Whether pictures need to be changed at all."""
        return any(self.filmed.distortion)

    def filmed_px(self, px: Float64[np.ndarray, "n 2"]) -> Float64[np.ndarray, "n 2"]:
        """Where pinhole pixels lie in the filmed picture."""
        return distort((px - _centre(self.pinhole)) / _focal(self.pinhole), self.filmed)

    def pinhole_px(self, px: Float64[np.ndarray, "n 2"]) -> Float64[np.ndarray, "n 2"]:
        """Where filmed pixels lie in the pinhole picture."""
        if not self.distorted:
            rays = (px - _centre(self.filmed)) / _focal(self.filmed)
        else:
            rays = undistort(px, self.filmed)
        return np.asarray(rays * _focal(self.pinhole) + _centre(self.pinhole))

    def resized(self, width: int, height: int) -> Lens:
        """The same lens for pictures of another size."""
        return Lens(self.filmed.resized(width, height), self.pinhole.resized(width, height))

    @cached_property
    def _maps(self) -> tuple[np.ndarray, np.ndarray]:
        return _remap_maps(self.pinhole, self.filmed_px)

    def straightened(self, picture: UInt8[np.ndarray, "h w *c"]) -> UInt8[np.ndarray, "h w *c"]:
        """The filmed picture as the pinhole camera sees it."""
        if not self.distorted:
            return picture
        return np.asarray(cv2.remap(picture, *self._maps, cv2.INTER_LINEAR))


class LensChange:
    """Brings pictures and pixels of an old pinhole to a new one."""

    def __init__(self, old: Lens, new: Lens) -> None:
        self._old, self._new = old, new
        self._maps: dict[tuple[int, int], tuple[np.ndarray, np.ndarray]] = {}

    def px(self, px: Float64[np.ndarray, "n 2"]) -> Float64[np.ndarray, "n 2"]:
        """Old pinhole pixels as new ones; NaN stays NaN."""
        known = np.isfinite(px).all(axis=1)
        out = np.full(px.shape, np.nan)
        out[known] = self._new.pinhole_px(self._old.filmed_px(px[known].astype(np.float64)))
        return out

    def inside(self, px: Float64[np.ndarray, "n 2"]) -> np.ndarray:
        """Which new pixels lie within the picture, a margin of two off its edge."""
        camera = self._new.pinhole
        return np.asarray(
            (px >= 2).all(axis=1) & (px[:, 0] < camera.width - 3) & (px[:, 1] < camera.height - 3)
        )

    def picture(self, picture: UInt8[np.ndarray, "h w *c"]) -> UInt8[np.ndarray, "h w *c"]:
        """An old pinhole picture, of any size, as the new pinhole sees it."""
        h, w = picture.shape[:2]
        if (w, h) not in self._maps:
            old, new = self._old.resized(w, h), self._new.resized(w, h)
            self._maps[w, h] = _remap_maps(
                new.pinhole, lambda px: old.pinhole_px(new.filmed_px(px))
            )
        return np.asarray(cv2.remap(picture, *self._maps[w, h], cv2.INTER_LINEAR))


def distort(rays: Float64[np.ndarray, "n 2"], camera: Camera) -> Float64[np.ndarray, "n 2"]:
    """Pixels of rays (x/z, y/z) under OpenCV's plumb-bob model."""
    k1, k2, p1, p2, k3 = (*camera.distortion, 0.0, 0.0, 0.0, 0.0, 0.0)[:5]
    x, y = rays[:, 0], rays[:, 1]
    r2 = x * x + y * y
    bend = 1.0 + r2 * (k1 + r2 * (k2 + r2 * k3))
    u = x * bend + 2 * p1 * x * y + p2 * (r2 + 2 * x * x)
    v = y * bend + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y
    return np.column_stack([camera.fx * u + camera.cx, camera.fy * v + camera.cy])


def undistort(px: Float64[np.ndarray, "n 2"], camera: Camera) -> Float64[np.ndarray, "n 2"]:
    """Rays (x/z, y/z) of pixels: the inverse of `distort`, by damped fixed-point iteration."""
    target = (px - _centre(camera)) / _focal(camera)
    rays = target.copy()
    for _ in range(30):
        reached = (distort(rays, camera) - _centre(camera)) / _focal(camera)
        rays += 0.8 * (target - reached)
    return np.asarray(rays)


def _remap_maps(pinhole: Camera, source_of) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[no-untyped-def]
    v, u = np.mgrid[: pinhole.height, : pinhole.width].astype(np.float64)
    source = source_of(np.column_stack([u.ravel(), v.ravel()]))
    maps = source.reshape(pinhole.height, pinhole.width, 2).astype(np.float32)
    return cv2.convertMaps(maps[..., 0], maps[..., 1], cv2.CV_16SC2)


def _fill_scale(filmed: Camera) -> float:
    """How much longer the pinhole's focal length must be for every pixel to have been filmed."""
    w, h = filmed.width - 1.0, filmed.height - 1.0
    along, down = np.arange(0, w + 1, BORDER_STEP_PX), np.arange(0, h + 1, BORDER_STEP_PX)
    border = np.concatenate(
        [np.column_stack([along, np.full(len(along), edge)]) for edge in (0.0, h)]
        + [np.column_stack([np.full(len(down), edge), down]) for edge in (0.0, w)]
    )
    straight = (border - _centre(filmed)) / _focal(filmed)
    true = undistort(border, filmed)
    outward = np.linalg.norm(straight, axis=1) / np.maximum(np.linalg.norm(true, axis=1), 1e-9)
    return float(max(1.0, outward.max()))


def _centre(camera: Camera) -> np.ndarray:
    return np.array([camera.cx, camera.cy])


def _focal(camera: Camera) -> np.ndarray:
    return np.array([camera.fx, camera.fy])
