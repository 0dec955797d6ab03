# SPDX-License-Identifier: Apache-2.0
"""The verdict on a run: figures against targets, and notes in plain language."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from worldsystem.evaluation.surface import SurfaceError, evaluate_surface, transformed
from worldsystem.evaluation.trajectory import (
    IDENTITY,
    TrajectoryError,
    evaluate_trajectory,
)
from worldsystem.measured_json import write_measured
from worldsystem.report.record import GLASS_TO_MAP, RunRecord
from worldsystem_core.geometry.sim3 import Sim3
from worldsystem_core.latency import percentile_s
from worldsystem_core.reconstruction import ScaleState
from worldsystem_core.surface import Mesh

NAN = float("nan")


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One figure beside its target; NaN = could not be measured."""

    id: str
    label: str
    value: float
    unit: str
    target: float
    higher_is_better: bool
    digits: int = 0

    @property
    def state(self) -> str:
        """`good`, `bad`, or `unknown`."""
        if math.isnan(self.value):
            return "unknown"
        reached = self.value >= self.target if self.higher_is_better else self.value <= self.target
        return "good" if reached else "bad"

    @property
    def text(self) -> str:
        """The value for a person."""
        return "not known" if math.isnan(self.value) else f"{self.value:,.{self.digits}f}"


@dataclass(frozen=True, kw_only=True, eq=False)
class RunSummary:
    """What was found out about a run; `mesh` is in the truth frame when there is one."""

    trajectory: TrajectoryError | None
    surface: SurfaceError | None
    truth_from_world: Sim3
    mesh: Mesh
    verdicts: tuple[Verdict, ...]
    notes: tuple[str, ...]


def summarise(record: RunRecord) -> RunSummary:
    """Judge a run; without ground truth the path and the surface stay unjudged."""
    trajectory = surface = None
    truth_from_world = IDENTITY
    mesh = record.mesh
    if record.truth is not None:
        trajectory = evaluate_trajectory(record.poses, record.truth.poses, record.frame_count)
        trajectory = replace(trajectory, tracked_share=_tracked_share(record))
        truth_from_world = trajectory.truth_from_estimate
        mesh = transformed(record.mesh, truth_from_world)
        surface = _surface_error(record, mesh, trajectory)
    return RunSummary(
        trajectory=trajectory,
        surface=surface,
        truth_from_world=truth_from_world,
        mesh=mesh,
        verdicts=_verdicts(record, trajectory, surface),
        notes=_notes(record, trajectory, surface),
    )


def _surface_error(
    record: RunRecord, mesh: Mesh, trajectory: TrajectoryError
) -> SurfaceError | None:
    truth = record.truth
    if truth is None or truth.mesh is None or truth.seen_points is None:
        return None
    threshold = record.fscore_threshold_percent / 100.0 * truth.scene_diameter
    if not threshold > 0:
        return None
    placed = mesh if trajectory.aligned else Mesh.empty()
    return evaluate_surface(placed, truth.mesh, truth.seen_points, threshold)


def _verdicts(
    record: RunRecord, trajectory: TrajectoryError | None, surface: SurfaceError | None
) -> tuple[Verdict, ...]:
    targets = record.targets
    unexplained = record.unexplained_frames
    ate_percent = trajectory.ate_sim3_percent if trajectory else NAN
    p95_s = percentile_s(record.latency_counts.get(GLASS_TO_MAP, []), 95.0)
    rows = (
        ("ate_percent", "path error", ate_percent, "% of path", False, 2),
        ("mesh_fscore", "mesh F-score", surface.fscore if surface else NAN, "", True, 2),
        ("fps", "speed", record.fps, "frames/s", True, 1),
        ("glass_to_map_p95_ms", "glass to map, p95", 1e3 * p95_s, "ms", False, 0),
        ("tracked_percent", "tracked", 100.0 * _tracked_share(record), "%", True, 1),
        (
            "unexplained_frames",
            "unexplained frames",
            NAN if unexplained is None else float(unexplained),
            "",
            False,
            0,
        ),
    )
    return tuple(
        Verdict(
            id=f"demo.{name}",
            label=label,
            value=value,
            unit=unit,
            target=getattr(targets, name),
            higher_is_better=higher,
            digits=digits,
        )
        for name, label, value, unit, higher, digits in rows
    )


def _tracked_share(record: RunRecord) -> float:
    tracked = record.tracked
    if tracked is None:
        tracked = int(np.isfinite(record.poses.world_from_cam).all(axis=(1, 2)).sum())
    return min(1.0, tracked / record.frame_count) if record.frame_count else NAN


def _notes(
    record: RunRecord, trajectory: TrajectoryError | None, surface: SurfaceError | None
) -> tuple[str, ...]:
    notes = list(record.notes)
    if record.scale is ScaleState.SCENE:
        notes.append(
            "The scale is unknown: one unit of length in this map is not one metre. "
            "A metric source (GPS, a phone's odometry, a printed marker) would fix it."
        )
    if record.truth is None:
        notes.append("Without ground truth the path and the mesh are not judged.")
    if trajectory is not None:
        notes += _trajectory_notes(trajectory)
    if surface is not None:
        notes.append(
            f"The mesh was placed by the path's alignment alone, not fitted to the true surface. "
            f"F-score: surface closer than {surface.threshold:.3g} {record.length_unit} "
            f"({record.fscore_threshold_percent:g} % of the scene's diameter) is right; "
            f"precision {surface.precision:.2f}, recall {surface.recall:.2f}."
        )
    if not len(record.mesh.faces):
        notes.append("No surface was reconstructed.")
    notes += _ledger_notes(record)
    return tuple(notes)


def _trajectory_notes(trajectory: TrajectoryError) -> list[str]:
    if not trajectory.aligned:
        return [
            f"Only {trajectory.matched} poses match the ground truth in time; three are needed."
        ]
    notes = [
        "The path and mesh are shown after the similarity (shift, turn, scale) that fits the "
        "estimated path best to the true one."
    ]
    if abs(trajectory.scale_drift) > 0.02:
        change = "longer" if trajectory.scale_drift > 0 else "shorter"
        notes.append(
            f"Scale drifts: lengths in the last third of the path come out "
            f"{100 * abs(trajectory.scale_drift):.1f} % {change} than in the first third."
        )
    return notes


def _ledger_notes(record: RunRecord) -> list[str]:
    notes = []
    if record.ledgers and record.frames_sent is None:
        notes.append("The sender kept no count, so frames lost before the first stage do not show.")
    for ledger in record.ledgers:
        missing = record.missing_at(ledger)
        if missing:
            fate = "never arrived at" if missing > 0 else "more than expected came to"
            notes.append(f"{abs(missing)} frames {fate} stage '{ledger.stage}'.")
        if ledger.in_flight > 0:
            notes.append(
                f"{ledger.in_flight} frames were still in stage '{ledger.stage}' at the end."
            )
    notes += [
        f"The account of stage '{stage}' is at fault with {count} frames: taken or settled twice, "
        "or settled without having been taken."
        for stage, count in record.violations.items()
    ]
    return notes


def write_summary(record: RunRecord, summary: RunSummary, path: Path) -> None:
    """Write the figures as JSON; what could not be measured is null."""
    content = {
        "source": record.source,
        "backend": record.backend,
        "started_ns": record.started_ns,
        "duration_s": record.duration_s,
        "commit": record.commit,
        "scale": record.scale.name.lower(),
        "results": [
            {
                "id": verdict.id,
                "value": verdict.value,
                "unit": verdict.unit,
                "target": verdict.target,
                "state": verdict.state,
            }
            for verdict in summary.verdicts
        ],
        "trajectory": _trajectory_facts(summary.trajectory),
        "surface": asdict(summary.surface) if summary.surface else None,
        "keyframes": record.keyframe_count,
        "triangles": len(record.mesh.faces),
        "ledger": [{**asdict(state), "in_flight": state.in_flight} for state in record.ledgers],
        "notes": list(summary.notes),
    }
    write_measured(path, content)


def _trajectory_facts(error: TrajectoryError | None) -> dict[str, float] | None:
    if error is None:
        return None
    names = (
        *("matched", "tracked_share", "true_path_length", "ate_sim3", "ate_se3"),
        *("ate_sim3_percent", "ate_se3_percent", "rpe_per_unit", "rpe_rad_per_unit"),
        *("rpe_step", "scale_drift"),
    )
    facts = {name: float(getattr(error, name)) for name in names}
    return {**facts, "scale": error.truth_from_estimate.scale}
