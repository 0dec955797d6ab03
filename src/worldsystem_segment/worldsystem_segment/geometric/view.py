# SPDX-License-Identifier: Apache-2.0
"""A keyframe made ready for cutting: thinned, smoothed, with normals, in scene units."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64, UInt8

from worldsystem_core.frames import Camera
from worldsystem_core.geometry.se3 import transform
from worldsystem_core.reconstruction import Keyframe
from worldsystem_segment.config import SegmentConfig
from worldsystem_segment.geometric.normals import normals_cam, smooth_depth

MIN_VALID_FRACTION = 0.02


@dataclass(frozen=True, kw_only=True, eq=False)
class View:
    """One keyframe in scene units; pixels without a usable point are NaN and not `valid`."""

    keyframe_id: int
    stride: int
    camera: Camera
    rgb: UInt8[np.ndarray, "h w 3"]
    valid: Bool[np.ndarray, "h w"]
    points_cam: Float32[np.ndarray, "h w 3"]
    points_world: Float32[np.ndarray, "h w 3"]
    normals: Float32[np.ndarray, "h w 3"]  # camera frame, facing the camera
    world_from_cam: Float64[np.ndarray, "4 4"]
    noise: float  # of depth along the ray, relative

    @property
    def depth(self) -> Float32[np.ndarray, "h w"]:
        return self.points_cam[..., 2]

    @property
    def rotation(self) -> Float32[np.ndarray, "3 3"]:
        return self.world_from_cam[:3, :3].astype(np.float32)


def usable(keyframe: Keyframe, min_confidence: float) -> Bool[np.ndarray, "h w"]:
    """Pixels whose point is finite, before the camera and confident enough."""
    finite = np.isfinite(keyframe.pointmap).all(axis=-1)
    ahead = np.nan_to_num(keyframe.pointmap[..., 2], nan=-1.0) > 0
    confident = np.nan_to_num(keyframe.confidence, nan=-1.0) >= min_confidence
    return np.asarray(finite & ahead & confident)


def scene_unit(keyframe: Keyframe, min_confidence: float) -> float | None:
    """Median depth of the keyframe [world units], or None when too few points are usable."""
    mask = usable(keyframe, min_confidence)
    if mask.mean() < MIN_VALID_FRACTION or not np.isfinite(keyframe.world_from_cam).all():
        return None
    return float(np.median(keyframe.pointmap[mask][:, 2]))


def make_view(keyframe: Keyframe, unit: float, config: SegmentConfig) -> View:
    """Thin, scale by 1 / `unit`, smooth along the rays and add normals."""
    stride = max(1, round(keyframe.pointmap.shape[1] / config.work_width_px))
    valid = usable(keyframe, config.min_confidence)[::stride, ::stride]
    raw = keyframe.pointmap[::stride, ::stride] / np.float32(unit)
    camera = _thinned(keyframe.camera, stride, valid.shape)
    depth, noise = smooth_depth(raw[..., 2], valid)
    with np.errstate(invalid="ignore", divide="ignore"):
        points = raw * (depth / raw[..., 2])[..., None]
    points[~valid] = np.nan
    pose = keyframe.world_from_cam.astype(np.float64).copy()
    pose[:3, 3] /= unit
    return View(
        keyframe_id=keyframe.id,
        stride=stride,
        camera=camera,
        rgb=keyframe.rgb[::stride, ::stride],
        valid=valid,
        points_cam=points,
        points_world=transform(pose, points),
        normals=normals_cam(depth, valid, camera),
        world_from_cam=pose,
        noise=noise,
    )


def _thinned(camera: Camera, stride: int, shape: tuple[int, ...]) -> Camera:
    # every stride-th pixel is kept as it is, so centres scale about pixel 0, not about the corner
    return Camera(
        width=shape[1],
        height=shape[0],
        fx=camera.fx / stride,
        fy=camera.fy / stride,
        cx=camera.cx / stride,
        cy=camera.cy / stride,
    )
