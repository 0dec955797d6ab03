# SPDX-License-Identifier: Apache-2.0
"""The evaluation evaluated: made-up paths and surfaces whose errors are known in closed form.

`worldsystem eval` runs it before it judges anything, and reports nothing when it fails.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from worldsystem.evaluation.cloud import evaluate_cloud
from worldsystem.evaluation.compare import evaluate
from worldsystem.evaluation.protocols import drift_over_lengths
from worldsystem.evaluation.truth import GroundTruth
from worldsystem_core.geometry.sim3 import Sim3
from worldsystem_core.surface import Mesh
from worldsystem_core.trajectory import StampedPoses

FRAME_NS = 100_000_000
POSES = 240
NOISE = 0.05
DRIFT = 0.02


@dataclass(frozen=True)
class Check:
    """One figure beside what it must be, and how far off it may be."""

    name: str
    value: float
    wanted: float
    tolerance: float

    @property
    def passed(self) -> bool:
        return abs(self.value - self.wanted) <= self.tolerance


def self_check() -> tuple[Check, ...]:
    """Every known answer; takes a tenth of a second."""
    return (*_path_checks(), *_drift_checks(), *_cloud_checks())


def _path_checks() -> list[Check]:
    truth = _loop()
    spread = truth.positions - truth.positions.mean(axis=0)
    radius = float(np.sqrt((spread**2).sum(axis=1).mean()))
    turned = _moved(truth, Sim3(0.4, _turn(1.1), np.array([3.0, -2.0, 8.0])))
    similar, half = _judged(turned, truth), _judged(_moved(truth, _scaled(0.5)), truth)
    noisy = truth.world_from_cam.copy()
    noisy[:, :3, 3] += np.random.default_rng(1).normal(0.0, NOISE, (POSES, 3))
    shaken = _judged(StampedPoses(truth.stamps_ns, noisy), truth)
    return [
        Check("ATE (Sim3) of a moved, turned and scaled path", similar.path.ate_sim3, 0.0, 1e-9),
        Check("scale error of that path [%]", similar.scale_error_percent, 60.0, 1e-6),
        Check("ATE (SE3) of a path of half size", half.path.ate_se3, 0.5 * radius, 1e-9),
        Check("ATE (Sim3) of a path of half size", half.path.ate_sim3, 0.0, 1e-9),
        Check("ATE of independent noise", shaken.path.ate_sim3, NOISE * 3**0.5, 0.1 * NOISE),
        Check("share of frames tracked", _judged(_first_half(truth), truth).path.tracked_share,
              0.5, 1e-9),
    ]  # fmt: skip


def _drift_checks() -> list[Check]:
    """A straight flight of 1 unit/s that comes out 2 % too long."""
    truth = np.tile(np.eye(4), (POSES, 1, 1))
    truth[:, 0, 3] = 0.1 * np.arange(POSES)
    long = truth.copy()
    long[:, 0, 3] *= 1.0 + DRIFT
    stamps = np.arange(POSES, dtype=np.int64) * FRAME_NS
    estimated, straight = StampedPoses(stamps, long), StampedPoses(stamps, truth)
    judged = evaluate(estimated, Mesh.empty(), GroundTruth(poses=straight))
    segments = drift_over_lengths(estimated, straight, (10.0, 20.0))
    return [
        Check("TUM drift in one second, scale as estimated", judged.drift_se3.shift, DRIFT, 1e-9),
        Check("TUM drift in one second, scale fitted", judged.drift_sim3.shift, 0.0, 1e-9),
        Check("KITTI drift [%]", segments.shift_percent, 100.0 * DRIFT, 0.01),
        Check("scale error [%]", judged.scale_error_percent, 100.0 * DRIFT, 1e-6),
    ]


def _cloud_checks() -> list[Check]:
    """A grid of points lifted by a known height, and one of which half is missing."""
    across = np.arange(60) * 0.02
    plane = np.stack(np.meshgrid(across, across), -1).reshape(-1, 2)
    truth = np.column_stack([plane, np.zeros(len(plane))])
    lifted = truth + np.array([0.0, 0.0, 0.005])
    half = truth[plane[:, 0] < 0.59]
    up, missing = (
        evaluate_cloud(lifted, truth, (0.004, 0.006)),
        evaluate_cloud(half, truth, (0.01,)),
    )
    return [
        Check("accuracy of a lifted plane", up.accuracy_mean, 0.005, 1e-6),
        Check("Chamfer-L1 of a lifted plane", up.chamfer_l1, 0.005, 1e-6),
        Check("F-score below the height", up.fscore[0], 0.0, 0.0),
        Check("F-score above the height", up.fscore[1], 1.0, 0.0),
        Check("precision of half a plane", missing.precision[0], 1.0, 0.0),
        Check("recall of half a plane", missing.recall[0], 0.5, 1e-9),
        Check("F-score of half a plane", missing.fscore[0], 2.0 / 3.0, 1e-9),
    ]


def _loop() -> StampedPoses:
    angle = np.linspace(0.0, 2.0 * np.pi, POSES)
    poses = np.tile(np.eye(4), (POSES, 1, 1))
    poses[:, :3, 3] = np.stack([5 * np.cos(angle), 3 * np.sin(angle), np.sin(2 * angle)], axis=1)
    poses[:, :3, :3] = [_turn(a) for a in angle]
    return StampedPoses(np.arange(POSES, dtype=np.int64) * FRAME_NS, poses)


def _judged(estimated: StampedPoses, truth: StampedPoses):  # type: ignore[no-untyped-def]
    return evaluate(estimated, Mesh.empty(), GroundTruth(poses=truth))


def _moved(poses: StampedPoses, similarity: Sim3) -> StampedPoses:
    moved = np.array([similarity.apply_pose(pose) for pose in poses.world_from_cam])
    return StampedPoses(poses.stamps_ns, moved)


def _first_half(poses: StampedPoses) -> StampedPoses:
    return StampedPoses(poses.stamps_ns[: POSES // 2], poses.world_from_cam[: POSES // 2])


def _scaled(scale: float) -> Sim3:
    return Sim3(scale, np.eye(3), np.zeros(3))


def _turn(angle_rad: float) -> np.ndarray:
    c, s = np.cos(angle_rad), np.sin(angle_rad)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
