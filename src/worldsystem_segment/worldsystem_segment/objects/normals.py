# SPDX-License-Identifier: Apache-2.0
"""Edge-preserving smoothing of depth, and normals from inverse depth."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32

from worldsystem_core.frames import Camera
from worldsystem_segment.objects.view_kernels import FAR, bilateral, normals_of_slopes

WINDOW_PX = 9
SPACE_SIGMA_PX = 3.0
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

    Log depth makes the filter blind to scale. Unknown pixels stay NaN and weigh nothing. The
    picture is mirrored at its border.
    """
    some = valid[::3, ::3]
    if not some.any():
        return np.full(depth.shape, np.nan, np.float32), 0.0
    reach = WINDOW_PX // 2
    inner = np.full(depth.shape, FAR, np.float32)
    np.log(depth, out=inner, where=valid)
    log = cv2.copyMakeBorder(inner, reach, reach, reach, reach, cv2.BORDER_REFLECT_101)
    smooth = bilateral(log, reach, RANGE_SIGMA, SPACE_SIGMA_PX)
    residual = (inner[::3, ::3] - smooth[::3, ::3])[some]
    noise = float(1.4826 * np.median(np.abs(residual)))
    smooth[~valid] = np.nan
    return np.exp(smooth), noise


def normals_cam(
    depth: Float32[np.ndarray, "h w"], valid: Bool[np.ndarray, "h w"], camera: Camera
) -> Float32[np.ndarray, "h w 3"]:
    """Unit normals in the camera frame that face the camera; NaN where depth is unknown.

    Inverse depth of a plane is affine in the pixel, so its least-squares slope over a window gives
    the plane's normal without bias: n ~ (fx w_u, fy w_v, w - (u - cx) w_u - (v - cy) w_v).
    """
    inverse = np.where(valid, np.float32(1) / np.where(valid, depth, np.float32(1)), np.float32(0))
    inverse = _filled(inverse, valid)
    reach = GRADIENT_PX // 2
    ramp = np.arange(-reach, reach + 1, dtype=np.float32)
    ramp /= (ramp**2).sum()
    flat = np.full(GRADIENT_PX, 1.0 / GRADIENT_PX, np.float32)
    w_u = cv2.sepFilter2D(inverse, cv2.CV_32F, ramp, flat, borderType=cv2.BORDER_REPLICATE)
    w_v = cv2.sepFilter2D(inverse, cv2.CV_32F, flat, ramp, borderType=cv2.BORDER_REPLICATE)
    lens = np.array([camera.fx, camera.fy, camera.cx, camera.cy], np.float32)
    return vectors_of(normals_of_slopes(inverse, w_u, w_v, valid, lens))


def vectors_of(planes: Float32[np.ndarray, "3 h w"]) -> Float32[np.ndarray, "h w 3"]:
    """A view of three planes: whole-picture sums over one channel then run in sequence."""
    return np.moveaxis(planes, 0, -1)


def planes_of(vectors: Float32[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "3 h w"]:
    """The planes as which compiled loops read vectors; a view where they lie so."""
    return np.ascontiguousarray(np.moveaxis(vectors, -1, 0))


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
