# SPDX-License-Identifier: Apache-2.0
"""Taking the structure away: ground and walls go, what is left may be objects."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Float64

from worldsystem_core.geometry.se3 import inverse, transform
from worldsystem_segment.config import SegmentConfig
from worldsystem_segment.geometric.ground import find_ground
from worldsystem_segment.geometric.up import PoseOf, UpMemory
from worldsystem_segment.geometric.walls import (
    MARGIN,
    Wall,
    WallMemory,
    closes_scene,
    find_planes,
    first_surface,
    is_wall,
    plane_in,
    reach_of,
    same_plane,
)
from worldsystem_segment.objects.view import View

PlacedWalls = list[tuple[Wall, Float64[np.ndarray, "4"]]]


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
    """Finds ground and walls and remembers which way is up and where walls stand.

    The ids of walls that are forgotten are given back.
    """

    def __init__(
        self, config: SegmentConfig, take_id: Callable[[], int], give_back: Callable[[int], None]
    ) -> None:
        self.config = config
        self._take_id, self._give_back = take_id, give_back
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
        self._free(self._walls.forget(keyframe_ids))

    def hang_on(
        self, keyframe_id: int, heir: int, heir_from_keyframe: Float64[np.ndarray, "4 4"]
    ) -> None:
        """Let what hangs on a keyframe hang on another one."""
        self._up.hang_on(keyframe_id, heir, heir_from_keyframe)
        self._walls.hang_on(keyframe_id, heir, heir_from_keyframe)

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
        planes_known = np.array([plane for _, plane in known]).reshape(-1, 4)
        labels, planes = find_planes(view, pool)
        found: dict[int, Bool[np.ndarray, "h w"]] = {}  # a wall may be seen as several planes
        closes = closes_scene(view, planes, up_cam)
        for index, (plane_cam, closing) in enumerate(zip(planes, closes, strict=True)):
            plane_world = plane_in(view.world_from_cam, plane_cam)
            same = np.flatnonzero(same_plane(planes_known, plane_world))
            alike = [known[place][0] for place in same]
            if not (alike or closing) or not (labels == index).any():
                continue
            # growing planes is sensitive to rounding; what lies on the plane is not
            surface = first_surface(view, [plane_cam], pool, self.config)
            region = (labels == index) | (surface == 0)
            reach = reach_of(view, region)
            wall = _recalled(view, alike, reach, pose_of)
            if wall is None and closing and is_wall(view, region, self.config.wall_area):
                wall = Wall(self._take_id(), view.keyframe_id, plane_cam, *reach)
                self._free(self._walls.add(wall))
            if wall is not None:
                found[wall.id] = found[wall.id] | region if wall.id in found else region
        for region in found.values():
            pool = pool & ~region
        return [*found.items(), *self._unseen_walls(view, pool, known, set(found), pose_of)]

    def _free(self, walls: list[Wall]) -> None:
        for wall in walls:
            if wall.id:
                self._give_back(wall.id)

    def _unseen_walls(
        self,
        view: View,
        pool: Bool[np.ndarray, "h w"],
        known: PlacedWalls,
        drawn: set[int],
        pose_of: PoseOf,
    ) -> list[tuple[int, Bool[np.ndarray, "h w"]]]:
        # parts of remembered walls too small to be found as planes
        cam_from_world = inverse(view.world_from_cam)
        ids, planes, reaches = [], [], []
        for wall, plane in known:
            pose = pose_of(wall.keyframe_id)
            if wall.id in drawn or pose is None:
                continue
            centre = transform(cam_from_world @ pose, wall.centre_cam)
            ids.append(wall.id)
            planes.append(plane_in(cam_from_world, plane))
            reaches.append((centre, wall.radius + MARGIN))
        if not ids:
            return []
        surface = first_surface(view, planes, pool, self.config, reaches)
        seen = np.flatnonzero(np.bincount(surface.ravel() + 1)[1:])
        return [(ids[index], surface == index) for index in seen]


def _recalled(
    view: View, alike: list[Wall], reach: tuple[Float64[np.ndarray, "3"], float], pose_of: PoseOf
) -> Wall | None:
    # the remembered wall that a region of its plane continues, which then reaches as far
    centre, radius = reach
    for wall in alike:
        pose = pose_of(wall.keyframe_id)
        if pose is None:
            continue
        centre_there = transform(inverse(pose) @ view.world_from_cam, centre)
        if np.linalg.norm(centre_there - wall.centre_cam) < wall.radius + radius + MARGIN:
            wall.stretch(centre_there, radius)
            return wall
    return None
