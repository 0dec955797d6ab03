# SPDX-License-Identifier: Apache-2.0
"""Camera pose from known points: Gauss–Newton from a prediction, or RANSAC without one."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numba
import numpy as np
from jaxtyping import Bool, Float64

from worldsystem_core.geometry.se3 import pose_from

HUBER_PX = 1.5
INLIER_PX = 3.0
MIN_INLIERS = 15


@dataclass(frozen=True, eq=False)
class PoseFit:
    """A camera pose and which of the n matches agree with it to within `INLIER_PX`."""

    cam_from_world: Float64[np.ndarray, "4 4"]
    inliers: Bool[np.ndarray, "n"]

    @property
    def inlier_count(self) -> int:
        return int(self.inliers.sum())


def refine_pose(
    cam_from_world: Float64[np.ndarray, "4 4"],
    points: Float64[np.ndarray, "n 3"],
    uv: Float64[np.ndarray, "n 2"],
    K4: Float64[np.ndarray, "4"],
) -> PoseFit:
    """Minimise the Huber reprojection error from a pose nearby; K4 is (fx, fy, cx, cy)."""
    R, t = cam_from_world[:3, :3].copy(), cam_from_world[:3, 3].copy()
    R, t, error_px = _gauss_newton(R, t, points, uv, K4, 12)
    return PoseFit(pose_from(R, t), np.isfinite(error_px) & (error_px < INLIER_PX))


def find_pose(
    points: Float64[np.ndarray, "n 3"], uv: Float64[np.ndarray, "n 2"], K4: Float64[np.ndarray, "4"]
) -> PoseFit | None:
    """Pose without a prediction (P3P in RANSAC, then refined); None when too few matches agree."""
    if len(points) < MIN_INLIERS:
        return None
    K = np.array([[K4[0], 0, K4[2]], [0, K4[1], K4[3]], [0, 0, 1.0]])
    try:
        found, rvec, tvec, chosen = cv2.solvePnPRansac(
            points, uv, K, None, iterationsCount=200, reprojectionError=4.0, flags=cv2.SOLVEPNP_P3P
        )
    except cv2.error:  # its final fit throws when the agreeing points coincide
        return None
    if not found or chosen is None or len(chosen) < MIN_INLIERS:
        return None
    rough = pose_from(cv2.Rodrigues(rvec)[0], tvec.ravel())
    fit = refine_pose(rough, points, uv, K4)
    return fit if fit.inlier_count >= MIN_INLIERS else None


@numba.njit(cache=True, nogil=True)
def _gauss_newton(R, t, points, uv, K4, iterations):  # type: ignore[no-untyped-def]
    """Robust Gauss–Newton; the Huber scale narrows so that a rough start converges."""
    n = len(points)
    error_px = np.full(n, np.nan)
    for iteration in range(iterations + 1):
        H, g = np.zeros((6, 6)), np.zeros(6)
        huber = max(HUBER_PX, 16.0 * 0.5**iteration)
        J = np.zeros((2, 6))
        for i in range(n):
            p0, p1, p2 = points[i, 0], points[i, 1], points[i, 2]
            # written out: the library call behind `@` costs more than the nine products
            y0 = R[0, 0] * p0 + R[0, 1] * p1 + R[0, 2] * p2
            y1 = R[1, 0] * p0 + R[1, 1] * p1 + R[1, 2] * p2
            y2 = R[2, 0] * p0 + R[2, 1] * p1 + R[2, 2] * p2
            x0, x1, x2 = y0 + t[0], y1 + t[1], y2 + t[2]
            error_px[i] = np.nan
            if x2 <= 1e-6:
                continue
            iz = 1.0 / x2
            e0 = K4[0] * x0 * iz + K4[2] - uv[i, 0]
            e1 = K4[1] * x1 * iz + K4[3] - uv[i, 1]
            r = np.sqrt(e0 * e0 + e1 * e1)
            error_px[i] = r
            if r > 6.0 * huber:
                continue
            w = 1.0 if r <= huber else huber / r
            d00, d02 = K4[0] * iz, -K4[0] * x0 * iz * iz
            d11, d12 = K4[1] * iz, -K4[1] * x1 * iz * iz
            J[0, 0], J[0, 1], J[0, 2] = d02 * y1, d00 * y2 - d02 * y0, -d00 * y1
            J[1, 0], J[1, 1], J[1, 2] = -d11 * y2 + d12 * y1, -d12 * y0, d11 * y0
            J[0, 3], J[0, 4], J[0, 5] = d00, 0.0, d02
            J[1, 3], J[1, 4], J[1, 5] = 0.0, d11, d12
            for a in range(6):
                g[a] -= w * (J[0, a] * e0 + J[1, a] * e1)
                for b in range(6):
                    H[a, b] += w * (J[0, a] * J[0, b] + J[1, a] * J[1, b])
        if iteration == iterations:
            break
        for a in range(6):
            H[a, a] = H[a, a] * (1.0 + 1e-6) + 1e-9
        step = np.linalg.solve(H, g)
        R = _exp(step[:3]) @ R
        t = t + step[3:]
        if iteration > 5 and np.abs(step).max() < 1e-7:
            iterations = iteration + 1
    return R, t, error_px


@numba.njit(cache=True, nogil=True)
def _exp(w):  # type: ignore[no-untyped-def]
    """Rotation matrix of a rotation vector (Rodrigues)."""
    angle = np.sqrt(w[0] ** 2 + w[1] ** 2 + w[2] ** 2)
    a = 1.0 if angle < 1e-8 else np.sin(angle) / angle
    b = 0.5 if angle < 1e-8 else (1.0 - np.cos(angle)) / angle**2
    X = np.zeros((3, 3))
    X[0, 1], X[0, 2], X[1, 2] = -w[2], w[1], -w[0]
    X[1, 0], X[2, 0], X[2, 1] = w[2], -w[1], w[0]
    return np.eye(3) + a * X + b * (X @ X)
