# SPDX-License-Identifier: Apache-2.0
"""A loop closure over a flight: what is left, how fast it goes, what live updates notice."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np
from mesh_scores import gaps_between, rms_of_most

from worldsystem_core.geometry.se3 import pose_from
from worldsystem_core.reconstruction import Keyframe
from worldsystem_mesh.config import MeshConfig
from worldsystem_mesh.mesher import Mesher

DRIFT_M = 0.25
TURN_RAD = 0.03
OFF_VOXELS = 0.1


@dataclass(frozen=True)
class RefusionResult:
    """`residual_voxels` is the RMS between the corrected and a fresh surface without the farthest
    thousandth, `off_percent` of all points lie more than `OFF_VOXELS` apart; ratios compare live
    updates with those of the same keyframes where nothing is moved."""

    residual_voxels: float
    off_percent: float
    keyframes_per_s: float
    moved: int
    latency_ratio: float
    longest_ratio: float


def drifted(keyframe: Keyframe, at: float) -> Keyframe:
    """The keyframe as odometry would have had it after a share `at` of the flight."""
    angle = TURN_RAD * at
    turn = np.array(
        [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1.0]]
    )
    wrong = pose_from(turn, DRIFT_M * at * np.array([1.0, 0.5, 0.2])) @ keyframe.world_from_cam
    return replace(keyframe, world_from_cam=wrong)


def close_a_loop(keyframes: list[Keyframe], config: MeshConfig) -> RefusionResult:
    """Fuse with drift, correct all but the last tenth, which comes live while the work goes on."""
    corrected, fresh = Mesher(config), Mesher(config)
    live = len(keyframes) // 10
    before, after = keyframes[:-live], keyframes[-live:]
    for i, keyframe in enumerate(before):
        _update_s(corrected, drifted(keyframe, i / len(before)))
        _update_s(fresh, keyframe)
    poses = {k.id: k.world_from_cam for k in before}
    moved = len(corrected.move(poses).applied)
    ratios = []
    for keyframe in after:
        usual_s = _update_s(fresh, keyframe)
        if not corrected.is_settled:
            ratios.append(_update_s(corrected, keyframe) / usual_s)
        else:
            _update_s(corrected, keyframe)
    fresh.settle(0)
    corrected.settle(0)
    gaps = gaps_between(corrected.mesh(), fresh.mesh()) / corrected.stats()["voxel"]
    speed = _speed(corrected, before)
    corrected.close()
    fresh.close()
    return RefusionResult(
        residual_voxels=rms_of_most(gaps),
        off_percent=100.0 * float(np.mean(gaps > OFF_VOXELS)),
        keyframes_per_s=speed,
        moved=moved,
        latency_ratio=float(np.median(ratios)),
        longest_ratio=max(ratios),
    )


def _update_s(mesher: Mesher, keyframe: Keyframe) -> float:
    start = time.perf_counter()
    mesher.integrate(keyframe)
    mesher.extract(0)
    return time.perf_counter() - start


def _speed(mesher: Mesher, keyframes: list[Keyframe]) -> float:
    """Keyframes per second when all move again and nothing else is done."""
    poses = {k.id: drifted(k, 0.3).world_from_cam for k in keyframes}
    start = time.perf_counter()
    moved = len(mesher.move(poses).applied)
    mesher._fusion.finish()  # without the extraction
    return moved / (time.perf_counter() - start)
