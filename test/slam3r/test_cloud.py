# SPDX-License-Identifier: Apache-2.0
"""The cloud of all keyframes: bounded, an even sample, and moved with its keyframes."""

from __future__ import annotations

import numpy as np

from worldsystem_core.frames import Camera
from worldsystem_core.reconstruction import (
    Keyframe,
    MovedKeyframes,
    NewKeyframe,
    RemovedKeyframes,
    ScaleState,
)
from worldsystem_slam3r.cloud import MOVABLE_KEYFRAMES, BoundedCloud


def a_keyframe(id: int, points: int) -> Keyframe:
    camera = Camera.from_horizontal_fov(40, 40, 1.0)
    depth = np.full((40, 40), np.nan, np.float32)
    depth.reshape(-1)[:points] = 2.0
    pointmap = np.stack([0 * depth, 0 * depth, depth], axis=-1)
    pose = np.eye(4)
    pose[0, 3] = id
    return Keyframe(
        id=id,
        frame_id=id,
        stamp_ns=id,
        world_from_cam=pose,
        camera=camera,
        pointmap=pointmap,
        confidence=np.isfinite(depth).astype(np.float32),
        rgb=np.full((40, 40, 3), id % 256, np.uint8),
    )


def test_the_cloud_never_exceeds_its_bound_and_samples_all_keyframes_alike():
    cloud = BoundedCloud(5000)
    for key in range(64):
        cloud.add(a_keyframe(key, 1600))
        assert len(cloud) == len(cloud.points().points) <= 5000
    assert len(cloud) > 1500
    per_keyframe = np.bincount(cloud.points().rgb[:, 0], minlength=64)
    assert per_keyframe.min() > 0
    assert per_keyframe.max() < 4 * per_keyframe.mean()


def test_points_of_the_cloud_move_and_go_with_their_keyframe():
    cloud = BoundedCloud(5000)
    for key in range(3):
        cloud.add(a_keyframe(key, 100))
    cloud.add(a_keyframe(1, 50))
    assert len(cloud) == 250
    moved = np.eye(4)
    moved[1, 3] = 7.0
    cloud.move(MovedKeyframes({1: moved, 99: moved}))
    np.testing.assert_allclose(
        np.unique(cloud.points().points, axis=0), [[0, 0, 2], [0, 7, 2], [2, 0, 2]]
    )
    cloud.remove((0, 2, 77))
    assert len(cloud) == 50
    cloud.remove((1,))
    assert cloud.points().points.shape == (0, 3)


def test_a_keyframe_without_points_changes_no_cloud():
    cloud = BoundedCloud(5000)
    cloud.add(a_keyframe(0, 0))
    assert len(cloud) == 0


def test_thousands_of_keyframes_settle_where_they_were():
    cloud = BoundedCloud(100_000)
    for key in range(4500):
        cloud.add(a_keyframe(key, 3))
    assert len(cloud._blocks) <= 2 * MOVABLE_KEYFRAMES + 1
    assert len(cloud) == 3 * 4500
    x = np.sort(cloud.points().points[:, 0])
    np.testing.assert_allclose(x, np.repeat(np.arange(4500), 3))
    moved = np.eye(4)
    cloud.move(MovedKeyframes({0: moved, 4499: moved}))
    assert np.count_nonzero(cloud.points().points[:, 0] == 0) == 6


def test_the_cloud_follows_what_a_back_end_says():
    cloud = BoundedCloud(5000)
    for key in range(2):
        cloud.apply(NewKeyframe(a_keyframe(key, 10)))
    moved = np.eye(4)
    moved[:3, 3] = (0.0, 4.0, 0.0)
    cloud.apply(MovedKeyframes({0: moved}))
    cloud.apply(RemovedKeyframes((1,)))
    np.testing.assert_allclose(cloud.points().points, np.tile([0.0, 4.0, 2.0], (10, 1)))


def test_the_version_grows_with_every_change_and_with_nothing_else():
    cloud, versions = BoundedCloud(5000), []
    for event in (
        NewKeyframe(a_keyframe(0, 10)),
        MovedKeyframes({0: np.eye(4)}),
        MovedKeyframes({5: np.eye(4)}),
        NewKeyframe(a_keyframe(1, 0)),
        RemovedKeyframes((7,)),
        RemovedKeyframes((0,)),
    ):
        cloud.apply(event)
        versions.append(cloud.version)
    assert versions == [1, 2, 2, 2, 2, 3]


def test_points_handed_out_stay_as_they_were():
    cloud = BoundedCloud(5000)
    cloud.add(a_keyframe(0, 10))
    before = cloud.points(stamp_ns=8)
    moved = np.eye(4)
    moved[0, 3] = 9.0
    cloud.move(MovedKeyframes({0: moved}))
    assert before.stamp_ns == 8
    assert not before.points[:, 0].any()
    assert not before.points.flags.writeable


def test_a_change_of_size_grows_the_points_about_their_camera():
    cloud = BoundedCloud(5000)
    cloud.add(a_keyframe(3, 10))
    cloud.move(MovedKeyframes({3: a_keyframe(3, 0).world_from_cam}, {3: 1.5}))
    np.testing.assert_allclose(cloud.points().points, np.tile([3.0, 0.0, 3.0], (10, 1)))
    cloud.move(MovedKeyframes({3: np.eye(4)}))
    np.testing.assert_allclose(cloud.points().points, np.tile([0.0, 0.0, 3.0], (10, 1)))


def test_settled_points_go_along_when_the_root_becomes_metric():
    cloud = BoundedCloud(100_000)
    keyframes = [a_keyframe(key, 3) for key in range(2 * MOVABLE_KEYFRAMES + 1)]
    for keyframe in keyframes:
        cloud.add(keyframe)
    before = cloud.points().points
    assert len(cloud._blocks) < len(keyframes)
    turn = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    shift = np.array([5.0, 6.0, 7.0])
    poses = {}
    for keyframe in keyframes:
        pose = np.eye(4)
        pose[:3, :3] = turn
        pose[:3, 3] = 2.5 * turn @ keyframe.world_from_cam[:3, 3] + shift
        poses[keyframe.id] = pose
    cloud.move(MovedKeyframes(poses, dict.fromkeys(poses, 2.5), ScaleState.METRIC))
    after = cloud.points()
    assert after.scale is ScaleState.METRIC
    np.testing.assert_allclose(after.points, 2.5 * before @ turn.T + shift, atol=2e-2)


def test_settled_points_stay_where_all_keyframes_are_told_once_more():
    """One of them has been corrected since, the last; the root has not changed."""
    cloud = BoundedCloud(100_000)
    keyframes = [a_keyframe(key, 3) for key in range(2 * MOVABLE_KEYFRAMES + 1)]
    for keyframe in keyframes:
        cloud.add(keyframe)
    assert len(cloud._blocks) < len(keyframes)
    before = cloud.points().points
    poses = {keyframe.id: keyframe.world_from_cam.copy() for keyframe in keyframes}
    poses[keyframes[-1].id][0, 3] += 1.0
    cloud.move(MovedKeyframes(poses, dict.fromkeys(poses, 1.0), keyframes[0].scale))
    moved = np.linalg.norm(cloud.points().points - before, axis=1)
    assert np.count_nonzero(moved > 0.5) == 3
    assert np.count_nonzero(moved > 1e-3) == 3


def test_keyframes_that_have_settled_are_not_put_in_twice_when_all_are_told_again():
    cloud = BoundedCloud(100_000)
    count = 2 * MOVABLE_KEYFRAMES + 1
    for _ in range(2):
        for key in range(count):
            cloud.add(a_keyframe(key, 3))
    assert len(cloud) == 3 * count
    x = np.sort(cloud.points().points[:, 0])
    np.testing.assert_allclose(x, np.repeat(np.arange(count), 3))
