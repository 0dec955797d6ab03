# SPDX-License-Identifier: Apache-2.0
"""Every picture of the report, as PNG bytes by file name; what a run lacks is left out."""

from __future__ import annotations

import cv2
import numpy as np

from worldsystem.charts import figures
from worldsystem.charts.views import (
    View,
    core_of,
    mean_viewing_direction,
    two_views,
    upright_from_world,
    vertical,
)
from worldsystem.evaluation.surface import SurfaceDistance
from worldsystem.report.record import RunRecord
from worldsystem.report.renderer import MeshRenderer, Picture, with_path
from worldsystem.report.run_charts import latency_chart, throughput_chart
from worldsystem.report.summary import RunSummary
from worldsystem_core.geometry.sim3 import Sim3
from worldsystem_core.reconstruction import ScaleState
from worldsystem_core.trajectory import StampedPoses

RENDER_SIZE = (800, 560)
FRAMING_POINTS = 50_000
SURFACE_REACH = 2.2
PATH_REACH = 4.0
ESTIMATED_PATH = (59, 130, 246)
TRUE_PATH = (34, 197, 94)
SIDES = ("a", "b")


def run_pictures(record: RunRecord, summary: RunSummary) -> dict[str, bytes]:
    """Charts and renders of the run, in the truth's frame when there is one."""
    pictures: dict[str, bytes] = {}
    poses = aligned_poses(record.poses, summary.truth_from_world)
    unit = record.length_unit
    if len(poses):
        pictures["trajectory.png"] = _trajectory(record, poses, unit)
    if summary.trajectory is not None and summary.trajectory.aligned:
        error = summary.trajectory
        t_s = (error.stamps_ns - error.stamps_ns[0]) * 1e-9
        pictures["trajectory_error.png"] = figures.error_chart(t_s.tolist(), error.errors, unit)
    pictures |= _renders(record, summary, poses, unit)
    if any(sum(counts) for counts in record.latency_counts.values()):
        pictures["latency.png"] = latency_chart(dict(record.latency_counts))
    if len(record.samples) >= 2:
        pictures["throughput.png"] = throughput_chart(record.samples)
    return pictures


def aligned_poses(poses: StampedPoses, a_from_b: Sim3) -> StampedPoses:
    """The poses that are finite, in frame a."""
    finite = np.isfinite(poses.world_from_cam).all(axis=(1, 2))
    mapped = [a_from_b.apply_pose(pose) for pose in poses.world_from_cam[finite]]
    return StampedPoses(poses.stamps_ns[finite], np.array(mapped).reshape(-1, 4, 4))


def up_of(record: RunRecord, poses: StampedPoses) -> np.ndarray:
    """The vertical: known from the truth or from a metric map, else as the cameras were held."""
    if record.truth is not None and record.truth.up is not None:
        return np.array(record.truth.up)
    if record.truth is None and record.scale is ScaleState.METRIC:
        return np.array([0.0, 0.0, 1.0])
    return vertical(poses)


def _trajectory(record: RunRecord, poses: StampedPoses, unit: str) -> bytes:
    truth = None if record.truth is None else record.truth.poses.positions
    reference = poses.positions if truth is None or not len(truth) else truth
    upright = upright_from_world(reference, up_of(record, poses))
    origin = reference[0]
    turned_truth = None if truth is None else (truth - origin) @ upright.T
    return figures.trajectory_chart((poses.positions - origin) @ upright.T, turned_truth, unit)


def _renders(
    record: RunRecord, summary: RunSummary, poses: StampedPoses, unit: str
) -> dict[str, bytes]:
    framed = _framing_points(record, summary, poses)
    if not len(framed):
        return {}
    reference = poses if record.truth is None else record.truth.poses
    looking = mean_viewing_direction(reference)
    pair = two_views(framed, up_of(record, poses), looking, *RENDER_SIZE)
    views = dict(zip(SIDES, pair, strict=True))
    pictures: dict[str, bytes] = {}
    truth = record.truth
    if len(summary.mesh.faces):
        renderer = MeshRenderer(summary.mesh, poses)
        pictures |= _both_sides("mesh", renderer, views, poses.positions, ESTIMATED_PATH)
        if summary.surface is not None and truth is not None and truth.mesh is not None:
            highest = 2.0 * summary.surface.threshold
            distances = SurfaceDistance(truth.mesh)(summary.mesh.vertices)
            colours = figures.heat_colours(distances, highest)
            for side, view in views.items():
                pictures[f"accuracy_{side}.png"] = _png(renderer.render(view, colours))
            pictures["accuracy_scale.png"] = figures.heat_scale(highest, unit)
    if truth is not None and truth.mesh is not None:
        renderer = MeshRenderer(truth.mesh, truth.poses)
        pictures |= _both_sides("truth", renderer, views, truth.poses.positions, TRUE_PATH)
    return pictures


def _both_sides(
    name: str,
    renderer: MeshRenderer,
    views: dict[str, View],
    positions: np.ndarray,
    colour: tuple[int, int, int],
) -> dict[str, bytes]:
    return {
        f"{name}_{side}.png": _png(with_path(renderer.render(view), view, positions, colour))
        for side, view in views.items()
    }


def _framing_points(record: RunRecord, summary: RunSummary, poses: StampedPoses) -> np.ndarray:
    """What the pictures should show: the seen scene when known, else the mesh; and the path."""
    surface, path = summary.mesh.vertices, poses.positions
    if record.truth is not None:
        path = record.truth.poses.positions
        if record.truth.seen_points is not None:
            surface = record.truth.seen_points
    surface = surface[np.isfinite(surface).all(axis=1)]
    step = max(1, len(surface) // FRAMING_POINTS)
    core = core_of(surface[::step].astype(np.float64), SURFACE_REACH)
    return np.concatenate([core, core_of(path, PATH_REACH)])


def _png(picture: Picture) -> bytes:
    bgra = cv2.cvtColor(picture.rgba, cv2.COLOR_RGBA2BGRA)
    return bytes(cv2.imencode(".png", bgra)[1])
