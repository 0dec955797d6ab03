# SPDX-License-Identifier: Apache-2.0
"""How far an estimated path is from the true one.

ATE after alignment and RPE as in Sturm et al., "A Benchmark for the Evaluation of RGB-D SLAM
Systems" (IROS 2012); the alignment is Umeyama's (`worldsystem_core.geometry.sim3`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from worldsystem.evaluation.protocols import nearest, piece_errors, rms
from worldsystem_core.geometry.sim3 import Sim3, fit_sim3
from worldsystem_core.trajectory import StampedPoses

IDENTITY = Sim3(1.0, np.eye(3), np.zeros(3))
NAN = float("nan")


@dataclass(frozen=True, kw_only=True, eq=False)
class TrajectoryError:
    """The verdict on a path; lengths in truth units, NaN where fewer than three poses match.

    `errors` [truth units] belong to the matched stamps, after Sim(3) alignment. Percentages are of
    `true_path_length`, the truth's path between the first and the last matched pose. The RPE is
    the drift over `rpe_step` of true path (Sim(3) scale applied), per unit of that path; NaN when
    the truth has no rotations. `scale_drift` is how much longer a unit is estimated in the last
    third of the path than in the first (+0.1: ten percent too long by the end).
    """

    matched: int
    tracked_share: float
    true_path_length: float
    ate_sim3: float
    ate_se3: float
    rpe_per_unit: float
    rpe_rad_per_unit: float
    rpe_step: float
    scale_drift: float
    truth_from_estimate: Sim3
    stamps_ns: Int64[np.ndarray, "n"]
    errors: Float64[np.ndarray, "n"]

    @property
    def aligned(self) -> bool:
        """Whether `truth_from_estimate` was fitted; otherwise it is the identity."""
        return bool(np.isfinite(self.ate_sim3))

    @property
    def ate_sim3_percent(self) -> float:
        """ATE after Sim(3) alignment [% of the true path]."""
        return _percent(self.ate_sim3, self.true_path_length)

    @property
    def ate_se3_percent(self) -> float:
        """ATE after SE(3) alignment, scale as estimated [% of the true path]."""
        return _percent(self.ate_se3, self.true_path_length)


def evaluate_trajectory(
    estimated: StampedPoses,
    truth: StampedPoses,
    frame_count: int,
    *,
    tolerance_s: float = 0.02,
    rpe_step: float = 1.0,
) -> TrajectoryError:
    """Compare `estimated` with `truth`, pose by pose at equal stamps (within `tolerance_s`).

    `frame_count` is the number of frames that should have been tracked. Estimated poses that are
    not finite count as not tracked. Paths shorter than ten `rpe_step` use a tenth of their length.
    """
    estimated = _finite(estimated)
    at_estimate, at_truth = associate(estimated.stamps_ns, truth.stamps_ns, tolerance_s)
    tracked_share = min(1.0, len(estimated) / frame_count) if frame_count > 0 else NAN
    if len(at_estimate) < 3:
        return _without_matches(len(at_estimate), tracked_share)
    matched = _take(estimated, at_estimate)
    matched_truth = _take(truth, at_truth)
    similarity = fit_sim3(matched_truth.positions, matched.positions)
    rigid = fit_sim3(matched_truth.positions, matched.positions, with_scale=False)
    errors = _distances(similarity, matched, matched_truth)
    length = _take(truth, np.arange(at_truth[0], at_truth[-1] + 1)).path_length
    step = min(rpe_step, length / 10.0)
    drift, turn_rad = relative_drift(_mapped(similarity, matched), matched_truth, step)
    return TrajectoryError(
        matched=len(at_estimate),
        tracked_share=tracked_share,
        true_path_length=length,
        ate_sim3=rms(errors),
        ate_se3=rms(_distances(rigid, matched, matched_truth)),
        rpe_per_unit=drift,
        rpe_rad_per_unit=turn_rad,
        rpe_step=step,
        scale_drift=_scale_drift(matched, matched_truth),
        truth_from_estimate=similarity,
        stamps_ns=matched.stamps_ns,
        errors=errors,
    )


def associate(
    stamps_a_ns: Int64[np.ndarray, "a"], stamps_b_ns: Int64[np.ndarray, "b"], tolerance_s: float
) -> tuple[Int64[np.ndarray, "n"], Int64[np.ndarray, "n"]]:
    """Indices of stamps that are each other's nearest and at most `tolerance_s` apart.

    Both lists must be in time order; the answer is too, and uses every stamp at most once.
    """
    if not len(stamps_a_ns) or not len(stamps_b_ns):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    b_of_a = nearest(stamps_b_ns, stamps_a_ns)
    a_of_b = nearest(stamps_a_ns, stamps_b_ns)
    at_a = np.arange(len(stamps_a_ns))
    mutual = a_of_b[b_of_a] == at_a
    near = np.abs(stamps_a_ns - stamps_b_ns[b_of_a]) <= round(tolerance_s * 1e9)
    return at_a[mutual & near], b_of_a[mutual & near]


def relative_drift(
    estimated: StampedPoses, truth: StampedPoses, step: float
) -> tuple[float, float]:
    """RMS drift per unit of true path over pieces of at least `step`: length, and angle [rad].

    Every pose starts a piece that ends at the first pose `step` further along the true path; the
    paths must be matched pose by pose. NaN when the path is shorter than one piece.
    """
    travelled = np.concatenate(
        [[0.0], np.cumsum(np.linalg.norm(np.diff(truth.positions, axis=0), axis=1))]
    )
    ends = np.searchsorted(travelled, travelled + step - 1e-9)
    starts = np.nonzero((ends < len(travelled)) & (ends > np.arange(len(ends))))[0]
    if step <= 0 or not len(starts):
        return NAN, NAN
    shifts, turns_rad = piece_errors(estimated, truth, starts, ends[starts])
    pieces = travelled[ends[starts]] - travelled[starts]
    return rms(shifts / pieces), rms(turns_rad / pieces)


def _scale_drift(estimated: StampedPoses, truth: StampedPoses) -> float:
    third = len(estimated) // 3
    if third < 3:
        return NAN
    first = fit_sim3(truth.positions[:third], estimated.positions[:third]).scale
    last = fit_sim3(truth.positions[-third:], estimated.positions[-third:]).scale
    return first / last - 1.0 if last > 0 else NAN


def _finite(poses: StampedPoses) -> StampedPoses:
    return _take(poses, np.nonzero(np.isfinite(poses.world_from_cam).all(axis=(1, 2)))[0])


def _take(poses: StampedPoses, at: np.ndarray) -> StampedPoses:
    return StampedPoses(poses.stamps_ns[at], poses.world_from_cam[at])


def _mapped(a_from_b: Sim3, poses: StampedPoses) -> StampedPoses:
    mapped = np.array([a_from_b.apply_pose(pose) for pose in poses.world_from_cam])
    return StampedPoses(poses.stamps_ns, mapped.reshape(-1, 4, 4))


def _distances(
    truth_from_estimate: Sim3, estimated: StampedPoses, truth: StampedPoses
) -> np.ndarray:
    offsets = truth_from_estimate.apply(estimated.positions) - truth.positions
    return np.asarray(np.linalg.norm(offsets, axis=1), dtype=np.float64)


def _percent(length: float, whole: float) -> float:
    return 100.0 * length / whole if whole > 0 else NAN


def _without_matches(matched: int, tracked_share: float) -> TrajectoryError:
    return TrajectoryError(
        matched=matched,
        tracked_share=tracked_share,
        true_path_length=NAN,
        ate_sim3=NAN,
        ate_se3=NAN,
        rpe_per_unit=NAN,
        rpe_rad_per_unit=NAN,
        rpe_step=NAN,
        scale_drift=NAN,
        truth_from_estimate=IDENTITY,
        stamps_ns=np.zeros(0, np.int64),
        errors=np.zeros(0, np.float64),
    )
