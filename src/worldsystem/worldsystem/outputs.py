# SPDX-License-Identifier: Apache-2.0
"""What a finished run leaves in its folder: trajectory, meshes and the report."""

from __future__ import annotations

import logging
import subprocess
from importlib import metadata
from pathlib import Path

import numpy as np
import trimesh

from worldsystem.evaluation.truth import GroundTruth
from worldsystem.evaluation.truth_files import from_simulator, load_truth_trajectory
from worldsystem.report.page import write_report
from worldsystem.report.record import RunRecord
from worldsystem_core.errors import WorldSystemError
from worldsystem_core.surface import Mesh
from worldsystem_core.trajectory import write_tum
from worldsystem_storage.mesh_files import write_glb, write_ply

log = logging.getLogger(__name__)

SCENE_FILE = "scene.json"
_LIBRARIES = ("numpy", "opencv-python-headless", "warp-lang", "open3d", "av", "foxglove-sdk")


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


def welded(mesh: Mesh) -> Mesh:
    """`mesh` with coinciding vertices merged: blocks repeat those on their rims."""
    if not len(mesh.faces):
        return mesh
    merged = trimesh.Trimesh(
        mesh.vertices, mesh.faces, vertex_colors=mesh.colours, process=False, validate=False
    )
    merged.merge_vertices(merge_tex=True, merge_norm=True)
    return Mesh(
        vertices=np.asarray(merged.vertices, dtype=np.float32),
        colours=np.asarray(merged.visual.vertex_colors[:, :3], dtype=np.uint8),
        faces=np.asarray(merged.faces, dtype=np.int32),
    )


def versions() -> dict[str, str]:
    """Versions of the libraries that results depend on most."""
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str:
    """Short hash of the checkout that runs; `unknown` when there is none."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--exclude=*"],
            capture_output=True,
            text=True,
            check=True,
            cwd=Path(__file__).resolve().parent,
            timeout=5.0,
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip()
