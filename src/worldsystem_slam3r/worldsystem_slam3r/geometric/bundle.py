# SPDX-License-Identifier: Apache-2.0
"""Bundle adjustment: cameras, points and optionally the focal length that fit all observations.

Levenberg–Marquardt on the Huber cost with the points eliminated by their Schur complement
(Triggs et al., Bundle Adjustment: A Modern Synthesis, 2000).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64
from scipy.spatial.transform import Rotation

from worldsystem_slam3r.geometric import bundle_kernels as kernels

HUBER_PX = 1.5
MAX_ITERATIONS = 8


@dataclass(frozen=True, kw_only=True, eq=False)
class Bundle:
    """c cameras, p points [world units] and n observations [px], sorted by point.

    `K4` is (fx, fy, cx, cy); cameras marked in `fixed` do not move.
    """

    rotations: Float64[np.ndarray, "c 3 3"]
    translations: Float64[np.ndarray, "c 3"]
    points: Float64[np.ndarray, "p 3"]
    cam_index: Int64[np.ndarray, "n"]
    point_index: Int64[np.ndarray, "n"]
    uv: Float64[np.ndarray, "n 2"]
    K4: Float64[np.ndarray, "4"]
    fixed: Bool[np.ndarray, "c"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Adjusted:
    """The refined bundle, its residual lengths [px] and how sure the focal length is.

    `focal_sigma` is the relative standard deviation of the focal length (NaN when it was fixed).
    """

    rotations: Float64[np.ndarray, "c 3 3"]
    translations: Float64[np.ndarray, "c 3"]
    points: Float64[np.ndarray, "p 3"]
    K4: Float64[np.ndarray, "4"]
    error_px: Float64[np.ndarray, "n"]
    cost_before: float
    cost_after: float
    focal_sigma: float


@dataclass(eq=False)
class _State:
    R: np.ndarray
    t: np.ndarray
    X: np.ndarray
    K4: np.ndarray


def adjust(
    bundle: Bundle, *, with_focal: bool = False, iterations: int = MAX_ITERATIONS
) -> Adjusted:
    """Refine `bundle`; observations behind their camera are left out and end with NaN error."""
    first = np.searchsorted(bundle.point_index, np.arange(len(bundle.points) + 1))
    state = _State(bundle.rotations, bundle.translations, bundle.points, bundle.K4)
    free = np.append(np.repeat(~bundle.fixed, 6), with_focal)
    before = cost = _cost(bundle, state)
    damping = 1e-4
    for _ in range(iterations):
        candidate = _step(bundle, state, first, free, damping)
        new_cost = _cost(bundle, candidate)
        if new_cost >= cost:
            damping *= 10.0
            if damping > 1e3:
                break
            continue
        gain, cost, state = 1.0 - new_cost / cost, new_cost, candidate
        damping = max(0.1 * damping, 1e-8)
        if gain < 1e-4:
            break
    error_px = np.linalg.norm(_residuals(bundle, state), axis=1)
    sigma = _focal_sigma(bundle, state, first, free, error_px) if with_focal else float("nan")
    return Adjusted(
        rotations=state.R,
        translations=state.t,
        points=state.X,
        K4=state.K4,
        error_px=error_px,
        cost_before=before,
        cost_after=cost,
        focal_sigma=sigma,
    )


def _residuals(bundle: Bundle, state: _State) -> np.ndarray:
    residuals: np.ndarray = kernels.residuals(
        state.R, state.t, state.X, bundle.cam_index, bundle.point_index, bundle.uv, state.K4
    )
    return residuals


def _cost(bundle: Bundle, state: _State) -> float:
    return float(kernels.robust_cost(_residuals(bundle, state), HUBER_PX))


def _step(
    bundle: Bundle, state: _State, first: np.ndarray, free: np.ndarray, damping: float
) -> _State:
    S, g, W, V_inv, gp = kernels.normal_equations(
        state.R, state.t, state.X, bundle.cam_index, first, bundle.uv, state.K4, HUBER_PX, damping
    )
    step = np.zeros(len(g))
    if free.any():
        reduced = S[np.ix_(free, free)]
        reduced[np.diag_indices_from(reduced)] += 1e-9
        step[free] = np.linalg.solve(reduced, g[free])
    points = state.X + kernels.point_steps(step, W, V_inv, gp, bundle.cam_index, first)
    cameras = step[:-1].reshape(-1, 6)
    rotations = Rotation.from_rotvec(cameras[:, :3]).as_matrix() @ state.R
    scale = float(np.exp(np.clip(step[-1], -0.3, 0.3)))
    K4 = state.K4 * np.array([scale, scale, 1.0, 1.0])
    return _State(rotations, state.t + cameras[:, 3:], points, K4)


def _focal_sigma(
    bundle: Bundle, state: _State, first: np.ndarray, free: np.ndarray, error_px: np.ndarray
) -> float:
    """Relative standard deviation of the focal length from the inverse of the reduced system."""
    S, *_ = kernels.normal_equations(
        state.R, state.t, state.X, bundle.cam_index, first, bundle.uv, state.K4, HUBER_PX, 0.0
    )
    reduced = S[np.ix_(free, free)]
    reduced[np.diag_indices_from(reduced)] += 1e-9
    variance_px2 = float(np.nanmedian(error_px)) ** 2 / 1.386  # median of χ² with two degrees
    return float(np.sqrt(max(np.linalg.pinv(reduced)[-1, -1], 0.0) * variance_px2))
