# SPDX-License-Identifier: Apache-2.0
"""What a finished run leaves in its folder: trajectory, meshes and the report."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from worldsystem.evaluation.datasets import truth_at
from worldsystem.evaluation.truth import GroundTruth
from worldsystem.report.page import write_report
from worldsystem.report.record import RunRecord
from worldsystem_core.errors import WorldSystemError
from worldsystem_core.surface import Mesh
from worldsystem_core.trajectory import write_tum
from worldsystem_storage.errors import StorageError
from worldsystem_storage.mesh_files import write_glb, write_ply

log = logging.getLogger(__name__)


def write_outputs(run: RunRecord, *, report: bool = True) -> None:
    """Write `trajectory.tum`, `mesh.ply`, `mesh.glb` and `report.html` to the run's folder.

    A path or a mesh that cannot be written, as on a full disk, costs itself alone: the report says
    so, and then its error is raised.
    """
    run.folder.mkdir(parents=True, exist_ok=True)
    failures: list[WorldSystemError] = []
    try:
        write_tum(run.folder / "trajectory.tum", run.poses)
    except OSError as error:
        failures.append(StorageError(f"trajectory.tum cannot be written: {error}"))
    writers: dict[str, Callable[[Path, Mesh], None]] = {
        "mesh.ply": write_ply,
        "mesh.glb": partial(write_glb, scale=run.scale),
    }
    for name, write in writers.items():
        try:
            if len(run.mesh.faces):
                write(run.folder / name, run.mesh)
            else:  # what an earlier run left in this folder is not of this one
                (run.folder / name).unlink(missing_ok=True)
        except StorageError as error:
            failures.append(error)
        except OSError as error:
            failures.append(StorageError(f"{name} of before cannot be removed: {error}"))
    if report:
        notes = (*run.notes, *(f"{error}." for error in failures))
        write_report(replace(run, notes=notes), run.folder)
    if failures:
        raise failures[0]


def read_truth(place: str) -> tuple[GroundTruth | None, str]:
    """Ground truth from any place that `worldsystem eval` knows; None when there is none.

    With it a sentence for the report: why what was named cannot be read, or nothing.
    """
    if not place:
        return None, ""
    try:
        return truth_at(Path(place)), ""
    except (OSError, ValueError, KeyError, WorldSystemError) as error:
        log.warning("no ground truth from %s: %s", place, error)
        return None, f"The ground truth that was named cannot be read: {error}."
