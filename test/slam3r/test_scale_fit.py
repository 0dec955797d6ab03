# SPDX-License-Identifier: Apache-2.0
"""Metres from noisy measurements of a known similarity; nothing where nothing tells them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from worldsystem_core.geometry.sim3 import Sim3
from worldsystem_sim.telemetry import geodetic_from_map, pressure_pa
from worldsystem_slam3r.scale.enu import EnuFrame, ecef_m, height_m
from worldsystem_slam3r.scale.fit import Heights, Measured, Positions, fit_metric, level

TRUTH = Sim3(
    17.0, Rotation.from_euler("zxz", [0.7, 1.9, 0.2]).as_matrix(), np.array([3.0, -8.0, 2.0])
)
UP = TRUTH.rotation.T @ np.array([0.0, 0.0, 1.0])


def circle(count: int) -> np.ndarray:
    """A flight of 4 scene units across that also climbs."""
    angle = np.linspace(0, 2 * np.pi, count)
    return np.column_stack([2 * np.cos(angle), 0.3 * np.sin(3 * angle), 2 * np.sin(angle)])


def straight(count: int) -> np.ndarray:
    return np.linspace([0.0, 0.0, 0.0], [0.1, -0.05, 5.0], count)


def positions(
    scene: np.ndarray, sigma_m: float, *, late_s: float = 0.0, seed: int = 0
) -> Positions:
    """GPS of that path, a second between neighbours, its clock `late_s` behind the video's."""
    velocity = np.gradient(scene, axis=0)
    there = TRUTH.apply(scene + late_s * velocity)
    noise = np.random.default_rng(seed).normal(size=there.shape) * sigma_m
    spread = np.tile(np.eye(3) * max(sigma_m, 0.01) ** 2, (len(scene), 1, 1))
    return Positions(scene, velocity, there + noise, spread)


def measured(**parts: object) -> Measured:
    return Measured(**{"up": UP, "up_rad": 0.1, **parts})  # type: ignore[arg-type]


def test_exact_positions_give_the_exact_similarity():
    fit = fit_metric(measured(positions=positions(circle(40), 0.0)))
    assert fit is not None
    assert fit.map_from_scene.scale == pytest.approx(17.0, rel=1e-6)
    assert np.allclose(fit.map_from_scene.rotation, TRUTH.rotation, atol=1e-6)
    assert np.allclose(fit.map_from_scene.translation, TRUTH.translation, atol=1e-4)


def test_the_error_of_the_scale_is_as_large_as_it_is_said_to_be():
    """Over many noisy flights the scale lies within one reported sigma in two cases of three."""
    errors = []
    for seed in range(60):
        fit = fit_metric(measured(positions=positions(circle(40), 3.0, seed=seed)))
        assert fit is not None
        errors.append(math.log(fit.map_from_scene.scale / 17.0) / fit.scale_sigma)
    assert 0.6 < np.std(errors) < 1.5
    assert abs(np.mean(errors)) < 0.5


def test_a_late_clock_is_found():
    fit = fit_metric(measured(positions=positions(circle(40), 0.2, late_s=0.3)))
    assert fit is not None
    assert fit.clock_s == pytest.approx(0.3, abs=0.05)
    assert fit.map_from_scene.scale == pytest.approx(17.0, rel=0.01)


def test_a_straight_flight_is_kept_from_rolling_by_the_vertical():
    fit = fit_metric(measured(positions=positions(straight(30), 0.5)))
    assert fit is not None
    assert fit.map_from_scene.scale == pytest.approx(17.0, rel=0.03)
    assert (fit.map_from_scene.rotation @ UP)[2] > np.cos(0.15)


def test_wild_fixes_do_not_pull():
    good = positions(circle(60), 0.5)
    far = good.map_m.copy()
    far[::12] += [60.0, -40.0, 30.0]
    fit = fit_metric(measured(positions=Positions(good.scene, good.velocity, far, good.covariance)))
    assert fit is not None
    assert fit.map_from_scene.scale == pytest.approx(17.0, rel=0.03)


def test_the_barometer_alone_gives_the_scale_of_a_climb():
    scene = circle(80)
    true_m = TRUTH.apply(scene)[:, 2]
    noise = np.random.default_rng(2).normal(size=len(true_m)) * 0.5
    heights = Heights(scene, true_m + 431.0 + noise, np.full(len(scene), 0.5))
    fit = fit_metric(measured(heights=heights, up_rad=0.01))
    assert fit is not None
    assert fit.map_from_scene.scale == pytest.approx(17.0, abs=3 * 17.0 * fit.scale_sigma)
    assert fit.scale_sigma < 0.05


@pytest.mark.parametrize("seed", range(30))
def test_a_level_flight_tells_the_barometer_nothing(seed):
    scene = circle(80)
    scene -= np.outer(scene @ UP, UP)
    heights = Heights(scene, np.random.default_rng(seed).normal(size=80), np.full(80, 0.5))
    fit = fit_metric(measured(heights=heights))
    assert fit is None or fit.scale_sigma > 0.05


def test_a_known_length_alone_gives_scale_and_level():
    fit = fit_metric(measured(log_scales=((math.log(17.0), 0.03),)))
    assert fit is not None
    assert fit.map_from_scene.scale == pytest.approx(17.0)
    assert fit.scale_sigma == pytest.approx(0.03, rel=0.01)
    assert np.allclose(fit.map_from_scene.rotation @ UP, [0, 0, 1], atol=1e-6)


def test_two_sources_are_surer_than_each():
    alone = fit_metric(measured(positions=positions(circle(30), 2.0)))
    both = fit_metric(
        measured(positions=positions(circle(30), 2.0), log_scales=((math.log(17.0), 0.01),))
    )
    assert alone is not None
    assert both is not None
    assert both.scale_sigma < min(alone.scale_sigma, 0.01)


def test_nothing_measured_gives_no_scale():
    assert fit_metric(measured()) is None
    still = np.zeros((10, 3))
    rest = Positions(still, still, still, np.tile(np.eye(3), (10, 1, 1)))
    assert fit_metric(measured(positions=rest)) is None


def test_level_turns_up_to_z():
    assert np.allclose(level(UP) @ UP, [0.0, 0.0, 1.0])


def test_enu_agrees_with_the_simulators_first_order_formula():
    frame = EnuFrame(*geodetic_from_map(0.0, 0.0, 0.0))
    for point in ([0.0, 0.0, 0.0], [30.0, -40.0, 12.0], [-100.0, 80.0, 5.0]):
        assert np.allclose(frame.position_m(*geodetic_from_map(*point)), point, atol=0.01)


def test_the_poles_and_the_equator_lie_where_the_ellipsoid_says():
    assert np.allclose(ecef_m(0.0, 0.0, 0.0), [6378137.0, 0.0, 0.0])
    assert ecef_m(90.0, 0.0, 0.0)[2] == pytest.approx(6356752.314, abs=0.01)


def test_pressure_and_height_are_inverse():
    for altitude in (0.0, 488.0, 2500.0):
        assert height_m(pressure_pa(altitude)) == pytest.approx(altitude, abs=0.5)
