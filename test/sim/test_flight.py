# SPDX-License-Identifier: Apache-2.0
"""Flights: smooth, within bounds, clear of obstacles, and consistent with their inertial data."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from worldsystem_core.errors import ConfigError
from worldsystem_core.geometry.se3 import rotation_angle_rad
from worldsystem_sim.flight import FLIGHT_NAMES, flight


@pytest.mark.parametrize("name", FLIGHT_NAMES)
@pytest.mark.parametrize("duration_s", [8.0, 70.0])
def test_a_flight_is_smooth(name, duration_s, scene):
    path = flight(name, 3, duration_s, scene)
    times = np.arange(0.0, duration_s, 0.05)
    speed = [np.linalg.norm(path.velocity_mps(t)) for t in times]
    acceleration = [np.linalg.norm(path.acceleration_mps2(t)) for t in times]
    assert max(speed) < 4.5
    assert max(acceleration) < 5.0
    step = np.linalg.norm(np.diff(path.acceleration_mps2(times), axis=0), axis=1)
    assert step.max() < 0.8  # no jump of acceleration: the path is C²


@pytest.mark.parametrize("duration_s", [20.0, 60.0, 120.0])
def test_the_demo_turns_slowly(duration_s, scene):
    path = flight("demo", 1, duration_s, scene)
    poses = path.poses(np.arange(0.0, duration_s, 0.1))
    turns = [rotation_angle_rad(a[:3, :3].T @ b[:3, :3]) / 0.1 for a, b in pairwise(poses)]
    assert np.degrees(max(turns)) < 25.0


def test_the_demo_begins_sideways(scene):
    path = flight("demo", 1, 30.0, scene)
    along_cam = path.world_from_cam(0.5)[:3, :3].T @ path.velocity_mps(0.5)
    assert abs(along_cam[0]) > 0.9 * np.linalg.norm(along_cam)


@pytest.mark.parametrize("name", FLIGHT_NAMES)
def test_a_flight_keeps_clear_of_everything(name, scene, renderer):
    """Nothing is nearer than half a metre in any direction that the camera looks."""
    path = flight(name, 1, 60.0, scene)
    for t in np.arange(0.0, 60.0, 1.5):
        depth_m, _ = renderer.render_truth(path.world_from_cam(float(t)))
        assert depth_m.min() > 0.5, t


def test_the_flythrough_passes_inside_the_barn(scene):
    path = flight("flythrough", 1, 30.0, scene)
    inside = [
        abs(x) < 4.0 and abs(y + 12.0) < 6.5 and z < 4.0
        for x, y, z in (path.position_m(t) for t in np.arange(0.0, 30.0, 0.2))
    ]
    assert sum(inside) > 10


def test_the_facade_flight_is_level_and_looks_at_the_houses(scene, renderer):
    path = flight("facade", 1, 30.0, scene)
    houses = {i for i, name in scene.class_names.items() if name == "house"}
    for t in np.arange(0.0, 30.0, 3.0):
        x, y, z = path.position_m(float(t))
        assert abs(y + 1.6) < 0.3
        assert 2.5 < z < 8.0
        _, ids = renderer.render_truth(path.world_from_cam(float(t)))
        assert np.isin(ids, list(houses)).mean() > 0.02, (t, x)


def test_hovering_feels_gravity_along_the_bodys_up(scene):
    path = flight("hover", 1, 20.0, scene)
    felt = np.array(
        [path.map_from_body(t) @ path.motion(t).acceleration for t in np.arange(0, 20, 0.02)]
    )
    assert np.allclose(felt.mean(axis=0), (0.0, 0.0, 9.81), atol=0.05)


def test_inertial_data_integrates_to_the_path(scene):
    """Dead reckoning over 4 s at 500 Hz; the midpoint rule's error is far below a centimetre."""
    path = flight("flythrough", 1, 30.0, scene)
    step_s, start_s = 0.002, 6.0
    rotation = path.map_from_body(start_s)
    velocity, position = path.velocity_mps(start_s), path.position_m(start_s)
    for i in range(2000):
        motion = path.motion(start_s + (i + 0.5) * step_s)
        half = rotation @ _rotated(np.array(motion.angular_velocity) * step_s / 2)
        acceleration = half @ np.array(motion.acceleration) - (0.0, 0.0, 9.81)
        position = position + velocity * step_s + 0.5 * acceleration * step_s**2
        velocity = velocity + acceleration * step_s
        rotation = rotation @ _rotated(np.array(motion.angular_velocity) * step_s)
    assert np.linalg.norm(position - path.position_m(start_s + 4.0)) < 0.01
    assert rotation_angle_rad(rotation.T @ path.map_from_body(start_s + 4.0)) < 1e-3


def _rotated(vector: np.ndarray) -> np.ndarray:
    return Rotation.from_rotvec(vector).as_matrix()


def test_the_same_seed_gives_the_same_flight(scene):
    a, b, c = (flight("demo", seed, 20.0, scene).world_from_cam(7.3) for seed in (4, 4, 5))
    assert np.array_equal(a, b)
    assert not np.allclose(a, c)


def test_an_unknown_flight_names_the_known_ones(scene):
    with pytest.raises(ConfigError, match="orbit"):
        flight("loop the loop", 1, 10.0, scene)
