# SPDX-License-Identifier: Apache-2.0
"""A keyframe made compact: what is fused, kept, and fused again when a keyframe moves."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import warp as wp
from jaxtyping import Bool, Float32, Float64, Int32, UInt8, UInt16, UInt32

from worldsystem_core.frames import Camera
from worldsystem_core.geometry.se3 import inverse, rotation_angle_rad
from worldsystem_core.pages import in_own_pages
from worldsystem_core.reconstruction import Keyframe
from worldsystem_mesh.config import MeshConfig
from worldsystem_mesh.kernels_view import compact_pixels
from worldsystem_mesh.launcher import over
from worldsystem_mesh.sources import NotAPinhole, with_fitting_camera

DEPTH_STEPS = 65535
FINE_RATIO = 8.0
"""Of the limit to the median: at 8, steps are 1/8000 of the median depth."""

LEAST_CONFIDENCE = 1e-6
MEDIAN_STRIDE = 3


def _no_blocks() -> Int32[np.ndarray, "0"]:
    return np.zeros(0, np.int32)


@dataclass(frozen=True, kw_only=True, eq=False)
class StoredView:
    """A keyframe with depth in steps of `depth_step` world units (0 = unknown), and in `paint` red,
    green, blue and, in the highest byte, confidence 0..255.

    `scale` is the factor on its depths since it was told; `depth_step` and `median` have it in.
    `order` is its turn among all that were fused. `band` are the blocks near the surface that it
    saw, `free` those that it saw through; both are numbers of blocks of the volume. The arrays are
    what is fused, also the first time, so that fusing again gives the same.
    """

    id: int
    order: int
    camera: Camera
    depth: UInt16[np.ndarray, "h w"]
    depth_step: float
    paint: UInt32[np.ndarray, "h w"]
    world_from_cam: Float64[np.ndarray, "4 4"]
    median: float
    scale: float = 1.0
    band: Int32[np.ndarray, "b"] = field(default_factory=_no_blocks)
    free: Int32[np.ndarray, "f"] = field(default_factory=_no_blocks)

    @property
    def bytes(self) -> int:
        arrays = (self.depth, self.paint, self.band, self.free)
        return sum(array.nbytes for array in arrays)

    @property
    def rgb(self) -> UInt8[np.ndarray, "h w 3"]:
        return np.asarray(self.paint.view(np.uint8).reshape(*self.paint.shape, 4)[..., :3])

    @property
    def confidence(self) -> UInt8[np.ndarray, "h w"]:
        """Confidence in 0..255."""
        return np.asarray((self.paint >> 24).astype(np.uint8))

    @property
    def blocks(self) -> Int32[np.ndarray, "b+f"]:
        """All blocks that it was fused into."""
        return np.concatenate([self.band, self.free])

    def placed(self, world_from_cam: Float64[np.ndarray, "4 4"], scale: float) -> StoredView:
        """The same view with its camera elsewhere and its depths `scale` times as first told."""
        grown = scale / self.scale
        return replace(
            self,
            world_from_cam=np.array(world_from_cam, dtype=np.float64),
            depth_step=self.depth_step * grown,
            median=self.median * grown,
            scale=scale,
        )

    def displacement(self, there: StoredView) -> float:
        """Bound on how far a point at median depth goes when the view becomes `there`
        [world units]."""
        moved = inverse(self.world_from_cam) @ there.world_from_cam
        turned = rotation_angle_rad(moved[:3, :3]) * there.median
        shifted = there.world_from_cam[:3, 3] - self.world_from_cam[:3, 3]
        stretched = abs(there.median - self.median)
        return float(np.linalg.norm(shifted) + turned + stretched)


def median_depth(keyframe: Keyframe, min_confidence: float) -> float:
    """Median of the depths that are known and trusted [world units]; NaN when there is none.

    Taken over every third row and column, and over all pixels only when those know nothing.
    """
    for stride in (MEDIAN_STRIDE, 1):
        depth = keyframe.pointmap[::stride, ::stride, 2]
        known = _known(depth, keyframe.confidence[::stride, ::stride], min_confidence)
        if known.any():
            return float(np.median(depth[known]))
    return float("nan")


def median_as_fused(keyframe: Keyframe, min_confidence: float) -> float:
    """Median depth of its points as they would be fused [world units]; NaN where they cannot be."""
    try:
        return median_depth(with_fitting_camera(keyframe), min_confidence)
    except NotAPinhole:
        return float("nan")


def view_from_keyframe(keyframe: Keyframe, config: MeshConfig, order: int) -> StoredView | None:
    """Compact `keyframe`; None when it has no point that may be fused.

    Left out are points that are NaN or not before the camera, less trusted than
    `min_confidence`, or farther than `max_depth_ratio` times the keyframe's median depth.
    """
    if not np.isfinite(keyframe.world_from_cam).all():
        return None
    median = median_depth(keyframe, config.min_confidence)
    if not np.isfinite(median):
        return None
    farthest = _farthest(keyframe, config, median)
    shape = keyframe.confidence.shape
    depth, paint = np.empty(shape, np.uint16), np.empty(shape, np.uint32)
    inputs = [
        over(np.asarray(keyframe.pointmap, np.float32), wp.float32),
        over(np.asarray(keyframe.confidence, np.float32), wp.float32),
        over(np.asarray(keyframe.rgb, np.uint8), wp.uint8),
        farthest,
        max(config.min_confidence, LEAST_CONFIDENCE),
        over(depth, wp.uint16),
        over(paint, wp.uint32),
    ]
    wp.launch(compact_pixels, dim=shape[0], inputs=inputs, device="cpu")
    if not depth.any():
        return None
    depth, paint = in_own_pages(depth, paint)
    return StoredView(
        id=keyframe.id,
        order=order,
        camera=keyframe.camera,
        depth=depth,
        depth_step=farthest / DEPTH_STEPS,
        paint=paint,
        world_from_cam=np.array(keyframe.world_from_cam, dtype=np.float64),
        median=median,
    )


def _farthest(keyframe: Keyframe, config: MeshConfig, median: float) -> float:
    """Depth that the largest step stands for: the limit, or less where nothing is near the limit
    and steps would be coarse."""
    limit = config.max_depth_ratio * median
    if config.max_depth_ratio <= FINE_RATIO:
        return limit
    depth = keyframe.pointmap[..., 2]
    known = _known(depth, keyframe.confidence, config.min_confidence) & (depth <= limit)
    return max(float(np.where(known, depth, 0.0).max()), median)


def painted(
    rgb: UInt8[np.ndarray, "h w 3"], confidence: UInt8[np.ndarray, "h w"]
) -> UInt32[np.ndarray, "h w"]:
    """Colour and confidence in one number a pixel."""
    paint = np.empty((*confidence.shape, 4), np.uint8)
    paint[..., :3] = rgb
    paint[..., 3] = confidence
    return paint.view("<u4").reshape(confidence.shape)


def _known(
    depth: Float32[np.ndarray, "h w"],
    confidence: Float32[np.ndarray, "h w"],
    min_confidence: float,
) -> Bool[np.ndarray, "h w"]:
    """Comparisons with NaN are false, so this leaves NaN out."""
    trusted = (confidence > 0.0) & (confidence >= min_confidence) & (confidence < np.inf)
    return np.asarray((depth > 0.0) & (depth < np.inf) & trusted)
