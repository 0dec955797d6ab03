# SPDX-License-Identifier: Apache-2.0
"""Taking the structure away: ground and walls go, what is left may be objects."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float32

from worldsystem_core.geometry.se3 import inverse
from worldsystem_segment.config import SegmentConfig
from worldsystem_segment.geometric.ground import find_ground
from worldsystem_segment.geometric.up import PoseOf, UpMemory
from worldsystem_segment.geometric.view import View
from worldsystem_segment.geometric.walls import (
    Wall,
    WallMemory,
    find_planes,
    is_wall,
    on_plane,
    plane_in,
    same_plane,
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Structure:
    """What of a view is structure: `regions` are (id, `floor` or `wall`, pixels).

    `pool` are the pixels that may be objects, `tall` those well above the ground.
    """

    pool: Bool[np.ndarray, "h w"]
    tall: Bool[np.ndarray, "h w"]
    up_cam: Float32[np.ndarray, "3"] | None
    regions: list[tuple[int, str, Bool[np.ndarray, "h w"]]]


class StructureFinder:
    """Finds ground and walls and remembers which way is up and where walls stand."""

    def __init__(self, config: SegmentConfig, take_id: Callable[[], int]) -> None:
        self.config = config
        self._take_id = take_id
        self._floor_id = 0
        self._up = UpMemory()
        self._walls = WallMemory()

    @property
    def keyframe_ids(self) -> set[int]:
        """Keyframes whose poses are still needed."""
        return self._up.keyframe_ids | {wall.keyframe_id for wall in self._walls.walls}

    def up_world(self, pose_of: PoseOf) -> Float32[np.ndarray, "3"] | None:
        """Up in the world, or None while unknown."""
        return self._up.world(pose_of)

    def forget(self, keyframe_ids: set[int]) -> None:
        """Drop what hangs on withdrawn keyframes."""
        self._up.forget(keyframe_ids)
        self._walls.forget(keyframe_ids)

    def find(
        self, view: View, up_fixed: Float32[np.ndarray, "3"] | None, pose_of: PoseOf
    ) -> Structure:
        """Split the view's valid pixels into ground, walls and the pool of possible objects."""
        up = self._up.world(pose_of) if up_fixed is None else up_fixed
        up_cam = None if up is None else view.rotation.T @ up
        pool = view.valid.copy()
        tall = view.valid
        regions = []
        ground = find_ground(view, up_cam, self.config)
        if ground is not None:
            up_cam = ground.up_cam
            self._up.add(view.keyframe_id, ground.up_cam)
            self._floor_id = self._floor_id or self._take_id()
            regions.append((self._floor_id, "floor", ground.mask))
            pool &= ~(ground.mask | ground.below)
            tall = ground.tall
        for wall_id, mask in self._find_walls(view, pool, up_cam, pose_of):
            regions.append((wall_id, "wall", mask & pool))
            pool &= ~mask
        pool = cv2.morphologyEx(pool.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
        return Structure(pool=pool > 0, tall=tall, up_cam=up_cam, regions=regions)

    def _find_walls(
        self,
        view: View,
        pool: Bool[np.ndarray, "h w"],
        up_cam: Float32[np.ndarray, "3"] | None,
        pose_of: PoseOf,
    ) -> list[tuple[int, Bool[np.ndarray, "h w"]]]:
        known = self._walls.in_world(pose_of)
        labels, planes = find_planes(view, pool)
        found: list[tuple[int, Bool[np.ndarray, "h w"]]] = []
        for index, plane_cam in enumerate(planes):
            if not (labels == index).any():
                continue
            # growing planes is sensitive to rounding; what lies on the plane is not
            region = (labels == index) | (on_plane(view, plane_cam, self.config) & pool)
            plane_world = plane_in(view.world_from_cam, plane_cam)
            wall = next((w for w, plane in known if same_plane(plane, plane_world)), None)
            area = self.config.wall_area
            if wall is None and is_wall(view, region, plane_cam, up_cam, area):
                wall = Wall(self._take_id(), view.keyframe_id, plane_cam)
                self._walls.add(wall)
            if wall is not None:
                found.append((wall.id, region))
        drawn = {wall_id for wall_id, _ in found}
        cam_from_world = inverse(view.world_from_cam)
        for wall, plane in known:
            if wall.id not in drawn:
                surface = on_plane(view, plane_in(cam_from_world, plane), self.config)
                found.append((wall.id, surface))
        return found
