# SPDX-License-Identifier: Apache-2.0
"""Walls: large planes with nearly nothing behind them, remembered in the map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Float64, Int16, UInt8

from worldsystem_core.geometry.se3 import transform
from worldsystem_segment.config import SegmentConfig
from worldsystem_segment.geometric.ground_kernels import sampled
from worldsystem_segment.geometric.pixel_kernels import four_channels
from worldsystem_segment.geometric.plane_kernels import area_of, doubled, first_plane
from worldsystem_segment.geometric.up import PoseOf
from worldsystem_segment.objects.normals import planes_of
from worldsystem_segment.objects.view import View

BLOCK_PX = 16
PLANE_ROUGHNESS = 0.02  # scene unit at the median depth
MAX_BEHIND_FRACTION = 0.05  # a house stands before the land; a room's wall ends it
RIM_PX = 2
SAMPLE_PX = 4  # of the points that are looked for behind a plane
MAX_WALLS = 64
MARGIN = 0.15  # scene unit: how far beyond what was seen a wall may go on


@dataclass
class Wall:
    """A plane n.p + d = 0, n towards the room, anchored to the keyframe that first saw it.

    It reaches `radius` around `centre_cam`; both grow as more of it is seen.
    """

    id: int
    keyframe_id: int
    plane_cam: Float64[np.ndarray, "4"]
    centre_cam: Float64[np.ndarray, "3"]
    radius: float

    def stretch(self, centre_cam: Float64[np.ndarray, "3"], radius: float) -> None:
        """Reach as far as another sighting of it [both in the anchor's camera frame]."""
        apart = float(np.linalg.norm(centre_cam - self.centre_cam))
        self.radius = max(self.radius, apart + radius)


@dataclass
class WallMemory:
    """The walls seen so far; the oldest goes when there are too many."""

    walls: list[Wall] = field(default_factory=list)

    def in_world(self, pose_of: PoseOf) -> list[tuple[Wall, Float64[np.ndarray, "4"]]]:
        """Every remembered wall whose keyframe has a pose, with its plane in the world."""
        posed = ((wall, pose_of(wall.keyframe_id)) for wall in self.walls)
        return [(w, plane_in(pose, w.plane_cam)) for w, pose in posed if pose is not None]

    def add(self, wall: Wall) -> list[Wall]:
        """Remember `wall`; which is forgotten for it, the oldest one beyond the limit."""
        self.walls.append(wall)
        gone = self.walls[:-MAX_WALLS]
        del self.walls[:-MAX_WALLS]
        return gone

    def hang_on(
        self, keyframe_id: int, heir: int, heir_from_keyframe: Float64[np.ndarray, "4 4"]
    ) -> None:
        """Walls of a keyframe go on with another one."""
        for wall in self.walls:
            if wall.keyframe_id == keyframe_id:
                wall.keyframe_id = heir
                wall.plane_cam = plane_in(heir_from_keyframe, wall.plane_cam)
                wall.centre_cam = transform(heir_from_keyframe, wall.centre_cam[None])[0]

    def forget(self, keyframe_ids: set[int]) -> list[Wall]:
        """Drop walls anchored to withdrawn keyframes; which those were."""
        gone = [wall for wall in self.walls if wall.keyframe_id in keyframe_ids]
        self.walls = [wall for wall in self.walls if wall.keyframe_id not in keyframe_ids]
        return gone


def same_plane(
    planes: Float64[np.ndarray, "n 4"], other: Float64[np.ndarray, "4"]
) -> Bool[np.ndarray, "n"]:
    """Which planes of one frame agree with another within 14 degrees and 0.06 scene units."""
    near = np.abs(planes[:, 3] - other[3]) < 0.06
    return np.asarray((planes[:, :3] @ other[:3] > 0.97) & near)


def plane_in(
    target_from_source: Float64[np.ndarray, "4 4"], plane: Float64[np.ndarray, "4"]
) -> Float64[np.ndarray, "4"]:
    """A plane (n, d) of the source frame expressed in the target frame."""
    normal = target_from_source[:3, :3] @ plane[:3]
    return np.append(normal, plane[3] - normal @ target_from_source[:3, 3])


def reach_of(view: View, region: Bool[np.ndarray, "h w"]) -> tuple[Float64[np.ndarray, "3"], float]:
    """Centre in the camera frame and radius of a region's points, without the farthest tenth."""
    pixels = np.flatnonzero(region)
    points = view.points_at(pixels[:: max(1, len(pixels) // 300)])
    centre = np.median(points, axis=0).astype(np.float64)
    away = np.sort(np.linalg.norm(points - centre, axis=1))
    return centre, float(away[int(0.9 * (len(away) - 1))])


def find_planes(
    view: View, pool: Bool[np.ndarray, "h w"]
) -> tuple[UInt8[np.ndarray, "h w"], Float64[np.ndarray, "n 4"]]:
    """Planar regions of `pool`: per pixel the plane's index (255 = none), and the planes.

    Normals of the returned planes look towards the camera (d > 0).
    """
    none = np.full(pool.shape, 255, np.uint8)
    if np.count_nonzero(pool) < 4 * BLOCK_PX**2:
        return none, np.zeros((0, 4))
    median = float(np.median(view.depth[::2, ::2][pool[::2, ::2]]))
    # findPlanes reads four channels, whatever its manual says
    points = four_channels(planes_of(view.points_cam), pool, 2)
    normals = four_channels(planes_of(view.normals), pool, 2)
    sizes = (BLOCK_PX // 2, BLOCK_PX**2 // 2, PLANE_ROUGHNESS * median)
    labels, found = cv2.findPlanes(points, normals, None, None, *sizes)
    if found is None:
        return none, np.zeros((0, 4))
    planes = np.asarray(found, np.float64).reshape(-1, 4)
    planes *= np.where(planes[:, 3:] < 0, -1.0, 1.0)
    return np.asarray(doubled(labels, pool)), planes


def closes_scene(
    view: View, planes: Float64[np.ndarray, "n 4"], up_cam: Float32[np.ndarray, "3"] | None
) -> Bool[np.ndarray, "n"]:
    """Which planes are upright or level and have hardly any point behind them.

    A roof is neither upright nor level, and a house that stands free shows land behind it.
    """
    normals, offsets = planes[:, :3].astype(np.float32), planes[:, 3].astype(np.float32)
    sample = sampled(planes_of(view.points_cam), view.valid, SAMPLE_PX)
    behind = normals @ sample + offsets[:, None] < np.float32(-0.05) * sample[2]
    closing = behind.mean(axis=1) < MAX_BEHIND_FRACTION
    if up_cam is not None:
        tilt = np.abs(normals @ up_cam)
        closing &= (tilt <= 0.3) | (tilt >= 0.9)
    return np.asarray(closing)


def is_wall(view: View, region: Bool[np.ndarray, "h w"], min_area: float) -> bool:
    """Whether a region of a plane that closes the scene is large and runs out of the picture.

    Out of its known part: dense depth from motion ends before the picture does.
    """
    rows = np.flatnonzero(view.valid.mean(axis=1) > 0.05)
    columns = np.flatnonzero(view.valid.mean(axis=0) > 0.05)
    if not len(rows) or not len(columns):
        return False
    inner = np.zeros(region.shape, bool)
    inner[
        rows[0] + RIM_PX : rows[-1] + 1 - RIM_PX, columns[0] + RIM_PX : columns[-1] + 1 - RIM_PX
    ] = True
    if not (region & ~inner).any():
        return False
    focal = np.float32(view.camera.fx * view.camera.fy)
    points, normals = planes_of(view.points_cam), planes_of(view.normals)
    return bool(area_of(points, normals, region, focal) >= min_area)


def first_surface(
    view: View,
    planes: Sequence[Float64[np.ndarray, "4"]],
    which: Bool[np.ndarray, "h w"],
    config: SegmentConfig,
    within: Sequence[tuple[Float64[np.ndarray, "3"], float]] = (),
) -> Int16[np.ndarray, "h w"]:
    """Index of the first plane whose surface each pixel of `which` is on; -1 on none.

    On it: near it and looking its way, or very near it. `within` are points in the camera frame,
    one a plane, and how far from them the surface reaches.
    """
    tolerance = np.float32(max(2.0 * config.ground_tolerance, 3.0 * view.noise))
    reaches = within or [(np.zeros(3), np.inf)] * len(planes)
    found = first_plane(
        planes_of(view.points_cam), planes_of(view.normals), which,
        np.array(planes, np.float32).reshape(-1, 4), tolerance,
        np.array([centre for centre, _ in reaches], np.float32).reshape(-1, 3),
        np.array([radius for _, radius in reaches], np.float32),
    )  # fmt: skip
    return np.asarray(found)
