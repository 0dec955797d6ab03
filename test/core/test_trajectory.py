# SPDX-License-Identifier: Apache-2.0
"""A pose hangs on its keyframe and moves with it; TUM files keep nanoseconds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from worldsystem_core.frames import Camera
from worldsystem_core.reconstruction import (
    Keyframe,
    MovedKeyframes,
    NewKeyframe,
    Pose,
    RemovedKeyframes,
    ScaleState,
    Successor,
    TrackingState,
)
from worldsystem_core.surface import Mesh, MeshAssembly, MeshBlock, MeshDelta, join_blocks
from worldsystem_core.trajectory import StampedPoses, Trajectory, read_tum, write_tum


def pose_at(x: float, angle: float = 0.0) -> np.ndarray:
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_rotvec([0.0, angle, 0.0]).as_matrix()
    pose[0, 3] = x
    return pose


def tracked(stamp: int, x: float, keyframe: int, state=TrackingState.TRACKED) -> Pose:
    return Pose(
        frame_id=stamp,
        stamp_ns=stamp,
        world_from_cam=pose_at(x),
        confidence=1.0,
        state=state,
        keyframe_id=keyframe,
    )


def keyframe(id: int, x: float) -> NewKeyframe:
    camera = Camera(width=2, height=2, fx=1.0, fy=1.0, cx=0.5, cy=0.5)
    return NewKeyframe(
        Keyframe(
            id=id,
            frame_id=id,
            stamp_ns=id,
            world_from_cam=pose_at(x),
            camera=camera,
            pointmap=np.zeros((2, 2, 3), np.float32),
            confidence=np.zeros((2, 2), np.float32),
            rgb=np.zeros((2, 2, 3), np.uint8),
        )
    )


def test_a_correction_of_a_keyframe_carries_its_poses_along():
    trajectory = Trajectory()
    for event in (keyframe(1, 1.0), tracked(10, 1.5, 1), tracked(5, 0.5, -1)):
        trajectory.add(event)
    trajectory.add(MovedKeyframes({1: pose_at(3.0, np.pi)}))
    poses = trajectory.poses()
    assert poses.stamps_ns.tolist() == [5, 10]
    np.testing.assert_allclose(poses.positions[:, 0], [0.5, 2.5], atol=1e-6)


def test_lost_frames_are_no_part_of_the_path():
    trajectory = Trajectory()
    trajectory.add(tracked(1, 1.0, -1, TrackingState.LOST))
    assert len(trajectory) == 0
    assert len(trajectory.poses()) == 0


def test_of_a_path_at_its_limit_the_older_poses_are_thinned_out():
    trajectory = Trajectory(most_poses=100)
    for stamp in range(1000):
        trajectory.add(tracked(stamp, float(stamp), -1))
    stamps = trajectory.poses().stamps_ns
    assert len(stamps) <= 100
    assert stamps[0] == 0
    assert stamps[-50:].tolist() == list(range(950, 1000))
    even_gap = 950 / 50
    assert np.diff(stamps).max() < 3 * even_gap, "nothing is left out altogether"
    np.testing.assert_allclose(trajectory.poses().positions[:, 0], stamps)


def test_thinned_poses_still_follow_their_keyframes():
    trajectory = Trajectory(most_poses=10)
    trajectory.add(keyframe(1, 1.0))
    for stamp in range(100):
        trajectory.add(tracked(stamp, 1.0 + stamp, 1))
    trajectory.add(MovedKeyframes({1: pose_at(5.0)}))
    poses = trajectory.poses()
    np.testing.assert_allclose(poses.positions[:, 0], 5.0 + poses.stamps_ns, atol=1e-4)


def test_a_path_of_three_poses_at_most_is_refused():
    with pytest.raises(ValueError, match="keep 4 or more"):
        Trajectory(most_poses=3)


def test_a_tum_file_keeps_stamps_to_the_nanosecond_and_poses_to_the_micrometre(tmp_path):
    rng = np.random.default_rng(0)
    stamps = np.array([1, 1_700_000_000_123_456_789, 1_700_000_000_123_456_790])
    matrices = np.stack([pose_at(rng.normal(), rng.normal()) for _ in stamps])
    path = tmp_path / "trajectory.tum"
    write_tum(path, StampedPoses(stamps, matrices))
    back = read_tum(path)
    np.testing.assert_array_equal(back.stamps_ns, stamps)
    np.testing.assert_allclose(back.world_from_cam, matrices, atol=1e-6)


@pytest.mark.parametrize("form", ["%.18e", "%.9f", "%.20g"])
def test_stamps_are_exact_in_whatever_form_numbers_are_written(tmp_path, form):
    stamps_ns = np.array([0, 33_333_333, 1_305_031_526_671_320_000])
    rows = np.zeros((3, 8))
    rows[:, 0], rows[:, 7] = stamps_ns / 1e9, 1.0
    np.savetxt(tmp_path / "numbers.tum", rows, form)
    read = read_tum(tmp_path / "numbers.tum").stamps_ns
    assert np.abs(read - stamps_ns).max() < 200, "which is what a double keeps"


@pytest.mark.parametrize("word", ["nan", "inf", "1e300", "soon"])
def test_a_stamp_that_is_no_time_is_refused(tmp_path, word):
    (tmp_path / "odd.tum").write_text(f"{word} 0 0 0 0 0 0 1\n")
    with pytest.raises(ValueError, match="time"):
        read_tum(tmp_path / "odd.tum")


def test_a_trajectory_that_cannot_be_written_leaves_the_one_before(tmp_path, full_disk):
    path = tmp_path / "t.tum"
    poses = StampedPoses(np.arange(9), np.stack([pose_at(x) for x in range(9)]))
    write_tum(path, poses)
    before = path.read_bytes()
    full_disk()
    with pytest.raises(OSError, match="No space"):
        write_tum(path, poses)
    assert path.read_bytes() == before


def test_a_line_that_is_cut_off_is_told(tmp_path):
    (tmp_path / "t.tum").write_text("1.0 0 0 0 0 0 0 1\n2.0 0 0 0\n")
    with pytest.raises(ValueError, match=r"'2\.0 0 0 0' has 4 words"):
        read_tum(tmp_path / "t.tum")


def test_an_empty_trajectory_is_a_file_with_a_head_only(tmp_path):
    write_tum(tmp_path / "t.tum", Trajectory().poses())
    assert len(read_tum(tmp_path / "t.tum")) == 0


def test_the_path_length_is_the_sum_of_its_steps():
    poses = StampedPoses(np.arange(3), np.stack([pose_at(0), pose_at(2), pose_at(1)]))
    assert poses.path_length == pytest.approx(3.0)


def block(i: int, version: int = 1) -> MeshBlock:
    return MeshBlock(
        index=(i, 0, 0),
        version=version,
        vertices=np.full((3, 3), i, np.float32),
        colours=np.zeros((3, 3), np.uint8),
        faces=np.array([[0, 1, 2]], np.int32),
    )


def delta(sequence: int, blocks=(), removed=()) -> MeshDelta:
    return MeshDelta(
        stamp_ns=0,
        sequence=sequence,
        base_sequence=sequence - 1,
        block_size=1.0,
        blocks=tuple(blocks),
        removed=tuple(removed),
        total_vertices=0,
        total_faces=0,
        keyframe_count=0,
        capture_ns=0,
    )


def test_deltas_assemble_to_the_surface_and_a_missed_one_is_noticed():
    surface = MeshAssembly()
    assert surface.apply(delta(1, [block(0), block(1)]))
    assert surface.apply(delta(2, [block(2)], [(0, 0, 0)]))
    assert not surface.apply(delta(4, [block(3)]))
    mesh = surface.mesh()
    assert sorted(set(mesh.vertices[:, 0])) == [1.0, 2.0]
    assert mesh.faces.max() == len(mesh.vertices) - 1


def test_no_blocks_are_an_empty_mesh():
    assert isinstance(join_blocks([]), Mesh)
    assert len(MeshAssembly().mesh().faces) == 0


def test_a_keyframe_that_comes_late_takes_the_poses_since_its_picture():
    trajectory = Trajectory()
    for event in (keyframe(1, 1.0), tracked(10, 1.5, 1), tracked(20, 2.5, 1), keyframe(15, 2.0)):
        trajectory.add(event)
    trajectory.add(MovedKeyframes({15: pose_at(12.0)}))
    assert trajectory.poses().positions[:, 0] == pytest.approx([1.5, 12.5])


def test_poses_from_before_the_first_keyframe_hang_on_it():
    trajectory = Trajectory()
    trajectory.add(tracked(1, 0.5, -1))
    trajectory.add(keyframe(3, 1.0))
    trajectory.add(MovedKeyframes({3: pose_at(6.0)}))
    assert trajectory.poses().positions[0, 0] == pytest.approx(5.5)


def test_poses_grow_with_their_keyframe_by_the_newest_factor():
    trajectory = Trajectory()
    for event in (keyframe(1, 1.0), tracked(10, 1.5, 1)):
        trajectory.add(event)
    trajectory.add(MovedKeyframes({1: pose_at(2.0)}, {1: 4.0}))
    assert trajectory.poses().positions[0, 0] == pytest.approx(2.0 + 4.0 * 0.5)
    trajectory.add(tracked(20, 2.0 + 4.0 * 0.25, 1))
    trajectory.add(MovedKeyframes({1: pose_at(2.0)}, {1: 8.0}, ScaleState.METRIC))
    assert trajectory.poses().positions[:, 0] == pytest.approx([6.0, 4.0])
    assert trajectory.poses().scale is ScaleState.METRIC


def test_poses_of_a_withdrawn_keyframe_hang_on_those_told_in_its_place():
    trajectory = Trajectory()
    for event in (keyframe(1, 1.0), keyframe(5, 2.0), tracked(3, 1.5, 1), tracked(7, 2.5, 5)):
        trajectory.add(event)
    trajectory.add(RemovedKeyframes((1, 5)))
    assert trajectory.keyframe_ids == ()
    assert trajectory.poses().positions[:, 0] == pytest.approx([1.5, 2.5])
    again = [
        replace(keyframe(stamp, x).keyframe, id=key) for key, stamp, x in ((8, 1, 1.0), (9, 5, 2.0))
    ]
    for one in again:
        trajectory.add(NewKeyframe(one))
    trajectory.add(MovedKeyframes({8: pose_at(11.0), 9: pose_at(22.0)}))
    assert trajectory.poses().positions[:, 0] == pytest.approx([11.5, 22.5])


def test_poses_go_on_with_the_keyframe_that_stands_in_for_theirs():
    trajectory = Trajectory()
    for event in (keyframe(1, 1.0), tracked(2, 1.5, 1), keyframe(9, 2.0), tracked(10, 2.5, 9)):
        trajectory.add(event)
    trajectory.add(MovedKeyframes({1: pose_at(2.0), 9: pose_at(4.0)}, {1: 2.0, 9: 2.0}))
    trajectory.add(RemovedKeyframes((1,), {1: Successor(9, pose_at(4.0), 2.0)}))
    assert trajectory.keyframe_ids == (9,)
    assert trajectory.poses().positions[:, 0] == pytest.approx([3.0, 5.0])
    trajectory.add(MovedKeyframes({9: pose_at(4.0, np.pi)}, {9: 4.0}))
    assert trajectory.poses().positions[:, 0] == pytest.approx([6.0, 2.0])


def test_a_successor_has_successors_of_its_own():
    trajectory = Trajectory()
    for event in (keyframe(1, 1.0), tracked(2, 1.5, 1), keyframe(5, 1.0), keyframe(9, 1.0)):
        trajectory.add(event)
    trajectory.add(RemovedKeyframes((1,), {1: Successor(5, pose_at(1.0))}))
    trajectory.add(RemovedKeyframes((5,), {5: Successor(9, pose_at(1.0))}))
    trajectory.add(MovedKeyframes({9: pose_at(11.0)}))
    assert trajectory.poses().positions[0, 0] == pytest.approx(11.5)


def test_a_keyframe_told_again_in_another_unit_keeps_its_poses():
    trajectory = Trajectory()
    for event in (keyframe(1, 1.0), tracked(10, 1.5, 1)):
        trajectory.add(event)
    trajectory.add(MovedKeyframes({1: pose_at(2.0)}, {1: 4.0}))
    trajectory.add(NewKeyframe(replace(keyframe(1, 2.0).keyframe)))
    assert trajectory.poses().positions[0, 0] == pytest.approx(4.0)
    trajectory.add(MovedKeyframes({1: pose_at(2.0)}, {1: 0.5}))
    assert trajectory.poses().positions[0, 0] == pytest.approx(3.0)


def test_a_keyframe_of_an_earlier_session_takes_no_poses():
    trajectory = Trajectory()
    for event in (keyframe(50, 1.0), tracked(60, 1.5, 50)):
        trajectory.add(event)
    trajectory.add(NewKeyframe(replace(keyframe(2, 9.0).keyframe, id=7)))
    trajectory.add(MovedKeyframes({7: pose_at(-9.0), 50: pose_at(2.0)}))
    assert trajectory.poses().positions[0, 0] == pytest.approx(2.5)


def test_poses_from_before_the_first_keyframe_of_a_later_sub_map_hang_on_it():
    """As of a start after a loss: poses are told at once, dense depth comes later."""
    trajectory = Trajectory()
    for event in (keyframe(1, 1.0), tracked(2, 1.5, 1)):
        trajectory.add(event)
    trajectory.add(replace(tracked(10, 4.0, -1), submap=1))
    trajectory.add(NewKeyframe(replace(keyframe(11, 5.0).keyframe, submap=1)))
    grown = {1: 2.0, 11: 2.0}
    trajectory.add(MovedKeyframes({1: pose_at(2.0), 11: pose_at(10.0)}, grown, ScaleState.METRIC))
    assert trajectory.poses().positions[:, 0] == pytest.approx([3.0, 8.0])
