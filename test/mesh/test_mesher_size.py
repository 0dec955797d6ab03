# SPDX-License-Identifier: Apache-2.0
"""A surface follows its keyframes in size, and the whole of it into a metric root."""

from __future__ import annotations

import numpy as np
import pytest
from depth_keyframe import depth_keyframe

from worldsystem_core.frames import Camera
from worldsystem_core.reconstruction import Keyframe, ScaleState
from worldsystem_mesh.config import MeshConfig
from worldsystem_mesh.mesher import Mesher

CAMERA = Camera(width=80, height=60, fx=70.0, fy=70.0, cx=39.5, cy=29.5)


def wall(id: int) -> Keyframe:
    """A wall two units ahead of a camera at the origin."""
    depth = np.full((60, 80), 2.0, np.float32)
    return depth_keyframe(id, depth, CAMERA, grey=120)


@pytest.fixture
def mesher():
    made = Mesher(MeshConfig(device="cpu", auto_voxels=40.0))
    for key in range(3):
        made.integrate(wall(key))
    made.extract(0)
    yield made
    made.close()


def settled(mesher: Mesher) -> np.ndarray:
    mesher.settle(0)
    return mesher.mesh().vertices


def test_keyframes_that_shrink_take_the_surface_along(mesher):
    poses = {key: np.eye(4) for key in range(3)}
    mesher.move(poses, dict.fromkeys(range(3), 0.8))
    assert np.median(settled(mesher)[:, 2]) == pytest.approx(1.6, abs=0.02)
    mesher.move(poses, dict.fromkeys(range(3), 1.0))
    assert np.median(settled(mesher)[:, 2]) == pytest.approx(2.0, abs=0.02)


def test_a_metric_root_scales_the_voxel_and_turns_the_surface(mesher):
    faces = len(mesher.mesh().faces)
    turned = np.array([[1.0, 0, 0, 5], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1]])
    poses = dict.fromkeys(range(3), turned)
    voxel = mesher.stats()["voxel"]
    mesher.move(poses, dict.fromkeys(range(3), 20.0), ScaleState.METRIC)
    vertices = settled(mesher)
    assert mesher.stats()["voxel"] == pytest.approx(20.0 * voxel)
    assert np.median(vertices[:, 1]) == pytest.approx(40.0, abs=0.3)
    assert np.median(vertices[:, 0]) == pytest.approx(5.0, abs=0.5)
    assert 0.7 * faces < len(mesher.mesh().faces) < 1.4 * faces


def test_a_metric_root_that_is_told_one_keyframe_at_a_time_fuses_none_anew(mesher):
    voxel = mesher.stats()["voxel"]
    told = [mesher.move({key: np.eye(4)}, {key: 20.0}, ScaleState.METRIC) for key in range(3)]
    assert [each.applied for each in told] == [()] * 3
    assert mesher.stats()["voxel"] == pytest.approx(20.0 * voxel)
    assert np.median(settled(mesher)[:, 2]) == pytest.approx(40.0, abs=0.3)
    aside = np.eye(4)
    aside[0, 3] = 1.0
    assert mesher.move({1: aside}, {1: 20.0}).applied == (1,), "it is in the new unit by now"
