# SPDX-License-Identifier: Apache-2.0
"""Transforms obey their laws; the camera's two directions undo each other."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from worldsystem_core.frames import Camera
from worldsystem_core.geometry.pinhole import pointmap_from_depth, project
from worldsystem_core.geometry.rotation import (
    matrices_from_quaternions_xyzw,
    matrix_from_quaternion_xyzw,
    quaternion_xyzw_from_matrix,
)
from worldsystem_core.geometry.se3 import (
    inverse,
    is_rigid,
    look_at,
    pose_from,
    rotation_angle_rad,
    rotation_angles_rad,
    transform,
)
from worldsystem_core.geometry.sim3 import Sim3, fit_sim3

CAMERA = Camera(width=40, height=30, fx=33.0, fy=31.0, cx=18.0, cy=16.0)


def some_pose(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return pose_from(Rotation.random(rng=rng).as_matrix(), rng.normal(size=3))


def some_sim3(seed: int) -> Sim3:
    pose = some_pose(seed)
    return Sim3(0.5 + seed, pose[:3, :3], pose[:3, 3])


@pytest.mark.parametrize("seed", range(5))
def test_a_pose_and_its_inverse_cancel(seed):
    pose = some_pose(seed)
    np.testing.assert_allclose(pose @ inverse(pose), np.eye(4), atol=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_a_pose_is_rigid_unless_it_is_of_another_size_a_mirror_image_or_not_finite(seed):
    pose = some_pose(seed)
    assert is_rigid(pose)
    assert is_rigid(pose.astype(np.float32))
    for odd in (np.diag([2.0, 2.0, 2.0, 1.0]), np.diag([1.0, 1.0, -1.0, 1.0]), np.zeros((4, 4))):
        assert not is_rigid(pose @ odd)
    for value in (np.nan, np.inf):
        pose[0, 3] = value
        assert not is_rigid(pose)


@pytest.mark.parametrize("angle", [0.0, 1e-9, 1e-4, 1.0, 3.0, np.pi])
def test_the_rotation_angle_is_exact_even_where_it_is_tiny(angle):
    rotation = Rotation.from_rotvec([0.0, angle, 0.0]).as_matrix()
    assert rotation_angle_rad(rotation) == pytest.approx(angle, rel=1e-6, abs=1e-12)


def test_a_camera_that_looks_at_a_point_sees_it_at_its_centre_with_up_pointing_up():
    world_from_cam = look_at(np.array([3.0, -4.0, 5.0]), np.zeros(3), np.array([0.0, 0.0, 1.0]))
    target_cam = transform(inverse(world_from_cam), np.zeros(3))
    np.testing.assert_allclose(target_cam, [0.0, 0.0, np.sqrt(50.0)], atol=1e-12)
    assert world_from_cam[2, 1] < 0, "the picture's down must point towards the ground"
    assert np.linalg.det(world_from_cam[:3, :3]) == pytest.approx(1.0)


@pytest.mark.parametrize("seed", range(4))
def test_the_fit_recovers_a_similarity_from_three_or_more_points(seed):
    truth = some_sim3(seed)
    points = np.random.default_rng(seed).normal(size=(3 + seed, 3))
    fitted = fit_sim3(truth.apply(points), points)
    assert fitted.scale == pytest.approx(truth.scale)
    np.testing.assert_allclose(fitted.rotation, truth.rotation, atol=1e-9)
    np.testing.assert_allclose(fitted.translation, truth.translation, atol=1e-9)


def test_a_mirror_image_is_fitted_by_a_rotation_not_a_reflection():
    points = np.random.default_rng(0).normal(size=(20, 3))
    fitted = fit_sim3(points * [-1.0, 1.0, 1.0], points)
    assert np.linalg.det(fitted.rotation) == pytest.approx(1.0)


def test_without_scale_the_fit_is_rigid_and_too_few_points_are_refused():
    points = np.random.default_rng(0).normal(size=(9, 3))
    assert fit_sim3(2.0 * points, points, with_scale=False).scale == 1.0
    with pytest.raises(ValueError, match="≥ 3"):
        fit_sim3(points[:2], points[:2])


def test_a_similarity_and_its_inverse_cancel_and_poses_follow_points():
    sim3, pose = some_sim3(2), some_pose(3)
    points = np.random.default_rng(1).normal(size=(5, 3))
    np.testing.assert_allclose(sim3.inverse().apply(sim3.apply(points)), points, atol=1e-12)
    moved = sim3.apply_pose(pose)
    np.testing.assert_allclose(moved[:3, 3], sim3.apply(pose[:3, 3]), atol=1e-12)
    np.testing.assert_allclose(moved[:3, :3] @ moved[:3, :3].T, np.eye(3), atol=1e-12)


def test_lifting_a_depth_image_and_projecting_it_gives_the_pixels_back():
    depth = np.random.default_rng(0).uniform(1.0, 5.0, (30, 40))
    uv, inside = project(pointmap_from_depth(depth, CAMERA).reshape(-1, 3), CAMERA)
    v, u = np.mgrid[:30, :40]
    assert inside.all()
    np.testing.assert_allclose(uv, np.stack([u, v], -1).reshape(-1, 2), atol=1e-4)


@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan, np.inf])
def test_depth_that_is_no_depth_becomes_unknown(bad):
    depth = np.full((30, 40), 2.0)
    depth[3, 4] = bad
    points = pointmap_from_depth(depth, CAMERA)
    assert np.isnan(points[3, 4]).all()
    assert np.isfinite(points).all(axis=-1).sum() == depth.size - 1


def test_points_behind_the_camera_are_nowhere_in_the_picture():
    uv, inside = project(np.array([[0.0, 0.0, -1.0], [0.0, 0.0, 0.0]]), CAMERA)
    assert not inside.any()
    assert np.isnan(uv).all()


def test_resizing_a_camera_moves_a_projected_point_with_its_pixel():
    half = CAMERA.resized(20, 15)
    point = np.array([[0.3, -0.2, 2.0]])
    full_uv, half_uv = project(point, CAMERA)[0], project(point, half)[0]
    np.testing.assert_allclose(half_uv + 0.5, (full_uv + 0.5) / 2, atol=1e-12)
    assert CAMERA.resized(20, 15).resized(40, 30) == CAMERA


def test_a_turned_camera_sees_the_world_with_its_axes_exchanged():
    point = np.array([[0.3, -0.2, 2.0]])
    uv, _ = project(point, CAMERA)
    turned_uv, inside = project(point[:, [1, 0, 2]], CAMERA.turned())
    assert inside.all()
    np.testing.assert_allclose(turned_uv, uv[:, ::-1], atol=1e-12)
    assert CAMERA.turned().turned() == CAMERA


def test_a_turned_camera_keeps_what_does_not_depend_on_the_sense_of_turning():
    lens = replace(CAMERA, distortion=(0.1, 0.01, 0.002, 0.003, 0.004))
    assert lens.turned().distortion == (0.1, 0.01, 0.0, 0.0, 0.004)
    assert replace(CAMERA, distortion=(0.1,)).turned().distortion == (0.1,)


def test_quaternions_are_those_of_scipy_also_where_w_is_nothing():
    rng = np.random.default_rng(4)
    half_turns = [np.diag(signs).astype(float) for signs in ([1, -1, -1], [-1, 1, -1], [-1, -1, 1])]
    small = Rotation.from_rotvec(rng.normal(size=(50, 3)) * 1e-9).as_matrix()
    flips = Rotation.from_rotvec(np.pi * np.eye(3) + 1e-9).as_matrix()
    rotations = np.concatenate([Rotation.random(500, rng=rng).as_matrix(), small, flips])
    found = quaternion_xyzw_from_matrix(rotations)
    np.testing.assert_allclose(
        found, Rotation.from_matrix(rotations).as_quat(canonical=True), atol=1e-12
    )
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, atol=1e-15)
    for rotation in half_turns:
        back = matrix_from_quaternion_xyzw(quaternion_xyzw_from_matrix(rotation))
        np.testing.assert_allclose(back, rotation, atol=1e-15)


def test_a_quaternion_of_any_length_is_the_rotation_that_scipy_says_and_one_of_none_is_refused():
    quaternions = np.random.default_rng(3).normal(size=(50, 4)) * 7.0
    expected = Rotation.from_quat(quaternions).as_matrix()
    for quaternion, matrix in zip(quaternions, expected, strict=True):
        np.testing.assert_allclose(matrix_from_quaternion_xyzw(quaternion), matrix, atol=1e-12)
    np.testing.assert_allclose(matrices_from_quaternions_xyzw(quaternions), expected, atol=1e-12)
    for none in (np.zeros(4), np.full(4, np.nan)):
        with pytest.raises(ValueError, match="no rotation"):
            matrix_from_quaternion_xyzw(none)
        with pytest.raises(ValueError, match="no rotation"):
            matrices_from_quaternions_xyzw(np.stack([quaternions[0], none]))


def test_the_angles_of_many_rotations_are_those_of_each():
    angles = [0.0, 1e-9, 1e-4, 1.0, 3.0, np.pi]
    rotations = Rotation.from_rotvec([[0.0, angle, 0.0] for angle in angles]).as_matrix()
    found = rotation_angles_rad(rotations)
    np.testing.assert_allclose(found, angles, rtol=1e-6, atol=1e-12)
    each = [rotation_angle_rad(rotation) for rotation in rotations]
    np.testing.assert_allclose(found, each, rtol=0.0, atol=1e-12)
