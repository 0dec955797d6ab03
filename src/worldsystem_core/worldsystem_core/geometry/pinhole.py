# SPDX-License-Identifier: Apache-2.0
"""Lifting pictures to points and projecting points into pictures."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64

from worldsystem_core.frames import Camera


def pointmap_from_depth(
    depth: Float[np.ndarray, "h w"], camera: Camera
) -> Float32[np.ndarray, "h w 3"]:
    """Lift a z-depth image to camera-frame points; depth that is not finite and > 0 gives NaN."""
    z = np.where(np.isfinite(depth) & (depth > 0), depth, np.nan).astype(np.float32)
    u = (np.arange(camera.width, dtype=np.float32) - np.float32(camera.cx)) / np.float32(camera.fx)
    v = (np.arange(camera.height, dtype=np.float32) - np.float32(camera.cy)) / np.float32(camera.fy)
    return np.stack([u[None, :] * z, v[:, None] * z, z], axis=-1)


def project(
    points_cam: Float[np.ndarray, "n 3"], camera: Camera
) -> tuple[Float64[np.ndarray, "n 2"], Bool[np.ndarray, "n"]]:
    """Pixels (u, v) of camera-frame points, and which of them lie before the camera and inside.

    Distortion is not applied. Points at or behind the camera get NaN pixels.
    """
    z = points_cam[:, 2].astype(np.float64)
    ahead = z > 0
    safe = np.where(ahead, z, np.nan)
    u = camera.fx * points_cam[:, 0] / safe + camera.cx
    v = camera.fy * points_cam[:, 1] / safe + camera.cy
    inside = ahead & (u >= -0.5) & (u < camera.width - 0.5)
    inside &= (v >= -0.5) & (v < camera.height - 0.5)
    return np.stack([u, v], axis=-1), inside
