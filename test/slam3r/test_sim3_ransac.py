# SPDX-License-Identifier: Apache-2.0
"""The similarity between two cameras that see the same points; truth: how the points were made."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from worldsystem_core.geometry.sim3 import Sim3
from worldsystem_slam3r.graph import sim3_ransac
from worldsystem_slam3r.graph.sim3_ransac import Pairs, Sim3Fit, fit_similarity

FOCAL_PX = 250.0
LIMIT_PX = 2.5


def seen_twice(
    seed: int, *, unit: float = 1.0, noise_px: float = 0.0, depth_noise: float = 0.0, wrong: int = 0
) -> tuple[Pairs, Sim3]:
    """Points before two cameras, each measured in its own unit (a's is `unit`), of which the last
    `wrong` are no matches; and `a_from_b`."""
    rng = np.random.default_rng(seed)
    turn = Rotation.from_rotvec(rng.normal(0.0, 0.1, 3)).as_matrix()
    a_from_b = Sim3(1.3 * unit, turn, rng.normal(0.0, 0.3, 3) * unit)
    in_b = rng.uniform([-1.5, -1.0, 2.0], [1.5, 1.0, 5.0], (150, 3))
    in_a = a_from_b.apply(in_b)
    in_a[len(in_a) - wrong :] = rng.permutation(in_a[len(in_a) - wrong :])
    rays, points = [], []
    for true in (in_a, in_b):
        rays.append(true[:, :2] / true[:, 2:] + rng.normal(0.0, noise_px, (150, 2)) / FOCAL_PX)
        z = true[:, 2:] * np.exp(rng.normal(0.0, depth_noise, (150, 1)))
        points.append(np.hstack([rays[-1] * z, z]))
    return Pairs(*points, *rays, 1 / FOCAL_PX, 1 / FOCAL_PX), a_from_b


def apart(fit: Sim3Fit, truth: Sim3) -> tuple[float, float, float]:
    """Turn [rad], shift [b's unit] and logarithm of the size from truth to what was found."""
    rest = truth.inverse() @ fit.a_from_b
    turn = np.linalg.norm(Rotation.from_matrix(rest.rotation).as_rotvec())
    return float(turn), float(np.linalg.norm(rest.translation)), abs(float(np.log(rest.scale)))


@pytest.mark.parametrize("unit", [1e-3, 1.0, 1e3])
def test_exact_points_give_the_exact_similarity_whatever_the_unit(unit):
    pairs, truth = seen_twice(0, unit=unit)
    fit = fit_similarity(pairs, limit_px=LIMIT_PX)
    assert max(apart(fit, truth)) < 1e-8
    assert fit.inliers.all()


def test_wrong_matches_are_left_out():
    pairs, truth = seen_twice(1, wrong=60)
    fit = fit_similarity(pairs, limit_px=LIMIT_PX)
    assert max(apart(fit, truth)) < 1e-8
    assert fit.inliers[:90].all()
    assert fit.inliers[90:].mean() < 0.1


@pytest.mark.parametrize("seed", range(5))
def test_of_noisy_points_it_is_right_within_a_hundredth(seed):
    """Of a radian, the depth, the size; 150 pairs are off by half a pixel and 3 % of depth."""
    pairs, truth = seen_twice(seed, noise_px=0.5, depth_noise=0.03)
    turn, shift, size = apart(fit_similarity(pairs, limit_px=LIMIT_PX), truth)
    assert max(turn, shift / np.median(pairs.points_b[:, 2]), size) < 0.0125


@pytest.mark.parametrize("unit", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("seed", range(5))
def test_a_search_that_has_settled_ends_where_all_steps_lead(seed, unit, monkeypatch):
    pairs, _ = seen_twice(seed, unit=unit, noise_px=0.7, depth_noise=0.04, wrong=40)
    early = fit_similarity(pairs, limit_px=LIMIT_PX)
    monkeypatch.setattr(sim3_ransac, "SETTLED", 0.0)
    whole = fit_similarity(pairs, limit_px=LIMIT_PX)
    assert max(apart(early, whole.a_from_b)) < 1e-5
    np.testing.assert_array_equal(early.inliers, whole.inliers)
    np.testing.assert_allclose(early.covariance, whole.covariance, rtol=1e-3, atol=1e-12)


def test_three_pairs_are_too_few():
    pairs, _ = seen_twice(0)
    few = pairs.chosen(np.arange(len(pairs)) < 3)
    assert fit_similarity(few, limit_px=LIMIT_PX) is None


def test_errors_are_those_of_each_pair_under_each_similarity():
    pairs, truth = seen_twice(2, noise_px=0.5, wrong=20)
    tried = [truth, truth.inverse(), Sim3(1.0, np.diag([-1.0, 1.0, -1.0]), np.zeros(3))]
    scales = np.array([each.scale for each in tried])
    rotations = np.array([each.rotation for each in tried])
    translations = np.array([each.translation for each in tried])
    found = sim3_ransac._errors_px(pairs, scales, rotations, translations)
    for row, a_from_b in zip(found, tried, strict=True):
        wanted = np.zeros(len(pairs))
        for points, rays in (
            (a_from_b.apply(pairs.points_b), pairs.rays_a),
            (a_from_b.inverse().apply(pairs.points_a), pairs.rays_b),
        ):
            off = np.linalg.norm(points[:, :2] / points[:, 2:] - rays, axis=1) * FOCAL_PX
            wanted = np.maximum(wanted, np.where(points[:, 2] > 1e-9, off, np.inf))
        np.testing.assert_allclose(row, wanted, rtol=1e-9, atol=1e-9)
    assert np.isinf(found[2]).all()  # it looks away
