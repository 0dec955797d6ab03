# SPDX-License-Identifier: Apache-2.0
"""Where to look from: which way is up, the plan's axes, and two cameras that see everything."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64

from worldsystem_core.frames import Camera
from worldsystem_core.geometry.se3 import inverse, look_at, transform
from worldsystem_core.trajectory import StampedPoses

FIELD_OF_VIEW_RAD = np.radians(35.0)
ELEVATION_RAD = np.radians(38.0)
MARGIN = 1.06
ONE_SIDED = 0.5


@dataclass(frozen=True, eq=False)
class View:
    """A virtual camera (x right, y down, z forward) and its picture's size."""

    world_from_cam: Float64[np.ndarray, "4 4"]
    camera: Camera


def vertical(poses: StampedPoses) -> Float64[np.ndarray, "3"]:
    """The coordinate axis that the cameras' mean upward direction is nearest to; z without any.

    People and gimbals hold cameras upright, so that this finds the vertical of a frame that came
    from the first camera as well as that of a map.
    """
    up = -poses.world_from_cam[:, :3, 1]
    up = up[np.isfinite(up).all(axis=1)]
    if not len(up):
        return np.array([0.0, 0.0, 1.0])
    mean = up.mean(axis=0)
    at = int(np.argmax(np.abs(mean)))
    axis = np.zeros(3)
    axis[at] = 1.0 if mean[at] >= 0 else -1.0
    return axis


def upright_from_world(
    points: Float[np.ndarray, "n 3"], up: Float[np.ndarray, "3"]
) -> Float64[np.ndarray, "3 3"]:
    """Rotation whose rows are: the points' widest horizontal direction, the one across it, `up`."""
    helper = np.eye(3)[int(np.argmin(np.abs(up)))]
    east = np.cross(helper, up)
    east /= np.linalg.norm(east)
    north = np.cross(up, east)
    flat = points @ np.stack([east, north], axis=1)
    if len(flat) >= 2:
        _, vectors = np.linalg.eigh(np.cov(flat.T))
        widest = vectors[:, -1]
        east = widest[0] * east + widest[1] * north
        north = np.cross(up, east)
    return np.stack([east, north, up])


def mean_viewing_direction(poses: StampedPoses) -> Float64[np.ndarray, "3"]:
    """Mean of the cameras' forward directions; about 0 long when they looked all around."""
    forward = poses.world_from_cam[:, :3, 2]
    forward = forward[np.isfinite(forward).all(axis=1)]
    return np.asarray(forward.mean(axis=0) if len(forward) else np.zeros(3), dtype=np.float64)


def core_of(points: Float[np.ndarray, "n 3"], reach: float) -> Float[np.ndarray, "m 3"]:
    """The points within `reach` median distances of their median; far outliers are left out.

    Bodies filled evenly reach 1.4 (disc) to 2 (line) median distances from their middle, so that
    2.2 keeps them whole and yet cuts off a plain that runs to the horizon.
    """
    if not len(points):
        return points
    distances = np.linalg.norm(points - np.median(points, axis=0), axis=1)
    return np.asarray(points[distances <= reach * np.median(distances)])


def two_views(
    points: Float[np.ndarray, "n 3"],
    up: Float[np.ndarray, "3"],
    looking: Float[np.ndarray, "3"],
    width: int,
    height: int,
) -> tuple[View, View]:
    """Two cameras above the scene that see all points.

    They look as the cameras of the run did, from the left and from the right of `looking`; when
    that is short, because the run looked all around, they stand on opposite sides.
    """
    upright = upright_from_world(points, up)
    azimuth_rad, apart_rad = np.radians(30.0), np.radians(180.0)
    ahead, across = upright[:2] @ looking
    if np.hypot(ahead, across) > ONE_SIDED:
        azimuth_rad, apart_rad = np.arctan2(-across, -ahead), np.radians(70.0)
    left, right = (
        _view(points, upright, azimuth_rad + turn * 0.5 * apart_rad, width, height)
        for turn in (-1.0, 1.0)
    )
    return left, right


def _view(
    points: np.ndarray, upright: np.ndarray, azimuth_rad: float, width: int, height: int
) -> View:
    centre = 0.5 * (points.min(axis=0) + points.max(axis=0))
    sideways = np.cos(azimuth_rad) * upright[0] + np.sin(azimuth_rad) * upright[1]
    toward_eye = np.cos(ELEVATION_RAD) * sideways + np.sin(ELEVATION_RAD) * upright[2]
    camera = Camera.from_horizontal_fov(width, height, FIELD_OF_VIEW_RAD)
    world_from_turned = look_at(centre + toward_eye, centre, upright[2])
    world_from_turned[:3, 3] = centre
    turned = transform(inverse(world_from_turned), points)
    middle = 0.5 * (turned[:, :2].min(axis=0) + turned[:, :2].max(axis=0))
    turned[:, :2] -= middle
    reach = np.abs(turned[:, :2]) * MARGIN * 2 * np.array([camera.fx / width, camera.fy / height])
    distance = max(float((reach - turned[:, 2:]).max()), 1e-6)
    offset = world_from_turned[:3, :3] @ np.array([*middle, -distance])
    world_from_cam = world_from_turned.copy()
    world_from_cam[:3, 3] = centre + offset
    return View(world_from_cam, camera)
