# SPDX-License-Identifier: Apache-2.0
"""The surface that the run left, as PLY, GLB or OBJ."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import trimesh

from worldsystem_core.surface import Mesh
from worldsystem_storage.export.place import surface_file
from worldsystem_storage.export.recorded import RecordedRun
from worldsystem_storage.mesh_files import write_glb


def export_ply(run: RecordedRun, out: Path) -> Path:
    """The run's own `mesh.ply`: vertex colours, world frame."""
    out = surface_file(out, "ply")
    shutil.copyfile(run.mesh_file, out)
    return out


def export_glb(run: RecordedRun, out: Path) -> Path:
    """Binary glTF, y up, colours unlit."""
    out = surface_file(out, "glb")
    write_glb(out, _mesh_of(run), run.mesh_scale)
    return out


def export_obj(run: RecordedRun, out: Path) -> Path:
    """Wavefront OBJ; each `v` line carries its colour (0 … 1) behind the coordinates."""
    out = surface_file(out, "obj")
    mesh = _mesh_of(run)
    with out.open("w") as file:
        rows = np.hstack([mesh.vertices, mesh.colours / 255.0])
        np.savetxt(file, rows, fmt="v %.6g %.6g %.6g %.4f %.4f %.4f")
        np.savetxt(file, mesh.faces + 1, fmt="f %d %d %d")
    return out


def _mesh_of(run: RecordedRun) -> Mesh:
    loaded = trimesh.load(run.mesh_file, process=False)
    return Mesh(
        vertices=np.asarray(loaded.vertices, dtype=np.float32),
        colours=np.asarray(loaded.visual.vertex_colors[:, :3], dtype=np.uint8),
        faces=np.asarray(loaded.faces, dtype=np.int32),
    )
