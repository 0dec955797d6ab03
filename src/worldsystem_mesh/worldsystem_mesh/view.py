# SPDX-License-Identifier: Apache-2.0
"""A keyframe made compact: what is fused, kept for a while, and fused again when it moves."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float16, Float32, Float64, Int32, UInt8

from worldsystem_core.frames import Camera
from worldsystem_core.geometry.se3 import inverse, rotation_angle_rad
from worldsystem_core.reconstruction import Keyframe
from worldsystem_mesh.config import MeshConfig


@dataclass(frozen=True, kw_only=True, eq=False)
class StoredView:
    """A keyframe with its depth in voxels (0 = unknown) and its confidence in 0..255.

    `position_voxels` is the camera's place. `blocks` are the volume's blocks that it was fused
    into. The arrays are what is fused, also the first time: taking it out is exact.
    """

    id: int
    camera: Camera
    depth_voxels: Float16[np.ndarray, "h w"]
    confidence: UInt8[np.ndarray, "h w"]
    rgb: UInt8[np.ndarray, "h w 3"]
    world_from_cam: Float64[np.ndarray, "4 4"]
    median_voxels: float
    blocks: Int32[np.ndarray, "b"]
    point_scale: float = 1.0

    @property
    def bytes(self) -> int:
        arrays = (self.depth_voxels, self.confidence, self.rgb, self.blocks)
        return sum(array.nbytes for array in arrays)

    def placed(
        self, world_from_cam: Float64[np.ndarray, "4 4"], point_scale: float | None = None
    ) -> StoredView:
        """The same view with its camera elsewhere, its points `point_scale` times as at first."""
        there = replace(self, world_from_cam=np.array(world_from_cam, dtype=np.float64))
        if point_scale is None or point_scale == self.point_scale:
            return there
        ratio = point_scale / self.point_scale
        return replace(
            there,
            depth_voxels=(self.depth_voxels * np.float32(ratio)).astype(np.float16),
            median_voxels=self.median_voxels * ratio,
            point_scale=point_scale,
        )

    def displacement_voxels(
        self,
        world_from_cam: Float64[np.ndarray, "4 4"],
        voxel: float,
        point_scale: float | None = None,
    ) -> float:
        """Bound on how far a point at median depth goes when the camera moves there [voxels]."""
        moved = inverse(self.world_from_cam) @ world_from_cam
        turned = rotation_angle_rad(moved[:3, :3]) * self.median_voxels
        grown = 0.0 if point_scale is None else abs(point_scale / self.point_scale - 1.0)
        shift = float(np.linalg.norm(moved[:3, 3])) / voxel
        return shift + turned + grown * self.median_voxels


def median_depth(keyframe: Keyframe, min_confidence: float) -> float:
    """Median of the depths that are known and trusted [world units]; NaN when there is none."""
    depth = keyframe.pointmap[..., 2]
    known = _known(depth, keyframe.confidence, min_confidence)
    return float(np.median(depth[known])) if known.any() else float("nan")


def view_from_keyframe(keyframe: Keyframe, voxel: float, config: MeshConfig) -> StoredView | None:
    """Compact `keyframe`; None when it has no point that may be fused.

    Left out are points that are NaN or not before the camera, less trusted than
    `min_confidence`, or farther than `max_depth_ratio` times the keyframe's median depth.
    """
    depth = keyframe.pointmap[..., 2]
    known = _known(depth, keyframe.confidence, config.min_confidence)
    if not known.any() or not np.isfinite(keyframe.world_from_cam).all():
        return None
    median = float(np.median(depth[known]))
    known &= depth <= config.max_depth_ratio * median
    confidence = np.where(known, keyframe.confidence, 0.0).clip(0.0, 1.0)
    voxels = np.where(known, depth / voxel, 0.0).clip(0.0, np.finfo(np.float16).max)
    return StoredView(
        id=keyframe.id,
        camera=keyframe.camera,
        depth_voxels=voxels.astype(np.float16),
        confidence=np.rint(255.0 * confidence).astype(np.uint8),
        rgb=keyframe.rgb,
        world_from_cam=np.array(keyframe.world_from_cam),
        median_voxels=median / voxel,
        blocks=np.zeros(0, np.int32),
    )


def _known(
    depth: Float32[np.ndarray, "h w"],
    confidence: Float32[np.ndarray, "h w"],
    min_confidence: float,
) -> Bool[np.ndarray, "h w"]:
    trusted = np.isfinite(confidence) & (confidence > 0.0) & (confidence >= min_confidence)
    return np.asarray(np.isfinite(depth) & (depth > 0.0) & trusted)


class ViewStore:
    """The newest views within a memory budget; what falls out is counted in `evicted`."""

    def __init__(self, capacity_bytes: int) -> None:
        self._capacity_bytes = capacity_bytes
        self._views: OrderedDict[int, StoredView] = OrderedDict()
        self.bytes = 0
        self.evicted = 0

    def __len__(self) -> int:
        return len(self._views)

    def get(self, id: int) -> StoredView | None:
        return self._views.get(id)

    def grow(self, growth: float) -> None:
        """The world is measured in a unit `growth` times smaller: places and points grow."""
        for key, view in self._views.items():
            pose = view.world_from_cam.copy()
            pose[:3, 3] *= growth
            factor = view.point_scale * growth
            self._views[key] = replace(view, world_from_cam=pose, point_scale=factor)

    def put(self, view: StoredView) -> None:
        """Keep `view` in the place of the one with its id; the oldest leave when room is short.

        The view just put stays even when it alone is over the budget.
        """
        old = self._views.get(view.id)
        self.bytes += view.bytes - (old.bytes if old else 0)
        self._views[view.id] = view
        while self.bytes > self._capacity_bytes and len(self._views) > 1:
            oldest = next(iter(self._views))
            if oldest == view.id:
                self._views.move_to_end(oldest)
                continue
            self.bytes -= self._views.pop(oldest).bytes
            self.evicted += 1

    def pop(self, id: int) -> StoredView | None:
        """Take the view out, or None when it is not here."""
        view = self._views.pop(id, None)
        if view is not None:
            self.bytes -= view.bytes
        return view
