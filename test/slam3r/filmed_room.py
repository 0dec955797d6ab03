# SPDX-License-Identifier: Apache-2.0
"""A textured box room seen from inside: exact pictures and depth of any camera, no renderer."""

from __future__ import annotations

import cv2
import numpy as np

from worldsystem_core.frames import Camera, Frame
from worldsystem_core.geometry.se3 import look_at
from worldsystem_slam3r.geometric.lens import undistort

HALF_SIZE = np.array([4.0, 3.0, 5.0])
TEXELS_PER_UNIT = 60.0
PERIOD_NS = 66_666_667


def _texture() -> np.ndarray:
    rng = np.random.default_rng(3)
    total = np.zeros((1024, 1024), np.float32)
    for cell, weight in ((4, 0.5), (16, 0.8), (64, 1.0)):
        noise = rng.uniform(-1, 1, (1024 // cell, 1024 // cell)).astype(np.float32)
        total += weight * cv2.resize(noise, (1024, 1024), interpolation=cv2.INTER_CUBIC)
    return cv2.normalize(total, None, 20, 235, cv2.NORM_MINMAX)


TEXTURE = _texture()


def render(world_from_cam: np.ndarray, camera: Camera) -> tuple[np.ndarray, np.ndarray]:
    """RGB picture and z-depth of the room from a camera inside it."""
    v, u = np.mgrid[: camera.height, : camera.width]
    rays = np.stack(
        [(u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy, np.ones(u.shape)], -1
    )
    directions = rays @ world_from_cam[:3, :3].T
    origin = world_from_cam[:3, 3]
    with np.errstate(divide="ignore"):
        reach = (np.sign(directions) * HALF_SIZE - origin) / directions
    reach[~np.isfinite(reach)] = np.inf
    axis = reach.argmin(axis=-1)
    depth = reach.min(axis=-1)
    hit = origin + depth[..., None] * directions
    first = np.take_along_axis(hit, ((axis + 1) % 3)[..., None], -1)[..., 0]
    second = np.take_along_axis(hit, ((axis + 2) % 3)[..., None], -1)[..., 0]
    side = np.take_along_axis(np.sign(directions), axis[..., None], -1)[..., 0]
    offset = 137.0 * axis + 71.0 * (side > 0)
    grey = cv2.remap(
        TEXTURE,
        ((first * TEXELS_PER_UNIT + offset) % 1024).astype(np.float32),
        ((second * TEXELS_PER_UNIT + 2 * offset) % 1024).astype(np.float32),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_WRAP,
    )
    rgb = np.repeat(grey[..., None], 3, axis=-1).clip(0, 255).astype(np.uint8)
    return rgb, depth.astype(np.float32)


def bent(rgb: np.ndarray, camera: Camera) -> np.ndarray:
    """The picture of a camera without distortion through the lens of `camera`."""
    v, u = np.mgrid[: camera.height, : camera.width].astype(np.float64)
    rays = undistort(np.column_stack([u.ravel(), v.ravel()]), camera)
    straight = rays * [camera.fx, camera.fy] + np.array([camera.cx, camera.cy])
    at = straight.reshape(*u.shape, 2).astype(np.float32)
    return np.asarray(cv2.remap(rgb, at[..., 0], at[..., 1], cv2.INTER_LINEAR))


def camera(width: int = 320, height: int = 180) -> Camera:
    """A 70° camera."""
    return Camera.from_horizontal_fov(width, height, np.deg2rad(70.0))


def sideways_poses(count: int, step: float = 0.06, first: int = 0) -> list[np.ndarray]:
    """A camera that slides to the right and forward, looking ahead and a little around."""
    poses = []
    for i in range(first, first + count):
        eye = np.array([-1.5 + step * i, 0.25 * np.sin(0.12 * i), -2.0 + 0.3 * step * i])
        target = np.array([0.4 * eye[0] + 0.3, 0.4, 5.0])
        poses.append(look_at(eye, target, np.array([0.0, -1.0, 0.0])))
    return poses


def frames(
    poses: list[np.ndarray], of: Camera, *, known_camera: bool = True, first_id: int = 0
) -> list[Frame]:
    """The room filmed from `poses` at 15 pictures a second."""
    return [
        Frame(
            id=first_id + i,
            stamp_ns=(first_id + i) * PERIOD_NS,
            rgb=render(pose, of)[0],
            camera=of if known_camera else None,
        )
        for i, pose in enumerate(poses)
    ]


def roaming_poses(count: int) -> list[np.ndarray]:
    """A camera that goes to and fro, up and down, and looks about the far wall."""
    poses = []
    for i in range(count):
        a = 0.07 * i
        rise, depth = 0.5 * np.sin(1.7 * a), 0.8 * (1.0 - np.cos(0.8 * a))
        eye = np.array([1.8 * np.sin(a), rise, depth - 2.0])
        target = np.array([0.6 * eye[0] + 1.2 * np.sin(0.5 * a), 0.4, 5.0])
        poses.append(look_at(eye, target, np.array([0.0, -1.0, 0.0])))
    return poses


def turning_poses(count: int) -> list[np.ndarray]:
    """A camera that only turns."""
    eye = np.array([0.0, 0.0, -2.0])
    angles = 0.02 * np.arange(count)
    return [
        look_at(eye, eye + np.array([np.sin(a), 0.1, np.cos(a)]), np.array([0.0, -1.0, 0.0]))
        for a in angles
    ]


def walking_poses(count: int, rate_rad: float) -> list[np.ndarray]:
    """A camera that goes to the right and turns about the vertical as it goes."""
    poses = []
    for i in range(count):
        eye = np.array([-1.5 + 0.05 * i, 0.0, -1.0])
        ahead = np.array([np.sin(rate_rad * i), 0.1, np.cos(rate_rad * i)])
        poses.append(look_at(eye, eye + ahead, np.array([0.0, -1.0, 0.0])))
    return poses
