# SPDX-License-Identifier: Apache-2.0
"""What a finished run leaves in its folder: trajectory, meshes and the report."""

from __future__ import annotations

import logging
from pathlib import Path

from worldsystem.evaluation.truth import GroundTruth
from worldsystem.evaluation.truth_files import from_simulator, load_truth_trajectory
from worldsystem.report.page import write_report
from worldsystem.report.record import RunRecord
from worldsystem_core.errors import WorldSystemError
from worldsystem_core.trajectory import write_tum
from worldsystem_storage.mesh_files import write_glb, write_ply

log = logging.getLogger(__name__)

SCENE_FILE = "scene.json"


def write_outputs(run: RunRecord, *, report: bool = True) -> None:
    """Write `trajectory.tum`, `mesh.ply`, `mesh.glb` and `report.html` to the run's folder."""
    run.folder.mkdir(parents=True, exist_ok=True)
    write_tum(run.folder / "trajectory.tum", run.poses)
    if len(run.mesh.faces):
        write_ply(run.folder / "mesh.ply", run.mesh)
        write_glb(run.folder / "mesh.glb", run.mesh)
    if report:
        write_report(run, run.folder)


def read_truth(place: str) -> GroundTruth | None:
    """Ground truth from a simulator's folder or a trajectory file; None when there is none."""
    if not place:
        return None
    path = Path(place)
    try:
        if path.is_dir() and (path / SCENE_FILE).is_file():
            return from_simulator(path)
        return GroundTruth(poses=load_truth_trajectory(path))
    except (OSError, ValueError, KeyError, WorldSystemError) as error:
        log.warning("no ground truth from %s: %s", path, error)
        return None
