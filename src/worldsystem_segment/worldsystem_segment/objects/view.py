# SPDX-License-Identifier: Apache-2.0
"""A keyframe made ready for cutting: thinned, smoothed, with normals, in scene units."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64, UInt8

from worldsystem_core.frames import Camera
from worldsystem_core.geometry.se3 import inverse
from worldsystem_core.reconstruction import Keyframe
from worldsystem_segment.objects.normals import normals_cam, planes_of, smooth_depth, vectors_of
from worldsystem_segment.objects.track_kernels import bounds_seen
from worldsystem_segment.objects.view_kernels import on_rays, thinned, usable_points, vectors_at

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
    normals: Float32[np.ndarray, "h w 3"]  # camera frame, facing the camera
    world_from_cam: Float64[np.ndarray, "4 4"]
    noise: float  # of depth along the ray, relative

    @property
    def depth(self) -> Float32[np.ndarray, "h w"]:
        return self.points_cam[..., 2]

    def points_at(self, pixels: Int64[np.ndarray, "n"]) -> Float32[np.ndarray, "n 3"]:
        """Camera-frame points of flat pixel numbers."""
        return np.asarray(vectors_at(planes_of(self.points_cam), pixels))

    def normals_at(self, pixels: Int64[np.ndarray, "n"]) -> Float32[np.ndarray, "n 3"]:
        """Camera-frame normals of flat pixel numbers."""
        return np.asarray(vectors_at(planes_of(self.normals), pixels))

    def box_of(self, points_world: Float32[np.ndarray, "n 3"]) -> tuple[int, int, int, int] | None:
        """Box (x0, y0, x1, y1) [px of the whole picture] of points; None with under half in it."""
        size = (self.camera.width, self.camera.height)
        inside, bounds = bounds_seen(points_world, self.cam_from_world, self.lens, size)
        if not inside or inside < 0.5 * len(points_world):
            return None
        low, high = bounds[:2], bounds[2:]
        x0, y0 = (int(np.floor(edge)) * self.stride for edge in np.maximum(low, 0))
        x1, y1 = (int(np.ceil(edge) + 1) * self.stride for edge in high)
        return x0, y0, x1, y1

    @cached_property
    def lens(self) -> Float32[np.ndarray, "4"]:
        """Focal lengths and centre (fx, fy, cx, cy) [px]."""
        camera = self.camera
        return np.array([camera.fx, camera.fy, camera.cx, camera.cy], np.float32)

    @cached_property
    def cam_from_world(self) -> Float32[np.ndarray, "3 4"]:
        return inverse(self.world_from_cam)[:3].astype(np.float32)

    @property
    def rotation(self) -> Float32[np.ndarray, "3 3"]:
        return self.world_from_cam[:3, :3].astype(np.float32)


def usable(keyframe: Keyframe, min_confidence: float) -> Bool[np.ndarray, "h w"]:
    """Pixels whose point is finite, before the camera and confident enough."""
    return np.asarray(usable_points(keyframe.pointmap, keyframe.confidence, min_confidence))


def enough(keyframe: Keyframe, mask: Bool[np.ndarray, "h w"]) -> bool:
    """Whether a keyframe with these usable points and this pose can be segmented."""
    posed = bool(np.isfinite(keyframe.world_from_cam).all())
    return posed and int(np.count_nonzero(mask)) >= MIN_VALID_FRACTION * mask.size


def scene_unit(keyframe: Keyframe, mask: Bool[np.ndarray, "h w"]) -> float:
    """Median depth of the usable points [world units]."""
    return float(np.median(keyframe.pointmap[..., 2][mask]))


def make_view(
    keyframe: Keyframe, mask: Bool[np.ndarray, "h w"], unit: float, work_width_px: int
) -> View:
    """Thin, scale by 1 / `unit`, smooth along the rays and add normals."""
    stride = max(1, round(keyframe.pointmap.shape[1] / work_width_px))
    rgb, valid, raw = thinned(keyframe.rgb, mask, keyframe.pointmap, stride)
    camera = _thinned(keyframe.camera, stride, valid.shape)
    depth, noise = smooth_depth(raw / np.float32(unit), valid)
    points = vectors_of(on_rays(keyframe.pointmap, stride, depth))
    pose = keyframe.world_from_cam.astype(np.float64).copy()
    pose[:3, 3] /= unit
    return View(
        keyframe_id=keyframe.id,
        stride=stride,
        camera=camera,
        rgb=rgb,
        valid=valid,
        points_cam=points,
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
