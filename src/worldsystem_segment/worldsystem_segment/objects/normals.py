# SPDX-License-Identifier: Apache-2.0
"""Edge-preserving smoothing of depth, and normals from inverse depth."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32

from worldsystem_core.frames import Camera

WINDOW_PX = 9
RANGE_SIGMA = 0.03  # of log depth: above the noise of monocular stereo, below a jump
GRADIENT_PX = 7


def dot(
    a: Float32[np.ndarray, "... 3"], b: Float32[np.ndarray, "... 3"]
) -> Float32[np.ndarray, "..."]:
    """Scalar product along the last axis; three products beat a reduction over three items."""
    return np.asarray(a[..., 0] * b[..., 0] + a[..., 1] * b[..., 1] + a[..., 2] * b[..., 2])


def along(
    vectors: Float32[np.ndarray, "... 3"], direction: Float[np.ndarray, "3"]
) -> Float32[np.ndarray, "..."]:
    """Scalar product of each vector with one direction."""
    x, y, z = (np.float32(part) for part in direction)
    return np.asarray(vectors[..., 0] * x + vectors[..., 1] * y + vectors[..., 2] * z)


def smooth_depth(
    depth: Float32[np.ndarray, "h w"], valid: Bool[np.ndarray, "h w"]
) -> tuple[Float32[np.ndarray, "h w"], float]:
    """Bilateral filter of log depth, and the relative noise that it took away (robust sigma).

    Log depth makes the filter blind to scale. Unknown pixels stay NaN and weigh nothing.
    """
    if not valid[::3, ::3].any():
        return np.full(depth.shape, np.nan, np.float32), 0.0
    log = np.log(np.where(valid, depth, 1.0)).astype(np.float32)
    low, high = np.percentile(log[::3, ::3][valid[::3, ::3]], (0.5, 99.5))
    clipped = np.clip(log, low - 1.0, high + 1.0)  # outliers would coarsen the filter's table
    away = np.float32(high + 2.0)
    smooth = cv2.bilateralFilter(
        np.where(valid, clipped, away).astype(np.float32), WINDOW_PX, RANGE_SIGMA, 3.0
    )
    residual = (clipped - smooth)[::3, ::3][valid[::3, ::3]]
    noise = float(1.4826 * np.median(np.abs(residual)))
    result = np.where(valid & (log == clipped), np.exp(smooth), depth)
    return np.where(valid, result, np.nan).astype(np.float32), noise


def normals_cam(
    depth: Float32[np.ndarray, "h w"], valid: Bool[np.ndarray, "h w"], camera: Camera
) -> Float32[np.ndarray, "h w 3"]:
    """Unit normals in the camera frame that face the camera; NaN where depth is unknown.

    Inverse depth of a plane is affine in the pixel, so its least-squares slope over a window gives
    the plane's normal without bias: n ~ (fx w_u, fy w_v, w - (u - cx) w_u - (v - cy) w_v).
    """
    inverse = np.where(valid, 1.0 / np.where(valid, depth, 1.0), 0.0).astype(np.float32)
    inverse = _filled(inverse, valid)
    reach = GRADIENT_PX // 2
    ramp = np.arange(-reach, reach + 1, dtype=np.float32)
    ramp /= (ramp**2).sum()
    flat = np.full(GRADIENT_PX, 1.0 / GRADIENT_PX, np.float32)
    w_u = cv2.sepFilter2D(inverse, cv2.CV_32F, ramp, flat, borderType=cv2.BORDER_REPLICATE)
    w_v = cv2.sepFilter2D(inverse, cv2.CV_32F, flat, ramp, borderType=cv2.BORDER_REPLICATE)
    u = np.arange(camera.width, dtype=np.float32)[None, :] - np.float32(camera.cx)
    v = np.arange(camera.height, dtype=np.float32)[:, None] - np.float32(camera.cy)
    z = inverse - u * w_u - v * w_v
    x, y = np.float32(camera.fx) * w_u, np.float32(camera.fy) * w_v
    shorten = np.float32(-1) / np.maximum(np.sqrt(x * x + y * y + z * z), np.float32(1e-20))
    shorten[~valid] = np.nan
    return planar(x * shorten, y * shorten, z * shorten)


def planar(*parts: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w c"]:
    """An (h, w, c) view of c planes: whole-picture sums over one channel then run in sequence."""
    return np.moveaxis(np.stack(parts), 0, -1)


def _filled(
    inverse: Float32[np.ndarray, "h w"], valid: Bool[np.ndarray, "h w"]
) -> Float32[np.ndarray, "h w"]:
    # holes take the mean of known neighbours, so that they do not bend the slope beside them
    if valid.all():
        return inverse
    size = (2 * GRADIENT_PX - 1, 2 * GRADIENT_PX - 1)
    weight = cv2.blur(valid.astype(np.float32), size)
    mean = cv2.blur(inverse, size) / np.maximum(weight, np.float32(1e-6))
    return np.where(valid, inverse, mean).astype(np.float32)
