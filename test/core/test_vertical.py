# SPDX-License-Identifier: Apache-2.0
"""The vertical is found from level cameras, whatever the frame they are told in."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from worldsystem_core.geometry.se3 import look_at
from worldsystem_core.geometry.vertical import estimate_up

UP = np.array([0.0, 0.0, 1.0])


def orbit(degrees: float, count: int = 20) -> np.ndarray:
    angles = np.deg2rad(np.linspace(0.0, degrees, count))
    eyes = np.stack([10 * np.cos(angles), 10 * np.sin(angles), np.full(count, 8.0)], axis=1)
    return np.stack([look_at(eye, np.zeros(3), UP) for eye in eyes])


@pytest.mark.parametrize("seed", range(3))
def test_cameras_that_look_around_give_the_vertical_in_any_frame(seed):
    turn = np.eye(4)
    turn[:3, :3] = Rotation.random(rng=np.random.default_rng(seed)).as_matrix()
    np.testing.assert_allclose(estimate_up(turn @ orbit(90.0)), turn[:3, :3] @ UP, atol=1e-9)


def test_cameras_that_look_one_way_give_the_pictures_up():
    poses = np.stack([look_at(np.array([0.0, 0.0, 8.0]), np.array([10.0, 0.0, 0.0]), UP)] * 3)
    np.testing.assert_allclose(estimate_up(poses), -poses[0, :3, 1], atol=1e-12)


def test_without_poses_up_is_against_the_cameras_y_axis():
    np.testing.assert_allclose(estimate_up(np.zeros((0, 4, 4))), [0.0, -1.0, 0.0])
