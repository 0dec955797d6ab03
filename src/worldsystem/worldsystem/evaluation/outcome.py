# SPDX-License-Identifier: Apache-2.0
"""What an evaluation leaves behind: a table, JSON, plots and a cloud in colours of its error."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path

import numpy as np

from worldsystem.charts.figures import (
    error_chart,
    error_path_chart,
    heat_colours,
    heat_scale,
    trajectory_chart,
)
from worldsystem.charts.views import upright_from_world, vertical
from worldsystem.evaluation.compare import Evaluation
from worldsystem.evaluation.protocols import nearest
from worldsystem.evaluation.surface import SurfaceDistance
from worldsystem.measured_json import write_measured
from worldsystem_core.surface import Mesh
from worldsystem_storage.mesh_files import write_ply

JSON_FILE, CLOUD_FILE = "evaluation.json", "error_cloud.ply"
HEAT_THRESHOLDS = 3.0
"""Distance, in F-score thresholds, that has the last colour."""


def rows(evaluation: Evaluation) -> list[tuple[str, float, str]]:
    """Every figure: its name, its value and its unit."""
    path, segments = evaluation.path, evaluation.segments
    table = [
        ("poses matched", float(path.matched), ""),
        ("frames tracked", 100.0 * path.tracked_share, "%"),
        ("true path", path.true_path_length, "u"),
        ("ATE, Sim(3) aligned", path.ate_sim3, "u"),
        ("ATE, Sim(3) aligned", path.ate_sim3_percent, "% of path"),
        ("ATE, SE(3) aligned", path.ate_se3, "u"),
        ("ATE, SE(3) aligned", path.ate_se3_percent, "% of path"),
        ("scale error", evaluation.scale_error_percent, "%"),
        ("scale drift, last third to first", 100.0 * path.scale_drift, "%"),
        ("RPE over 1 s, scale fitted", evaluation.drift_sim3.shift, "u"),
        ("RPE over 1 s, as estimated", evaluation.drift_se3.shift, "u"),
        ("RPE over 1 s, turn", math.degrees(evaluation.drift_sim3.turn_rad), "°"),
        (f"RPE over {path.rpe_step:.3g} u of way", 100.0 * path.rpe_per_unit, "%"),
        ("KITTI drift", segments.shift_percent, "%"),
        ("KITTI turn", math.degrees(segments.turn_rad_per_unit), "°/u"),
    ]
    return table + _surface_rows(evaluation)


def _surface_rows(evaluation: Evaluation) -> list[tuple[str, float, str]]:
    if evaluation.cloud is not None:
        c = evaluation.cloud
        scores = zip(c.thresholds, c.precision, c.recall, c.fscore, strict=True)
        lengths = (c.accuracy_mean, c.accuracy_median, c.completeness_mean, c.completeness_median)
    elif evaluation.surfaces:
        s = evaluation.surfaces[0]
        names = ("threshold", "precision", "recall", "fscore")
        scores = zip(*([getattr(e, n) for e in evaluation.surfaces] for n in names), strict=True)
        lengths = (s.accuracy_mean, s.accuracy_median, s.completeness_mean, s.completeness_median)
    else:
        return []
    labels = ("accuracy, mean", "accuracy, median", "completeness, mean", "completeness, median")
    table = [(label, value, "u") for label, value in zip(labels, lengths, strict=True)]
    table.append(("Chamfer-L1", 0.5 * (lengths[0] + lengths[2]), "u"))
    for threshold, precision, recall, fscore in scores:
        table += [
            (f"precision at {threshold:.3g} u", precision, ""),
            (f"recall at {threshold:.3g} u", recall, ""),
            (f"F-score at {threshold:.3g} u", fscore, ""),
        ]
    return table


def table_text(evaluation: Evaluation) -> str:
    """The figures for a person; `u` is the truth's unit of length, what is not known is a dash."""
    lines = []
    for name, value, unit in rows(evaluation):
        number = "–" if not math.isfinite(value) else f"{value:.4g}"
        lines.append(f"{name:36s} {number:>12s} {unit}")
    return "\n".join(lines)


def write_evaluation(evaluation: Evaluation, folder: Path) -> list[Path]:
    """Write all of it into `folder`, which is made when missing; the files written."""
    folder.mkdir(parents=True, exist_ok=True)
    written = [folder / JSON_FILE]
    write_measured(written[0], _content(evaluation))
    for name, png in _charts(evaluation).items():
        (folder / name).write_bytes(png)
        written.append(folder / name)
    coloured = _error_coloured(evaluation)
    if coloured is not None:
        write_ply(folder / CLOUD_FILE, coloured)
        written.append(folder / CLOUD_FILE)
    return written


def _content(evaluation: Evaluation) -> object:
    path = evaluation.path
    facts = {name: value for name, value in vars(path).items() if isinstance(value, float | int)}
    facts |= {"ate_sim3_percent": path.ate_sim3_percent, "ate_se3_percent": path.ate_se3_percent}
    placement = path.truth_from_estimate
    return {
        "alignment": evaluation.alignment,
        "path": facts,
        "truth_from_estimate": {
            "scale": placement.scale,
            "rotation": placement.rotation.tolist(),
            "translation": placement.translation.tolist(),
        },
        "scale_error_percent": evaluation.scale_error_percent,
        "rpe_1s_sim3": asdict(evaluation.drift_sim3),
        "rpe_1s_se3": asdict(evaluation.drift_se3),
        "kitti": asdict(evaluation.segments),
        "surface": [asdict(surface) for surface in evaluation.surfaces],
        "cloud": asdict(evaluation.cloud) if evaluation.cloud else None,
        "table": [list(row) for row in rows(evaluation)],
    }


def _charts(evaluation: Evaluation) -> dict[str, bytes]:
    path, truth = evaluation.path, evaluation.truth.poses
    if not path.aligned:
        return {}
    up = evaluation.truth.up
    upright = upright_from_world(truth.positions, np.array(up) if up else vertical(truth))
    origin = truth.positions[0]
    estimate = (evaluation.aligned.positions - origin) @ upright.T
    at = np.searchsorted(evaluation.aligned.stamps_ns, path.stamps_ns)
    true_positions = truth.positions[nearest(truth.stamps_ns, path.stamps_ns)]
    # of the path as it is drawn: `path.errors` are those with the scale fitted
    errors = np.linalg.norm(evaluation.aligned.positions[at] - true_positions, axis=1)
    t_s = ((path.stamps_ns - path.stamps_ns[0]) * 1e-9).tolist()
    return {
        "trajectory.png": trajectory_chart(estimate, (truth.positions - origin) @ upright.T, "u"),
        "error_over_time.png": error_chart(t_s, errors, "u"),
        "error_along_path.png": error_path_chart(estimate[at], errors, "u"),
        **_heat_chart(evaluation),
    }


def _heat_chart(evaluation: Evaluation) -> dict[str, bytes]:
    highest = _heat_reach(evaluation)
    return {} if highest is None else {"error_scale.png": heat_scale(highest, "u")}


def _heat_reach(evaluation: Evaluation) -> float | None:
    if evaluation.cloud is not None:
        return HEAT_THRESHOLDS * evaluation.cloud.thresholds[0]
    if evaluation.surfaces:
        return HEAT_THRESHOLDS * evaluation.surfaces[0].threshold
    return None


def _error_coloured(evaluation: Evaluation) -> Mesh | None:
    """The estimated surface, each vertex in the colour of its distance from the truth."""
    highest, mesh, truth = _heat_reach(evaluation), evaluation.mesh, evaluation.truth
    if highest is None or not len(mesh.vertices):
        return None
    if truth.mesh is not None:
        distances = SurfaceDistance(truth.mesh)(mesh.vertices)
    else:
        from scipy.spatial import cKDTree

        distances = cKDTree(truth.seen_points).query(np.nan_to_num(mesh.vertices), workers=2)[0]
    return Mesh(vertices=mesh.vertices, colours=heat_colours(distances, highest), faces=mesh.faces)
