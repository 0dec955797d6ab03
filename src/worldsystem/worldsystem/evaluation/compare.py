# SPDX-License-Identifier: Apache-2.0
"""An estimate against the truth: path by every protocol, surface where both have one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from worldsystem.evaluation.alignment import check_alignment
from worldsystem.evaluation.cloud import CloudError, evaluate_cloud
from worldsystem.evaluation.protocols import (
    RelativeError,
    SegmentError,
    drift_over_lengths,
    drift_over_time,
)
from worldsystem.evaluation.surface import (
    SurfaceError,
    area_samples,
    evaluate_surface,
    transformed,
)
from worldsystem.evaluation.trajectory import TrajectoryError, associate, evaluate_trajectory
from worldsystem.evaluation.truth import GroundTruth
from worldsystem_core.geometry.sim3 import Sim3, fit_sim3
from worldsystem_core.surface import Mesh
from worldsystem_core.trajectory import StampedPoses

SURFACE_SAMPLES = 200_000
TOLERANCE_S = 0.02
DRIFT_S = 1.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """All that was found out; lengths in truth units.

    `scale_error_percent` is how far the estimate's unit is from the truth's (0 for a metric map;
    it means nothing for one camera without a metric source). `drift_*` are the TUM protocol's
    over one second, with the scale fitted (Sim3) and as estimated (SE3); `segments` the KITTI
    protocol's, scale fitted. `aligned` and `mesh` are placed by `alignment`.
    """

    alignment: str
    path: TrajectoryError
    scale_error_percent: float
    drift_sim3: RelativeError
    drift_se3: RelativeError
    segments: SegmentError
    surfaces: tuple[SurfaceError, ...]
    cloud: CloudError | None
    aligned: StampedPoses
    truth: GroundTruth
    mesh: Mesh


def evaluate(
    poses: StampedPoses,
    mesh: Mesh,
    truth: GroundTruth,
    *,
    thresholds: tuple[float, ...] = (),
    alignment: str = "sim3",
    frame_count: int = 0,
) -> Evaluation:
    """Judge `poses` and `mesh` (of one frame, empty where there is none) against `truth`.

    The surface is placed by the path's alignment. `thresholds` [truth units] are those of the
    F-score; without any, 1 % of the scene's diameter. `frame_count` is how many frames should have
    been tracked (0: as many as the truth has pictures, else poses). Raises `ConfigError` for an
    `alignment` that is none of `ALIGNMENTS`.
    """
    check_alignment(alignment)
    count = frame_count or truth.frame_count or len(truth.poses)
    path = evaluate_trajectory(poses, truth.poses, count, tolerance_s=TOLERANCE_S)
    at, at_truth = associate(poses.stamps_ns, truth.poses.stamps_ns, TOLERANCE_S)
    matched, matched_truth = _taken(poses, at), _taken(truth.poses, at_truth)
    placement = path.truth_from_estimate
    if path.aligned and alignment == "se3":
        placement = fit_sim3(matched_truth.positions, matched.positions, with_scale=False)
    placed = transformed(mesh, placement) if len(mesh.vertices) else mesh
    surfaces, cloud = _surface(placed, truth, thresholds) if path.aligned else ((), None)
    scaled = _scaled(matched, path.truth_from_estimate.scale)
    return Evaluation(
        alignment=alignment,
        path=path,
        scale_error_percent=_scale_error_percent(path),
        drift_sim3=drift_over_time(scaled, matched_truth, DRIFT_S),
        drift_se3=drift_over_time(matched, matched_truth, DRIFT_S),
        segments=drift_over_lengths(scaled, matched_truth),
        surfaces=surfaces,
        cloud=cloud,
        aligned=_mapped(poses, placement),
        truth=truth,
        mesh=placed,
    )


def _surface(
    mesh: Mesh, truth: GroundTruth, thresholds: tuple[float, ...]
) -> tuple[tuple[SurfaceError, ...], CloudError | None]:
    """Point-to-triangle errors where the truth is a mesh, else those of clouds."""
    if not len(mesh.vertices) or truth.seen_points is None:
        return (), None
    chosen = thresholds or (0.01 * truth.scene_diameter,)
    if truth.mesh is not None and len(mesh.faces):
        judged = [
            evaluate_surface(mesh, truth.mesh, truth.seen_points, threshold) for threshold in chosen
        ]
        return tuple(judged), None
    points = area_samples(mesh, SURFACE_SAMPLES) if len(mesh.faces) else mesh.vertices
    true_points = truth.seen_points
    if truth.mesh is not None:
        true_points = area_samples(truth.mesh, SURFACE_SAMPLES)
    return (), evaluate_cloud(points, true_points, chosen)


def _scale_error_percent(path: TrajectoryError) -> float:
    scale = path.truth_from_estimate.scale
    if not path.aligned or scale <= 0:  # a camera that truly stood still has no size
        return float("nan")
    return 100.0 * abs(1.0 / scale - 1.0)


def _taken(poses: StampedPoses, at: np.ndarray) -> StampedPoses:
    return StampedPoses(poses.stamps_ns[at], poses.world_from_cam[at])


def _scaled(poses: StampedPoses, scale: float) -> StampedPoses:
    scaled = poses.world_from_cam.copy()
    scaled[:, :3, 3] *= scale
    return StampedPoses(poses.stamps_ns, scaled)


def _mapped(poses: StampedPoses, a_from_b: Sim3) -> StampedPoses:
    mapped = [a_from_b.apply_pose(pose) for pose in poses.world_from_cam]
    return StampedPoses(poses.stamps_ns, np.array(mapped, np.float64).reshape(-1, 4, 4))
