# SPDX-License-Identifier: Apache-2.0
"""Path errors: what a transformed, a noisy, a drifting and an absent path must score."""

import numpy as np
import pytest
from evo.core import metrics, sync
from evo.core.trajectory import PoseTrajectory3D
from scipy.spatial.transform import Rotation

from worldsystem.evaluation.trajectory import associate, evaluate_trajectory, relative_drift
from worldsystem_core.geometry.rotation import quaternion_xyzw_from_matrix
from worldsystem_core.geometry.sim3 import Sim3
from worldsystem_core.trajectory import StampedPoses

FRAME_NS = 33_333_333


def flown(n: int = 300, seed: int = 3) -> StampedPoses:
    """A climbing loop of about 60 units with a turning camera."""
    angle = np.linspace(0.0, 2.0 * np.pi, n)
    poses = np.tile(np.eye(4), (n, 1, 1))
    poses[:, :3, 3] = np.stack([9 * np.cos(angle), 9 * np.sin(angle), 2 + angle], axis=1)
    wobble = np.random.default_rng(seed).normal(0, 0.05, (n, 3))
    poses[:, :3, :3] = Rotation.from_rotvec(wobble + angle[:, None] * [0, 0, 1]).as_matrix()
    return StampedPoses(np.arange(n, dtype=np.int64) * FRAME_NS, poses)


def moved_by(similarity: Sim3, poses: StampedPoses) -> StampedPoses:
    mapped = np.array([similarity.apply_pose(pose) for pose in poses.world_from_cam])
    return StampedPoses(poses.stamps_ns, mapped)


def shaken(poses: StampedPoses, sigma: float, seed: int = 1) -> StampedPoses:
    noisy = poses.world_from_cam.copy()
    noisy[:, :3, 3] += np.random.default_rng(seed).normal(0, sigma, (len(poses), 3))
    return StampedPoses(poses.stamps_ns, noisy)


SIMILARITY = Sim3(
    0.37, Rotation.from_euler("zyx", [1.0, -0.4, 2.0]).as_matrix(), np.array([5.0, -3.0, 11.0])
)


def test_a_path_in_another_frame_and_scale_has_no_error_after_sim3_alignment():
    truth = flown()
    error = evaluate_trajectory(moved_by(SIMILARITY, truth), truth, len(truth))
    assert error.ate_sim3 < 1e-9
    assert error.rpe_per_unit < 1e-9
    assert error.rpe_rad_per_unit < 1e-6  # arctan2 of rounding errors
    assert abs(error.scale_drift) < 1e-9
    assert error.tracked_share == 1.0
    assert error.truth_from_estimate.scale == pytest.approx(1 / 0.37)


def test_a_wrong_scale_shows_in_the_se3_error_only():
    truth = flown()
    half = StampedPoses(truth.stamps_ns, truth.world_from_cam.copy())
    half.world_from_cam[:, :3, 3] *= 0.5
    error = evaluate_trajectory(half, truth, len(truth))
    spread = truth.positions - truth.positions.mean(axis=0)
    assert error.ate_sim3 < 1e-9
    assert error.ate_se3 == pytest.approx(0.5 * np.sqrt((spread**2).sum(axis=1).mean()))
    assert error.ate_se3_percent == pytest.approx(100 * error.ate_se3 / truth.path_length)


def test_noise_of_known_strength_gives_its_rms():
    truth = flown(3000)
    error = evaluate_trajectory(shaken(truth, 0.02), truth, len(truth))
    # 9000 normal draws: the RMS of their lengths has a relative deviation of 1/sqrt(18000) = 0.7 %
    assert error.ate_sim3 == pytest.approx(0.02 * np.sqrt(3), rel=0.03)
    assert error.errors.shape == error.stamps_ns.shape == (3000,)


def test_a_scale_that_grows_along_the_path_is_seen_as_scale_drift():
    truth = flown(900)
    step = np.diff(truth.positions, axis=0) * np.linspace(1.0, 1.3, 899)[:, None]
    drifting = StampedPoses(truth.stamps_ns, truth.world_from_cam.copy())
    drifting.world_from_cam[1:, :3, 3] = truth.positions[0] + np.cumsum(step, axis=0)
    error = evaluate_trajectory(drifting, truth, len(truth))
    # the thirds have mean factors 1.05 and 1.25
    assert error.scale_drift == pytest.approx(1.25 / 1.05 - 1, abs=0.02)


def test_evo_gives_the_same_ate_and_rpe():
    truth = flown()
    estimate = moved_by(SIMILARITY, shaken(truth, 0.05))
    error = evaluate_trajectory(estimate, truth, len(truth))
    reference, aligned = sync.associate_trajectories(as_evo(truth), as_evo(estimate), max_diff=0.02)
    for scaled, ours in ((True, error.ate_sim3), (False, error.ate_se3)):
        copy = as_evo(estimate)
        copy.align(reference, correct_scale=scaled)
        ape = metrics.APE(metrics.PoseRelation.translation_part)
        ape.process_data((reference, copy))
        assert ours == pytest.approx(ape.get_statistic(metrics.StatisticsType.rmse), rel=1e-6)
    aligned.align(reference, correct_scale=True)
    assert error.rpe_per_unit == pytest.approx(evo_drift(reference, aligned, 1.0), rel=1e-6)


def as_evo(poses: StampedPoses) -> PoseTrajectory3D:
    xyzw = np.array([quaternion_xyzw_from_matrix(pose[:3, :3]) for pose in poses.world_from_cam])
    return PoseTrajectory3D(poses.positions, xyzw[:, [3, 0, 1, 2]], poses.stamps_ns * 1e-9)


def evo_drift(reference: PoseTrajectory3D, estimate: PoseTrajectory3D, step: float) -> float:
    travelled = reference.distances
    drifts = []
    for i in range(len(travelled)):
        beyond = np.nonzero(travelled >= travelled[i] + step - 1e-9)[0]
        if len(beyond):
            j = beyond[0]
            error = metrics.RPE.rpe_base(
                reference.poses_se3[i], reference.poses_se3[j],
                estimate.poses_se3[i], estimate.poses_se3[j],
            )  # fmt: skip
            drifts.append(np.linalg.norm(error[:3, 3]) / (travelled[j] - travelled[i]))
    return float(np.sqrt(np.mean(np.square(drifts))))


def test_frames_without_a_pose_lower_the_tracked_share():
    truth = flown(100)
    estimate = StampedPoses(truth.stamps_ns[25:], truth.world_from_cam[25:].copy())
    estimate.world_from_cam[-5:, 0, 3] = np.nan
    error = evaluate_trajectory(estimate, truth, 100)
    assert error.tracked_share == 0.70
    assert error.matched == 70


def test_stamps_match_their_mutual_nearest_within_the_tolerance():
    a = np.array([0, 100, 200, 300], np.int64)
    b = np.array([96, 104, 215, 500], np.int64)
    at_a, at_b = associate(a, b, 10e-9)
    assert at_a.tolist() == [1]
    assert at_b.tolist() == [0]
    at_a, at_b = associate(a, b, 20e-9)
    assert at_a.tolist() == [1, 2]
    assert at_b.tolist() == [0, 2]


@pytest.mark.parametrize("count", [0, 2])
def test_too_few_poses_give_no_number_and_no_crash(count):
    truth = flown(50)
    few = StampedPoses(truth.stamps_ns[:count], truth.world_from_cam[:count])
    error = evaluate_trajectory(few, truth, 50)
    assert np.isnan(error.ate_sim3)
    assert np.isnan(error.ate_sim3_percent)
    assert not error.aligned
    assert error.tracked_share == count / 50


def test_a_path_of_nothing_but_nan_is_an_untracked_one():
    truth = flown(50)
    lost = StampedPoses(truth.stamps_ns, np.full((50, 4, 4), np.nan))
    assert evaluate_trajectory(lost, truth, 50).tracked_share == 0.0


def test_a_truth_without_rotations_has_an_ate_but_no_rpe():
    truth = flown(200)
    positions_only = truth.world_from_cam.copy()
    positions_only[:, :3, :3] = np.nan
    error = evaluate_trajectory(truth, StampedPoses(truth.stamps_ns, positions_only), 200)
    assert error.ate_sim3 < 1e-9
    assert np.isnan(error.rpe_per_unit)


def test_a_hovering_camera_gives_no_percentage_and_no_crash():
    poses = np.tile(np.eye(4), (40, 1, 1))
    still = StampedPoses(np.arange(40, dtype=np.int64) * FRAME_NS, poses)
    error = evaluate_trajectory(still, still, 40)
    assert error.ate_sim3 == pytest.approx(0.0)
    assert np.isnan(error.ate_sim3_percent)
    assert np.isnan(relative_drift(still, still, 1.0)[0])
