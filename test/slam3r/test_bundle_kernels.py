# SPDX-License-Identifier: Apache-2.0
"""Bundle adjustment and pose refinement against numerical derivatives and dense systems.

The twin knows nothing of Schur complements: it solves for cameras, lens and points together.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from scipy.special import huber

from worldsystem_slam3r.geometric import bundle_kernels, pose
from worldsystem_slam3r.geometric.bundle import (
    FIXED,
    FOCAL,
    FOCAL_AND_RADIAL,
    HUBER_PX,
    PRIOR_WEIGHT,
    Bundle,
    adjust,
)

CAMERAS, POINTS = 5, 12
LENS = np.array([300.0, 310.0, 159.5, 89.5, -0.2, 0.05])
DAMPING = 0.01


def seen(R, t, X, lens):
    """Pixel of a world point by the textbook; NaN where it is not before the camera."""
    x, y, z = R @ X + t
    if z <= 1e-6:
        return np.full(2, np.nan)
    a, b = x / z, y / z
    r2 = a**2 + b**2
    bent = 1 + lens[4] * r2 + lens[5] * r2**2
    return lens[:2] * bent * (a, b) + lens[2:4]


@pytest.fixture
def bundle() -> Bundle:
    """Cameras a little off, tracks with gross errors, a point behind two cameras and one unseen."""
    rng = np.random.default_rng(3)
    points = rng.uniform([-2, -1.2, 3], [2, 1.2, 7], (POINTS, 3))
    points[4] = 0.1, 0.2, 0.5
    R = Rotation.from_rotvec(rng.normal(0, 0.06, (CAMERAS, 3))).as_matrix()
    t = rng.normal(0, 0.3, (CAMERAS, 3))
    t[:, 2] = -1.0, -0.8, 0.1, 0.2, 0.3
    pairs = [(p, c) for p in range(POINTS) for c in range(CAMERAS) if p != 7 and (p + 2 * c) % 7]
    point, cam = np.array(pairs).T
    uv = np.array([seen(R[c], t[c], points[p], LENS) for p, c in pairs])
    uv[np.isnan(uv)] = 80.0
    uv += rng.normal(0, 0.8, uv.shape)
    uv[::6] += 7.0
    return Bundle(
        rotations=R,
        translations=t,
        points=points,
        cam_index=cam,
        point_index=point,
        uv=uv,
        K4=LENS[:4],
        fixed=np.zeros(CAMERAS, bool),
        radial=LENS[4:],
    )


def moved(bundle: Bundle, x: np.ndarray, m: int) -> Bundle:
    """The bundle after a step (cameras, the `m` freed of the lens, points)."""
    cameras, lens = x[: 6 * CAMERAS].reshape(-1, 6), np.zeros(3)
    lens[:m] = x[6 * CAMERAS : 6 * CAMERAS + m]
    return replace(
        bundle,
        rotations=Rotation.from_rotvec(cameras[:, :3]).as_matrix() @ bundle.rotations,
        translations=bundle.translations + cameras[:, 3:],
        points=bundle.points + x[6 * CAMERAS + m :].reshape(-1, 3),
        K4=bundle.K4 * np.exp([lens[0], lens[0], 0, 0]),
        radial=bundle.radial + lens[1:],
    )


def off(bundle: Bundle) -> np.ndarray:
    lens = np.concatenate([bundle.K4, bundle.radial])
    rows = zip(bundle.cam_index, bundle.point_index, bundle.uv, strict=True)
    return np.array(
        [
            seen(bundle.rotations[c], bundle.translations[c], bundle.points[p], lens) - uv
            for c, p, uv in rows
        ]
    )


def dense_system(bundle: Bundle, m: int) -> tuple[np.ndarray, np.ndarray]:
    """H and g of all unknowns, by central differences; robust weights stay while one derives."""
    size = 6 * CAMERAS + m + 3 * POINTS
    e, J = 1e-6, []
    for unit in np.eye(size):
        J.append((off(moved(bundle, e * unit, m)) - off(moved(bundle, -e * unit, m))) / (2 * e))
    J, r = np.moveaxis(J, 0, -1), off(bundle)
    length = np.linalg.norm(r, axis=1)
    weight = np.where(np.isnan(length), 0.0, np.minimum(1.0, HUBER_PX / length))
    J, r = np.nan_to_num(J), np.nan_to_num(r)
    return np.einsum("n,nka,nkb->ab", weight, J, J), -np.einsum("n,nka,nk->a", weight, J, r)


def dense_step(H: np.ndarray, g: np.ndarray, damping: float, free: np.ndarray) -> np.ndarray:
    """Levenberg's step of what is free; a point that nothing shows stays."""
    H = H + damping * np.diag(np.diag(H))
    H += 1e-9 * np.eye(len(H))
    step = np.zeros(len(g))
    step[free] = np.linalg.solve(H[np.ix_(free, free)], g[free])
    return step


def given(bundle: Bundle) -> tuple:
    first = np.searchsorted(bundle.point_index, np.arange(POINTS + 1))
    lens = np.concatenate([bundle.K4, bundle.radial])
    poses = bundle.rotations, bundle.translations, bundle.points
    return *poses, bundle.cam_index, first, bundle.uv, lens


def test_residuals_are_those_of_opencv_s_lens_and_unknown_behind_the_camera(bundle):
    R, t, X, cam, _, uv, lens = given(bundle)
    found = bundle_kernels.residuals(R, t, X, cam, bundle.point_index, uv, lens)
    K = np.array([[lens[0], 0, lens[2]], [0, lens[1], lens[3]], [0, 0, 1.0]])
    behind = 0
    for c, p, pixel, residual in zip(cam, bundle.point_index, uv, found, strict=True):
        if (R[c] @ X[p] + t[c])[2] <= 0:
            assert np.isnan(residual).all()
            behind += 1
            continue
        bent = np.array([*lens[4:], 0.0, 0.0])
        truth = cv2.projectPoints(X[p][None], cv2.Rodrigues(R[c])[0], t[c], K, bent)[0].ravel()
        np.testing.assert_allclose(residual, truth - pixel, atol=1e-6)
    assert behind == 2


def test_the_robust_cost_is_huber_s_and_an_unknown_residual_costs_as_100_px(bundle):
    residuals = off(bundle)
    length = np.linalg.norm(residuals, axis=1)
    length[np.isnan(length)] = 100.0
    assert (length < HUBER_PX).sum() > 5
    cost = bundle_kernels.robust_cost(residuals, HUBER_PX)
    assert cost == pytest.approx(2 * huber(HUBER_PX, length).sum())
    assert bundle_kernels.robust_cost(residuals[:0], HUBER_PX) == 0.0


@pytest.mark.parametrize("m", [FIXED, FOCAL, FOCAL_AND_RADIAL])
def test_the_reduced_step_and_its_point_steps_solve_the_whole_system(bundle, m):
    arrays = given(bundle)
    S, g, W, V_inv, gp = bundle_kernels.normal_equations(*arrays, m, HUBER_PX, DAMPING)
    np.testing.assert_allclose(S, S.T, rtol=1e-9, atol=1e-6)
    step = np.linalg.solve(S, g)
    points = bundle_kernels.point_steps(step, W, V_inv, gp, *arrays[3:5])
    dense = dense_step(*dense_system(bundle, m), DAMPING, np.ones(len(g) + 3 * POINTS, bool))
    np.testing.assert_allclose(step, dense[: len(g)], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(points.ravel(), dense[len(g) :], rtol=1e-5, atol=1e-7)
    assert np.abs(step).max() > 0.01
    assert not points[7].any()  # no camera saw it


def test_the_gradient_of_points_is_half_the_fall_of_the_robust_cost(bundle):
    *_, gp = bundle_kernels.normal_equations(*given(bundle), FIXED, HUBER_PX, DAMPING)
    e = 1e-5
    for number, unit in enumerate(np.eye(3 * POINTS)):
        x = np.append(np.zeros(6 * CAMERAS), e * unit)
        ahead, back = (
            bundle_kernels.robust_cost(off(moved(bundle, way, FIXED)), HUBER_PX) for way in (x, -x)
        )
        assert gp.ravel()[number] == pytest.approx(-(ahead - back) / (4 * e), rel=1e-4, abs=1e-3)


@pytest.mark.parametrize("m", [FIXED, FOCAL_AND_RADIAL])
def test_points_are_eliminated_as_by_a_dense_schur_complement(m):
    """Also where one camera saw a point twice and where none did."""
    rng = np.random.default_rng(5)
    first, cam = np.array([0, 3, 3, 5, 8]), np.array([0, 2, 2, 1, 0, 0, 1, 2])
    f, n, p = 6 * 3, len(cam), len(first) - 1
    W, gp = rng.normal(size=(n, 6 + m, 3)), rng.normal(size=(p, 3))
    V_inv = np.array([half @ half.T for half in rng.normal(size=(p, 3, 3))])
    S, g = rng.normal(size=(f + m, f + m)), rng.normal(size=f + m)
    S += S.T
    mixed, inverse = np.zeros((f + m, 3 * p)), np.zeros((3 * p, 3 * p))
    for k in range(p):
        own = slice(3 * k, 3 * k + 3)
        inverse[own, own] = V_inv[k]
        for i in range(first[k], first[k + 1]):
            mixed[6 * cam[i] : 6 * cam[i] + 6, own] += W[i, :6]
            mixed[f:, own] += W[i, 6:]
    dense = S - mixed @ inverse @ mixed.T, g - mixed @ inverse @ gp.ravel()
    bundle_kernels._eliminate_points(S, g, W, V_inv, gp, cam, first)
    np.testing.assert_allclose(S, dense[0], atol=1e-10)
    np.testing.assert_allclose(g, dense[1], atol=1e-10)


@pytest.mark.parametrize(
    ("m", "held"),
    [(FIXED, False), (FOCAL, False), (FOCAL_AND_RADIAL, False), (FOCAL_AND_RADIAL, True)],
)
def test_one_step_of_adjustment_is_the_dense_one_with_fixed_cameras_taken_out(bundle, m, held):
    bundle = replace(bundle, fixed=np.arange(CAMERAS) % 2 == 0)
    H, g = dense_system(bundle, m)
    H += 1e-4 * np.diag(np.diag(H))
    lens = np.arange(6 * CAMERAS, 6 * CAMERAS + m)
    H[lens, lens] += PRIOR_WEIGHT[:m]
    g[lens] -= (PRIOR_WEIGHT * [0.0, *bundle.radial])[:m]
    lens_free = np.arange(m) >= held
    free = np.concatenate([np.repeat(~bundle.fixed, 6), lens_free, np.ones(3 * POINTS, bool)])
    step = dense_step(H, g, 0.0, free)
    truth = moved(bundle, step, m)
    found = adjust(bundle, free_lens=m, hold_focal=held, iterations=1)
    assert found.cost_after < found.cost_before
    for name in ("rotations", "translations", "points", "K4", "radial"):
        np.testing.assert_allclose(getattr(found, name), getattr(truth, name), atol=1e-5)
    assert np.array_equal(found.rotations[bundle.fixed], bundle.rotations[bundle.fixed])
    assert (found.K4[0] == LENS[0]) == (held or not m)


def plain_gauss_newton(R, t, points, uv, lens, iterations):
    """Numerical derivatives, weights that narrow from 16 px by halves, one dense step a time."""

    def errors(x):
        turned = Rotation.from_rotvec(x[:3]).as_matrix() @ R
        return np.array([seen(turned, t + x[3:], X, lens) for X in points]) - uv

    for iteration in range(iterations):
        scale = max(HUBER_PX, 16.0 / 2**iteration)
        e = errors(np.zeros(6))
        length = np.linalg.norm(e, axis=1)
        used = length <= 6 * scale
        J = np.array([errors(1e-6 * unit) - errors(-1e-6 * unit) for unit in np.eye(6)]) / 2e-6
        J, e = np.moveaxis(J, 0, -1)[used], e[used]
        weight = np.minimum(1.0, scale / length[used])
        H = np.einsum("n,nka,nkb->ab", weight, J, J)
        H += 1e-6 * np.diag(np.diag(H))
        step = np.linalg.solve(H, -np.einsum("n,nka,nk->a", weight, J, e))
        R, t = Rotation.from_rotvec(step[:3]).as_matrix() @ R, t + step[3:]
    return R, t, np.linalg.norm(errors(np.zeros(6)), axis=1)


@pytest.mark.parametrize("iterations", [0, 1, 3, 12])
def test_a_pose_is_refined_as_by_plain_gauss_newton(iterations):
    """Among points behind the camera and matches that are wrong by any number of pixels."""
    rng = np.random.default_rng(8)
    points = rng.uniform([-2, -1.2, 3], [2, 1.2, 7], (60, 3))
    points[::9, 2] *= -1.0
    lens = np.append(LENS[:4], [0.0, 0.0])
    turn, shift = Rotation.from_rotvec([0.1, -0.05, 0.08]).as_matrix(), np.array([0.3, 0.1, -0.2])
    uv = np.array([seen(turn, shift, X, lens) for X in points]) + rng.normal(0, 0.5, (60, 2))
    uv[np.isnan(uv)] = 50.0
    uv[1::4] += rng.uniform(0, 120, (15, 2))
    start = np.eye(3), np.zeros(3)
    found = pose._gauss_newton(*start, points, uv, LENS[:4], iterations)
    twin = plain_gauss_newton(*start, points, uv, lens, iterations)
    for ours, theirs, bound in zip(found, twin, (1e-6, 1e-6, 1e-3), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=bound)
    assert np.isnan(found[2]).sum() == 7
    if iterations == 12:
        assert np.abs(found[0] - turn).max() < 0.01


def test_a_rotation_vector_turns_as_in_the_library_and_none_does_not():
    for vector in ([0.3, -0.2, 0.9], [1e-5, 2e-5, -1e-5], [1e-12, 0.0, 0.0], [0.0, 0.0, 0.0]):
        truth = Rotation.from_rotvec(vector).as_matrix()
        np.testing.assert_allclose(pose._exp(np.array(vector)), truth, atol=1e-10)
