# SPDX-License-Identifier: Apache-2.0
"""Bundle adjustment: cameras, points and optionally the lens that fit all observations.

Levenberg–Marquardt on the Huber cost with the points eliminated by their Schur complement
(Triggs et al., Bundle Adjustment: A Modern Synthesis, 2000).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float64, Int64
from scipy.spatial.transform import Rotation

from worldsystem_slam3r.geometric import bundle_kernels as kernels

HUBER_PX = 1.5
MAX_ITERATIONS = 8
FIXED, FOCAL, FOCAL_AND_RADIAL = 0, 1, 3
"""What of the lens is adjusted: how many of (log focal, k1, k2)."""
PRIOR_WEIGHT = np.array([1.0 / 0.2**2, 1.0 / 0.3**2, 1.0 / 0.15**2])
"""Holds the focal length near the given one, k1 and k2 near 0, where nothing shows them: cameras
vary by ±20 %, ±0.3 and ±0.15, and tracks are wrong by up to 1 px together."""
MAX_STEP = np.array([0.3, 0.1, 0.1])


@dataclass(frozen=True, kw_only=True, eq=False)
class Bundle:
    """c cameras, p points [world units] and n observations [px], sorted by point.

    `K4` is (fx, fy, cx, cy), `radial` (k1, k2) of OpenCV's model, with which `uv` were seen;
    cameras marked in `fixed` do not move.
    """

    rotations: Float64[np.ndarray, "c 3 3"]
    translations: Float64[np.ndarray, "c 3"]
    points: Float64[np.ndarray, "p 3"]
    cam_index: Int64[np.ndarray, "n"]
    point_index: Int64[np.ndarray, "n"]
    uv: Float64[np.ndarray, "n 2"]
    K4: Float64[np.ndarray, "4"]
    fixed: Bool[np.ndarray, "c"]
    radial: Float64[np.ndarray, "2"] = field(default_factory=lambda: np.zeros(2))


@dataclass(frozen=True, kw_only=True, eq=False)
class Adjusted:
    """The refined bundle, its residual lengths [px] and how sure the lens is.

    `focal_sigma` is the relative standard deviation of the focal length, `radial_sigma` those of k1
    and k2; NaN for what was held.
    """

    rotations: Float64[np.ndarray, "c 3 3"]
    translations: Float64[np.ndarray, "c 3"]
    points: Float64[np.ndarray, "p 3"]
    K4: Float64[np.ndarray, "4"]
    radial: Float64[np.ndarray, "2"]
    error_px: Float64[np.ndarray, "n"]
    cost_before: float
    cost_after: float
    focal_sigma: float
    radial_sigma: Float64[np.ndarray, "2"]


@dataclass(eq=False)
class _State:
    R: np.ndarray
    t: np.ndarray
    X: np.ndarray
    lens: np.ndarray


def adjust(
    bundle: Bundle,
    *,
    free_lens: int = FIXED,
    hold_focal: bool = False,
    iterations: int = MAX_ITERATIONS,
    least_gain: float = 1e-4,
) -> Adjusted:
    """Refine `bundle` until a step gains less than `least_gain` of the cost.

    With `hold_focal` the focal length stays, whatever else of the lens is free.
    Observations behind their camera are left out and end with NaN error.
    """
    first = np.searchsorted(bundle.point_index, np.arange(len(bundle.points) + 1))
    lens = np.concatenate([bundle.K4, bundle.radial])
    state = _State(bundle.rotations, bundle.translations, bundle.points, lens)
    lens_free = np.arange(free_lens) >= hold_focal
    free = np.append(np.repeat(~bundle.fixed, 6), lens_free)
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
        if gain < least_gain:
            break
    error_px = np.linalg.norm(_residuals(bundle, state), axis=1)
    sigma = _lens_sigma(bundle, state, first, free, error_px)
    return Adjusted(
        rotations=state.R,
        translations=state.t,
        points=state.X,
        K4=state.lens[:4],
        radial=state.lens[4:],
        error_px=error_px,
        cost_before=before,
        cost_after=cost,
        focal_sigma=float(sigma[0]),
        radial_sigma=sigma[1:],
    )


def _residuals(bundle: Bundle, state: _State) -> np.ndarray:
    residuals: np.ndarray = kernels.residuals(
        state.R, state.t, state.X, bundle.cam_index, bundle.point_index, bundle.uv, state.lens
    )
    return residuals


def _cost(bundle: Bundle, state: _State) -> float:
    prior = float(PRIOR_WEIGHT @ _off_prior(bundle, state) ** 2)
    return float(kernels.robust_cost(_residuals(bundle, state), HUBER_PX)) + prior


def _normal_equations(
    bundle: Bundle, state: _State, first: np.ndarray, m: int, damping: float
) -> tuple[np.ndarray, ...]:
    S, g, W, V_inv, gp = kernels.normal_equations(
        *(state.R, state.t, state.X, bundle.cam_index, first),
        *(bundle.uv, state.lens, m, HUBER_PX, damping),
    )
    at = np.arange(len(g) - m, len(g))
    S[at, at] += PRIOR_WEIGHT[:m]
    g[at] -= (PRIOR_WEIGHT * _off_prior(bundle, state))[:m]
    return S, g, W, V_inv, gp


def _off_prior(bundle: Bundle, state: _State) -> np.ndarray:
    """How far the lens is from what is assumed of it: (log focal, k1, k2)."""
    return np.array([np.log(state.lens[0] / bundle.K4[0]), *state.lens[4:]])


def _step(
    bundle: Bundle, state: _State, first: np.ndarray, free: np.ndarray, damping: float
) -> _State:
    cameras_end = 6 * len(bundle.fixed)
    m = len(free) - cameras_end
    S, g, W, V_inv, gp = _normal_equations(bundle, state, first, m, damping)
    step = np.zeros(len(g))
    if free.any():
        reduced = S[np.ix_(free, free)]
        reduced[np.diag_indices_from(reduced)] += 1e-9
        step[free] = np.linalg.solve(reduced, g[free])
    step[cameras_end:] = np.clip(step[cameras_end:], -MAX_STEP[:m], MAX_STEP[:m])
    points = state.X + kernels.point_steps(step, W, V_inv, gp, bundle.cam_index, first)
    cameras = step[:cameras_end].reshape(-1, 6)
    rotations = Rotation.from_rotvec(cameras[:, :3]).as_matrix() @ state.R
    lens = state.lens.copy()
    if m:
        lens[:2] *= np.exp(step[cameras_end])
        lens[4 : 3 + m] += step[cameras_end + 1 :]
    return _State(rotations, state.t + cameras[:, 3:], points, lens)


def _lens_sigma(
    bundle: Bundle, state: _State, first: np.ndarray, free: np.ndarray, error_px: np.ndarray
) -> np.ndarray:
    """Standard deviations of (log focal, k1, k2) from the inverse of the reduced system."""
    sigma = np.full(3, np.nan)
    m = len(free) - 6 * len(bundle.fixed)
    if not m:
        return sigma
    S, *_ = _normal_equations(bundle, state, first, m, 0.0)
    reduced = S[np.ix_(free, free)]
    reduced[np.diag_indices_from(reduced)] += 1e-9
    variance_px2 = float(np.nanmedian(error_px)) ** 2 / 1.386  # median of χ² with two degrees
    known = np.flatnonzero(free[-m:])
    variance = np.diag(np.linalg.pinv(reduced))[-len(known) :]
    sigma[known] = np.sqrt(np.maximum(variance, 0.0) * variance_px2)
    return sigma
