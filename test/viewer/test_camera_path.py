# SPDX-License-Identifier: Apache-2.0
"""The path: what hangs on a keyframe follows it, and memory has a bound."""

import dataclasses
from itertools import pairwise

import numpy as np
from world_for_viewers import camera_pose, pose_event

from worldsystem_core.reconstruction import RemovedKeyframes, Successor, TrackingState
from worldsystem_core.trajectory import StampedPoses
from worldsystem_viewer.camera_path import CameraPath


def test_centres_follow_their_keyframe_rigidly():
    path = CameraPath()
    path.add_keyframe(4, camera_pose(0.0))
    for n in range(10):
        path.add(pose_event(n, n / 10, keyframe_id=4))
    path.add_keyframe(5, camera_pose(0.4))
    path.add(pose_event(10, 0.5, keyframe_id=5))
    before = path.positions()
    moved = camera_pose(0.7)
    path.move({4: moved})
    carried = moved @ np.linalg.inv(camera_pose(0.0))
    wanted = before[:10] @ carried[:3, :3].T + carried[:3, 3]
    np.testing.assert_allclose(path.positions()[:10], wanted, atol=1e-5)
    np.testing.assert_array_equal(path.positions()[10], before[10])


def test_centres_that_name_no_keyframe_follow_the_newest():
    """As those from other processes, whose message has no room for it."""
    path = CameraPath()
    path.add_keyframe(4, camera_pose(0.0))
    path.add_keyframe(7, camera_pose(0.3))
    for n in range(10):
        path.add(pose_event(n, 0.3 + n / 100))
    before = path.positions()
    path.move({4: camera_pose(0.5)})
    np.testing.assert_array_equal(path.positions(), before)
    moved = camera_pose(0.7)
    path.move({7: moved}, {7: 2.0})
    there = before @ camera_pose(0.3)[:3, :3] - camera_pose(0.3)[:3, 3] @ camera_pose(0.3)[:3, :3]
    wanted = 2.0 * there @ moved[:3, :3].T + moved[:3, 3]
    np.testing.assert_allclose(path.positions(), wanted, atol=1e-5)


def test_moves_heard_before_the_first_keyframe_leave_the_centres_where_they_are():
    """As in a viewer that is begun anew: it is first told where all keyframes lie."""
    path, first, second = CameraPath(), camera_pose(0.0), camera_pose(0.3)
    path.move({4: first, 7: second})
    for n in range(10):
        path.add(pose_event(n, n / 10))
    before = path.positions()
    path.add_keyframe(4, first)
    path.move({4: first, 7: second})
    np.testing.assert_allclose(path.positions(), before, atol=1e-5)


def test_the_path_goes_with_the_last_keyframe():
    path = CameraPath()
    path.add_keyframe(4, camera_pose(0.0))
    path.add_keyframe(7, camera_pose(0.3))
    for n in range(10):
        path.add(pose_event(n + 20, n / 10, keyframe_id=4))
    path.put_before(whole_path(30))
    told = path.epoch
    path.remove(RemovedKeyframes((4, 7)))
    assert path.positions().shape == (0, 3)
    assert path.epoch > told
    path.add(pose_event(40, 0.2))
    path.add_keyframe(9, camera_pose(0.1))
    moved = camera_pose(0.6)
    path.move({9: moved})
    carried = moved @ np.linalg.inv(camera_pose(0.1))
    wanted = carried[:3, :3] @ camera_pose(0.2)[:3, 3] + carried[:3, 3]
    np.testing.assert_allclose(path.positions(), [wanted], atol=1e-5)


def test_a_keyframe_that_goes_before_any_is_known_leaves_the_path():
    path = CameraPath()
    path.add(pose_event(0, 0.2))
    path.remove(RemovedKeyframes((4,)))
    assert len(path) == 1


def test_centres_go_along_with_the_keyframe_that_stands_in_for_theirs():
    """What the successor was when it took over, and what it has moved by since."""
    path = CameraPath()
    path.add_keyframe(4, camera_pose(0.0))
    path.add_keyframe(7, camera_pose(0.3))
    for n in range(10):
        path.add(pose_event(n, n / 10, keyframe_id=4))
    before = path.positions()
    path.remove(RemovedKeyframes((4,), {4: Successor(7, camera_pose(0.3))}))
    np.testing.assert_array_equal(path.positions(), before)
    moved = camera_pose(0.7)
    path.move({7: moved})
    carried = moved @ np.linalg.inv(camera_pose(0.3))
    wanted = before @ carried[:3, :3].T + carried[:3, 3]
    np.testing.assert_allclose(path.positions(), wanted, atol=1e-5)


def test_sizes_told_after_a_keyframe_was_told_again_count_from_there():
    path, place = CameraPath(), camera_pose(0.2)
    path.add_keyframe(4, place)
    for n in range(10):
        path.add(pose_event(n, n / 10, keyframe_id=4))
    before = path.positions() - place[:3, 3]
    path.move({4: place}, {4: 2.0})
    path.add_keyframe(4, place)
    for told, grown in ((1.0, 2.0), (1.5, 3.0)):
        path.move({4: place}, {4: told})
        np.testing.assert_allclose(path.positions() - place[:3, 3], grown * before, atol=1e-5)


def whole_path(count: int, shift: float = 0.0) -> StampedPoses:
    """As the reconstruction tells it, from the first pose on."""
    events = [pose_event(n, n / 100) for n in range(count)]
    poses = np.array([event.world_from_cam for event in events])
    poses[:, 0, 3] += shift
    return StampedPoses(np.array([event.stamp_ns for event in events]), poses)


def test_what_came_before_the_first_centre_is_taken_from_the_whole_path():
    path = CameraPath()
    for n in range(30, 40):
        path.add(pose_event(n, n / 100))
    own, told = path.positions(), path.epoch
    path.put_before(whole_path(38))
    assert path.epoch > told, "a page has none of it"
    wanted = np.array([camera_pose(n / 100)[:3, 3] for n in range(40)], np.float32)
    np.testing.assert_allclose(path.positions(), wanted, atol=1e-6)
    np.testing.assert_array_equal(path.positions(30), own)
    np.testing.assert_allclose(path.positions(27), wanted[27:], atol=1e-6)
    np.testing.assert_array_equal(path.positions_until(pose_event(33, 0).stamp_ns), wanted[:34])


def test_the_path_of_before_follows_corrections_and_is_told_again_only_then():
    path = CameraPath()
    path.add(pose_event(30, 0.3))
    path.put_before(whole_path(40))
    epochs = [path.epoch]
    for poses in (whole_path(50), whole_path(60, shift=0.25)):
        path.put_before(poses)
        path.show_corrections(100.0 * len(epochs))
        epochs.append(path.epoch)
    assert epochs[0] == epochs[1] < epochs[2]
    np.testing.assert_allclose(path.positions()[:30], whole_path(30, 0.25).positions, atol=1e-6)
    np.testing.assert_allclose(path.positions()[30], camera_pose(0.3)[:3, 3], rtol=1e-6)


def test_a_long_path_of_before_is_thinned_out_up_to_its_end():
    path = CameraPath(capacity=100)
    path.put_before(whole_path(1000))
    assert 25 < len(path) <= 50
    np.testing.assert_allclose(path.positions()[-1], whole_path(1000).positions[-1], rtol=1e-6)


def test_a_long_path_shows_corrections_more_seldom():
    """Twice a second something is corrected, for an hour at 15 poses a second; ten looks each."""
    path, epochs, centres = CameraPath(), [], 0
    path.add_keyframe(4, camera_pose(0.0))
    for tick in range(7200):
        for n in range(8):
            path.add(pose_event(8 * tick + n, n / 10, keyframe_id=4))
        path.move({4: camera_pose(0.1)})
        for look in range(10):
            before = path.epoch
            path.show_corrections(0.5 * tick + 0.05 * look)
            epochs += [0.5 * tick] * (path.epoch - before)
            centres += len(path) * (path.epoch - before)
    assert centres < 1.1 * 5000 * 3600
    assert len([at for at in epochs if at < 10.0]) >= 18
    assert max(b - a for a, b in pairwise(epochs)) <= 3.0


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
    steps = np.linalg.norm(np.diff(path.positions(), axis=0), axis=1)
    whole = np.linalg.norm(camera_pose(0.999)[:3, 3] - camera_pose(0.0)[:3, 3])
    assert steps.max() < 0.08 * whole, "nothing of the path is left out altogether"
    np.testing.assert_allclose(path.positions()[-1], camera_pose(0.999)[:3, 3], rtol=1e-5)
    np.testing.assert_allclose(path.positions()[0], camera_pose(0.0)[:3, 3], rtol=1e-5)
