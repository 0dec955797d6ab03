# SPDX-License-Identifier: Apache-2.0
"""Relative errors of a path by the protocols under which others publish theirs.

TUM: drift over a fixed time (Sturm et al., IROS 2012). KITTI: mean drift over pieces of fixed
lengths of the true path (Geiger et al., CVPR 2012). Both paths are matched pose by pose.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from worldsystem_core.trajectory import StampedPoses

KITTI_LENGTHS = (100.0, 200.0, 300.0, 400.0, 500.0, 600.0, 700.0, 800.0)
KITTI_EVERY = 10
NAN = float("nan")


@dataclass(frozen=True)
class RelativeError:
    """Root mean square drift over pieces of one duration; NaN without any piece.

    `shift` has the truth's unit; `turn_rad` is NaN when the truth has no rotations.
    """

    duration_s: float
    pieces: int
    shift: float
    turn_rad: float


@dataclass(frozen=True)
class SegmentError:
    """Mean drift over pieces of fixed lengths, per unit of way; NaN when the path is too short."""

    pieces: int
    shift_percent: float
    turn_rad_per_unit: float


def drift_over_time(
    estimated: StampedPoses, truth: StampedPoses, duration_s: float
) -> RelativeError:
    """The TUM relative pose error: every pose starts a piece that ends `duration_s` later.

    A piece ends at the pose nearest to that time, within half the usual time between poses.
    """
    if len(truth) < 2:
        return RelativeError(duration_s, 0, NAN, NAN)
    wanted_ns = truth.stamps_ns + round(duration_s * 1e9)
    ends = nearest(truth.stamps_ns, wanted_ns)
    reach_ns = 0.51 * float(np.median(np.diff(truth.stamps_ns)))
    near = np.abs(truth.stamps_ns[ends] - wanted_ns) <= reach_ns
    starts = np.flatnonzero(near & (ends > np.arange(len(ends))))
    if not len(starts):
        return RelativeError(duration_s, 0, NAN, NAN)
    shifts, turns = piece_errors(estimated, truth, starts, ends[starts])
    return RelativeError(duration_s, len(starts), rms(shifts), rms(turns))


def drift_over_lengths(
    estimated: StampedPoses,
    truth: StampedPoses,
    lengths: tuple[float, ...] = KITTI_LENGTHS,
) -> SegmentError:
    """The KITTI odometry error: every tenth pose starts a piece of each of the `lengths`."""
    way = _way(truth)
    shifts, turns = [], []
    starts = np.arange(0, len(truth), KITTI_EVERY)
    for length in lengths:
        ends = np.searchsorted(way, way[starts] + length)
        held = ends < len(truth)
        if not held.any():
            continue
        shift, turn = piece_errors(estimated, truth, starts[held], ends[held])
        shifts.append(shift / length)
        turns.append(turn / length)
    if not shifts:
        return SegmentError(0, NAN, NAN)
    all_shifts, all_turns = np.concatenate(shifts), np.concatenate(turns)
    return SegmentError(len(all_shifts), 100.0 * float(all_shifts.mean()), float(all_turns.mean()))


def piece_errors(
    estimated: StampedPoses,
    truth: StampedPoses,
    starts: Int64[np.ndarray, "n"],
    ends: Int64[np.ndarray, "n"],
) -> tuple[Float64[np.ndarray, "n"], Float64[np.ndarray, "n"]]:
    """Shift [truth units] and turn [rad] by which each piece of the path is wrong."""
    true_move = _moves(truth.world_from_cam, starts, ends)
    moved = _moves(estimated.world_from_cam, starts, ends)
    R, t = true_move[:, :3, :3], true_move[:, :3, 3]
    shift = np.linalg.norm(moved[:, :3, 3] - t, axis=1)
    between = np.einsum("nji,njk->nik", R, moved[:, :3, :3])
    # The chord keeps its digits where the cosine of a small angle has lost them.
    chord = np.linalg.norm(between - np.eye(3), axis=(1, 2)) / (2.0 * np.sqrt(2.0))
    return shift, 2.0 * np.arcsin(np.minimum(chord, 1.0))


def nearest(
    sorted_ns: Int64[np.ndarray, "a"], wanted_ns: Int64[np.ndarray, "b"]
) -> Int64[np.ndarray, "b"]:
    """Which of the stamps, at least one and in order, is nearest to each wanted one."""
    right = np.clip(np.searchsorted(sorted_ns, wanted_ns), 0, len(sorted_ns) - 1)
    left = np.maximum(right - 1, 0)
    nearer_left = np.abs(sorted_ns[left] - wanted_ns) <= np.abs(sorted_ns[right] - wanted_ns)
    return np.where(nearer_left, left, right)


def rms(values: Float64[np.ndarray, "n"]) -> float:
    """The root of the mean square."""
    return float(np.sqrt(np.mean(values**2)))


def _moves(world_from_cam: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    R, t = world_from_cam[starts, :3, :3], world_from_cam[starts, :3, 3]
    out: np.ndarray = world_from_cam[ends].copy()
    out[:, :3, 3] = np.einsum("nji,nj->ni", R, out[:, :3, 3] - t)
    out[:, :3, :3] = np.einsum("nji,njk->nik", R, out[:, :3, :3])
    return out


def _way(poses: StampedPoses) -> Float64[np.ndarray, "n"]:
    steps = np.linalg.norm(np.diff(poses.positions, axis=0), axis=1)
    return np.concatenate([[0.0], np.cumsum(steps)])
