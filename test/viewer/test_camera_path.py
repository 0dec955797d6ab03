# SPDX-License-Identifier: Apache-2.0
"""The path: what hangs on a keyframe follows it, and memory has a bound."""

import dataclasses

import numpy as np
from world_for_viewers import camera_pose, pose_event

from worldsystem_core.reconstruction import TrackingState
from worldsystem_viewer.camera_path import CameraPath


def test_centres_follow_their_keyframe_rigidly():
    path = CameraPath()
    path.add_keyframe(4, camera_pose(0.0))
    for n in range(10):
        path.add(pose_event(n, n / 10, keyframe_id=4))
    path.add(pose_event(10, 0.5))
    before = path.positions()
    moved = camera_pose(0.7)
    path.move({4: moved})
    carried = moved @ np.linalg.inv(camera_pose(0.0))
    wanted = before[:10] @ carried[:3, :3].T + carried[:3, 3]
    np.testing.assert_allclose(path.positions()[:10], wanted, atol=1e-5)
    np.testing.assert_array_equal(path.positions()[10], before[10])


def test_lost_and_not_finite_poses_are_left_out():
    path = CameraPath()
    path.add(dataclasses.replace(pose_event(0, 0.1), state=TrackingState.LOST))
    broken = pose_event(1, 0.1)
    broken.world_from_cam[0, 3] = np.nan
    path.add(broken)
    assert len(path) == 0
    assert path.positions().shape == (0, 3)


def test_a_full_path_is_thinned_out_and_says_so():
    path = CameraPath(capacity=100)
    for n in range(1000):
        path.add(pose_event(n, n / 1000))
    assert 50 <= len(path) <= 100
    assert path.epoch > 0
    np.testing.assert_allclose(path.positions()[-1], camera_pose(0.999)[:3, 3], rtol=1e-5)
    np.testing.assert_allclose(path.positions()[0], camera_pose(0.0)[:3, 3], rtol=1e-5)
