# SPDX-License-Identifier: Apache-2.0
"""True trajectories are read from every format that the data sets use."""

from collections import Counter

import numpy as np
import pytest

from worldsystem.evaluation.surface import SurfaceDistance
from worldsystem.evaluation.truth import GroundTruth
from worldsystem.evaluation.truth_files import (
    enu_from_wgs84,
    from_simulator,
    load_truth_trajectory,
    thinned,
)
from worldsystem_core.errors import SourceError
from worldsystem_core.trajectory import StampedPoses, write_tum
from worldsystem_sim.config import SimConfig
from worldsystem_sim.truth import FrameRecord, write_truth


def two_poses() -> np.ndarray:
    poses = np.tile(np.eye(4), (2, 1, 1))
    poses[1, :3, 3] = (1.0, 2.0, 3.0)
    poses[1, :3, :3] = [[0, -1, 0], [1, 0, 0], [0, 0, 1]]
    return poses


def test_a_tum_file_keeps_its_stamps(tmp_path):
    truth = StampedPoses(np.array([10**18, 10**18 + 7]), two_poses())
    write_tum(tmp_path / "truth.txt", truth)
    read = load_truth_trajectory(tmp_path / "truth.txt")
    assert read.stamps_ns.tolist() == [10**18, 10**18 + 7]
    np.testing.assert_allclose(read.world_from_cam, truth.world_from_cam, atol=1e-8)


def test_a_redwood_log_is_read_as_world_from_cam(tmp_path):
    blocks = []
    for i, pose in enumerate(two_poses()):
        rows = "\n".join(" ".join(f"{x:.8f}" for x in row) for row in pose)
        blocks.append(f"{i} {i} {i + 1}\n{rows}")
    (tmp_path / "trajectory.log").write_text("\n".join(blocks) + "\n")
    read = load_truth_trajectory(tmp_path / "trajectory.log", rate_hz=10.0)
    np.testing.assert_allclose(read.world_from_cam, two_poses())
    assert read.stamps_ns.tolist() == [0, 100_000_000]


def test_one_matrix_a_line_is_read_row_by_row(tmp_path):
    np.savetxt(tmp_path / "poses.txt", two_poses().reshape(2, 16))
    read = load_truth_trajectory(tmp_path / "poses.txt", rate_hz=5.0)
    np.testing.assert_allclose(read.world_from_cam, two_poses())
    assert read.stamps_ns.tolist() == [0, 200_000_000]


def test_north_east_down_becomes_east_north_up_without_rotation(tmp_path):
    (tmp_path / "ned.csv").write_text("t_video_approx_s,n_m,e_m,d_m\n0.5,1,2,3\n1.5,4,5,6\n")
    read = load_truth_trajectory(tmp_path / "ned.csv")
    assert read.positions.tolist() == [[2, 1, -3], [5, 4, -6]]
    assert np.isnan(read.world_from_cam[:, :3, :3]).all()
    assert read.stamps_ns.tolist() == [500_000_000, 1_500_000_000]


def test_degrees_become_metres_on_the_ellipsoid(tmp_path):
    (tmp_path / "gps.csv").write_text(
        "t_video_approx_s,lat_deg,lon_deg,alt_m\n0,0,10,5\n1,0.001,10,5\n2,0,10.001,6\n"
    )
    positions = load_truth_trajectory(tmp_path / "gps.csv").positions
    # at the equator one degree is 110 574 m of meridian and 111 320 m of equator
    np.testing.assert_allclose(positions[1], [0, 110.574, 0], atol=2e-3)
    np.testing.assert_allclose(positions[2], [111.320, 0, 1], atol=2e-3)


def test_times_without_a_fix_are_left_out_also_before_the_first(tmp_path):
    (tmp_path / "gps.csv").write_text(
        "t_s,lat_deg,lon_deg,alt_m\n0,nan,nan,nan\n1,0,10,5\n2,nan,nan,nan\n3,0,10,6\n"
    )
    read = load_truth_trajectory(tmp_path / "gps.csv")
    assert read.stamps_ns.tolist() == [10**9, 3 * 10**9]
    np.testing.assert_allclose(read.positions, [[0, 0, 0], [0, 0, 1]], atol=1e-9)


def test_the_first_fix_is_the_origin():
    enu = enu_from_wgs84(np.array([48.1]), np.array([11.5]), np.array([520.0]))
    assert enu.tolist() == [[0.0, 0.0, 0.0]]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# nothing\n",
        "1 2\n",
        "0 0 1\n1 0 0 0\n",
        "a,b\n1,2\n",
        "t_s,n_m\n",
        "x y z\n",
        "1e300 0 0 0 0 0 0 1\n",
        "t_s,lat_deg,lon_deg,alt_m\n0,1,2,3\n1,1,2\n",  # cut off
        "t_s,lat_deg,lon_deg,alt_m\n0,nan,nan,nan\n",
    ],
)
def test_a_file_that_is_no_trajectory_is_refused_by_name(tmp_path, text):
    (tmp_path / "odd.txt").write_text(text)
    with pytest.raises(SourceError, match=r"odd\.txt"):
        load_truth_trajectory(tmp_path / "odd.txt")


def test_a_missing_file_is_refused_by_name(tmp_path):
    with pytest.raises(SourceError, match="nowhere"):
        load_truth_trajectory(tmp_path / "nowhere.txt")


def test_what_the_simulated_camera_saw_lies_on_the_true_surface(tmp_path):
    config = SimConfig(flight="orbit", duration_s=4.0, width=160, height=90)
    records = [FrameRecord(i, 10**18 + i * 66_666_667, "sent") for i in range(config.frame_count)]
    write_truth(tmp_path, config, records, Counter())
    truth = from_simulator(tmp_path, every_n_frames=20)
    assert truth.poses.stamps_ns.tolist() == [record.stamp_ns for record in records]
    assert truth.up == (0.0, 0.0, 1.0)
    assert truth.scene_diameter == truth.diameter
    distances = SurfaceDistance(truth.mesh)(truth.seen_points)
    assert len(distances) > 500
    assert np.percentile(distances, 99) < 1e-3 * truth.diameter


def test_a_folder_without_simulator_truth_is_refused(tmp_path):
    with pytest.raises(SourceError, match="no simulator"):
        from_simulator(tmp_path)


def test_thinning_keeps_one_point_a_cell():
    points = np.array([[0.1, 0.1, 0.1], [0.9, 0.9, 0.9], [1.1, 0, 0], [-0.1, 0, 0], [1.2, 0.5, 0]])
    assert thinned(points, 1.0).tolist() == points[[0, 2, 3]].tolist()
    assert len(thinned(np.zeros((0, 3)), 1.0)) == 0


def test_without_a_given_diameter_it_is_that_of_what_was_seen():
    poses = StampedPoses(np.array([0, 1]), two_poses())
    assert GroundTruth(poses=poses).scene_diameter == pytest.approx(np.sqrt(14))
    seen = np.array([[0.0, 0, 0], [3.0, 4.0, 0]])
    assert GroundTruth(poses=poses, seen_points=seen).scene_diameter == pytest.approx(5.0)
    assert GroundTruth(poses=poses, seen_points=seen, diameter=9.0).scene_diameter == 9.0
