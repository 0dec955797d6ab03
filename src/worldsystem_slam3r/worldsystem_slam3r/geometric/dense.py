# SPDX-License-Identifier: Apache-2.0
"""Dense depth of a keyframe: a plane sweep over neighbours, smoothed by semi-global matching.

Planes lie at equal steps of inverse depth (Collins, CVPR 1996); the cost is the census distance
(Zabih and Woodfill, ECCV 1994), which exposure changes leave alone; costs are aggregated along
four paths (Hirschmüller, IEEE TPAMI 2008). Each keyframe is swept alone first and judged once its
neighbours were swept too: what they contradict, or do not confirm and matches poorly, is unknown
(NaN): sky, mirrors, bare walls.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float32, Float64, UInt8, UInt32

from worldsystem_core.frames import Camera
from worldsystem_core.geometry.se3 import inverse
from worldsystem_core.pages import in_own_pages
from worldsystem_slam3r.geometric import refine_kernels
from worldsystem_slam3r.geometric import sweep_kernels as kernels

STEP_PENALTY = 20
JUMP_PENALTY_EDGE = 100
JUMP_PENALTY = 200
ALONE_QUALITY, SECONDED_QUALITY = 0.3, 0.1
"""Least quality of matching where no neighbour, and where one, agrees."""
AGREEMENT = 0.02
"""Relative difference of depth up to which two keyframes see the same surface."""


@dataclass(frozen=True, kw_only=True, eq=False)
class View:
    """A keyframe as dense depth needs it; made once by `View.of`, then only read.

    `codes` has the size of the tracked picture, `grey` half of it.
    """

    camera: Camera
    grey: UInt8[np.ndarray, "h w"]
    tracked: Float32[np.ndarray, "hh ww"]
    codes: UInt32[np.ndarray, "hh ww"]
    texture: Float32[np.ndarray, "h w"]

    @staticmethod
    def of(grey: UInt8[np.ndarray, "hh ww"], camera: Camera) -> View:
        """Prepare a tracked picture (even width and height) of the undistorted `camera`."""
        h, w = grey.shape[0] // 2, grey.shape[1] // 2
        half = cv2.resize(grey, (w, h), interpolation=cv2.INTER_AREA)
        # A 2×2 mean puts pixel x at x − 0.5, so that odd pixels are the half-size picture's own.
        codes = kernels.census(cv2.blur(grey, (2, 2)))
        f = half.astype(np.float32)
        variance = cv2.blur(f * f, (5, 5)) - cv2.blur(f, (5, 5)) ** 2
        smooth = cv2.GaussianBlur(grey, (3, 3), 0.6).astype(np.float32)
        rough = np.sqrt(np.maximum(variance, 0.0))
        half, smooth, codes, rough = in_own_pages(half, smooth, codes, rough)
        return View(camera=camera, grey=half, tracked=smooth, codes=codes, texture=rough)

    @property
    def dense_camera(self) -> Camera:
        """The camera of the half-size picture, to which depth is aligned."""
        return self.camera.resized(self.grey.shape[1], self.grey.shape[0])


@dataclass(frozen=True, kw_only=True, eq=False)
class DepthMap:
    """Inverse depth [1 / world units] with NaN = unknown, and confidence in [0, 1]."""

    inverse_depth: Float32[np.ndarray, "h w"]
    confidence: Float32[np.ndarray, "h w"]

    @property
    def depth(self) -> Float32[np.ndarray, "h w"]:
        """Depth along the camera's axis [world units], NaN = unknown."""
        return np.float32(1.0) / self.inverse_depth


@dataclass(frozen=True, eq=False)
class Neighbour:
    """Another keyframe: its view and where it is relative to the reference."""

    view: View
    neighbour_from_reference: Float64[np.ndarray, "4 4"]
    keyframe_id: int = -1


@dataclass(frozen=True, kw_only=True, eq=False)
class Swept:
    """What one sweep found, not judged yet: inverse depth, how distinct it is, what it costs."""

    inverse_depth: Float32[np.ndarray, "h w"]
    distinct: Float32[np.ndarray, "h w"]
    own_cost: Float32[np.ndarray, "h w"]


def sweep(
    reference: View,
    neighbours: list[Neighbour],
    depth_range: tuple[float, float],
    planes: int,
) -> Swept:
    """Depth of `reference` between `depth_range` (nearest, farthest) [world units], not judged.

    The first plane stands for everything beyond the range: what matches there best is unknown, as
    is all where there is no neighbour.
    """
    h, w = reference.grey.shape
    if not neighbours:
        return Swept(
            inverse_depth=np.full((h, w), np.nan, np.float32),
            distinct=np.zeros((h, w), np.float32),
            own_cost=np.full((h, w), 255.0, np.float32),
        )
    near, far = depth_range
    step = (1.0 / near - 1.0 / far) / (planes - 3)
    first = max(1.0 / far - step, 0.0)
    rho = (first + step * np.arange(planes)).astype(np.float32)
    H, b = _warps(reference, neighbours)
    codes = np.stack([neighbour.view.codes for neighbour in neighbours])
    own_codes = np.ascontiguousarray(reference.codes[1::2, 1::2])
    cost = kernels.cost_volume(own_codes, codes, H, b, rho)
    total = kernels.aggregate(
        cost,
        reference.grey,
        np.int16(STEP_PENALTY),
        np.int16(JUMP_PENALTY_EDGE),
        np.int16(JUMP_PENALTY),
    )
    plane, distinct, own_cost = kernels.best_planes(total, cost)
    inverse_depth = np.float32(first) + np.float32(step) * plane
    inverse_depth = _sharpened(reference, neighbours, inverse_depth, np.float32(step))
    return Swept(
        inverse_depth=np.asarray(inverse_depth, np.float32), distinct=distinct, own_cost=own_cost
    )


def _sharpened(
    reference: View, neighbours: list[Neighbour], inverse_depth: np.ndarray, step: np.float32
) -> np.ndarray:
    """Depth between the planes, from grey values, averaged over the surface around each pixel."""
    H, b = _warps(reference, neighbours, offset_px=0.0)
    pictures = np.stack([neighbour.view.tracked for neighbour in neighbours])
    refined, information = refine_kernels.refine(
        reference.tracked, pictures, H, b, inverse_depth, step
    )
    return np.asarray(refine_kernels.smooth(refined, information, step))


def _warps(
    reference: View, neighbours: list[Neighbour], *, offset_px: float = 0.5
) -> tuple[np.ndarray, np.ndarray]:
    """`H (u, v, 1) + ρ b`: dense reference pixel to the neighbour's pixel.

    `offset_px` is added to the neighbour's pixel: ½ for census pictures, whose 2×2 mean moves them.
    """
    K_inverse = np.linalg.inv(reference.dense_camera.K)
    shift = np.array([[1, 0, offset_px], [0, 1, offset_px], [0, 0, 1.0]])
    H, b = [], []
    for neighbour in neighbours:
        K = shift @ neighbour.view.camera.K
        pose = neighbour.neighbour_from_reference
        H.append(K @ pose[:3, :3] @ K_inverse)
        b.append(K @ pose[:3, 3])
    return np.array(H, np.float32), np.array(b, np.float32)


def judged(
    reference: View, swept: Swept, judges: list[tuple[Neighbour, Float32[np.ndarray, "h w"]]]
) -> DepthMap:
    """What of a sweep to believe: by how well it matches, and by its neighbours' inverse depths.

    Two neighbours that agree make up for poor matching; one that agrees, or none, does not.
    """
    inverse_depth = swept.inverse_depth
    agree, against = _agreement(reference, judges, inverse_depth)
    quality = np.clip(swept.distinct / 0.45, 0.0, 1.0)
    quality *= np.clip(1.6 - swept.own_cost / 60.0, 0.0, 1.0)
    quality *= np.clip(reference.texture / 3.0, 0.0, 1.0)
    support = np.where(agree >= 2, 1.0, np.where(agree == 1, 0.7, 0.4))
    confidence = support * (0.3 * (agree > 0) + (1.0 - 0.3 * (agree > 0)) * quality)
    bad = ~np.isfinite(inverse_depth) | (inverse_depth <= 0)
    bad |= (against > agree) | ((agree == 0) & (quality < ALONE_QUALITY))
    bad |= ((agree == 1) & (quality < SECONDED_QUALITY)) | (confidence < 0.1)
    bad |= _speckles(inverse_depth, bad)
    inverse_depth = np.where(bad, np.nan, inverse_depth).astype(np.float32)
    inverse_depth, confidence = in_own_pages(
        inverse_depth, np.where(bad, 0.0, confidence).astype(np.float32)
    )
    return DepthMap(inverse_depth=inverse_depth, confidence=confidence)


def _speckles(inverse_depth: np.ndarray, bad: np.ndarray) -> np.ndarray:
    """Islands too small to be a surface."""
    known = inverse_depth[~bad]
    if len(known) == 0:
        return np.zeros_like(bad)
    unit = float(np.median(known)) / 500.0
    levels = np.where(bad, 0, np.clip(inverse_depth / unit, 1, 32000)).astype(np.int16)
    cv2.filterSpeckles(levels, 0, 80, 25)
    return np.asarray((levels == 0) & ~bad)


def _agreement(
    reference: View, judges: list[tuple[Neighbour, np.ndarray]], inverse_depth: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    if not judges:
        zeros = np.zeros(inverse_depth.shape, np.int8)
        return zeros, zeros
    K_inverse = np.linalg.inv(reference.dense_camera.K)
    H, b = [], []
    for judge, _ in judges:
        K, pose = judge.view.dense_camera.K, judge.neighbour_from_reference
        H.append(K @ pose[:3, :3] @ K_inverse)
        b.append(K @ pose[:3, 3])
    agree, against = kernels.agreement(
        inverse_depth.astype(np.float32),
        np.stack([seen for _, seen in judges]),
        np.array(H, np.float32),
        np.array(b, np.float32),
        np.float32(1.0),
        np.float32(AGREEMENT),
    )
    return agree, against


def relative(
    world_from_reference: Float64[np.ndarray, "4 4"], world_from_other: Float64[np.ndarray, "4 4"]
) -> Float64[np.ndarray, "4 4"]:
    """`other_from_reference`."""
    return np.asarray(inverse(world_from_other) @ world_from_reference)
