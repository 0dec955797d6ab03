# SPDX-License-Identifier: Apache-2.0
"""The formats by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from worldsystem_storage.errors import StorageError
from worldsystem_storage.export.annotations import export_coco, export_mp4
from worldsystem_storage.export.cameras import (
    export_colmap,
    export_colmap_text,
    export_nerfstudio,
)
from worldsystem_storage.export.clouds import export_las, export_points
from worldsystem_storage.export.meshes import export_glb, export_obj, export_ply
from worldsystem_storage.export.recorded import RecordedRun
from worldsystem_storage.export.splats import export_gaussians, export_spz
from worldsystem_storage.export.trajectories import export_kitti, export_tum

FORMATS: dict[str, tuple[Callable[[RecordedRun, Path], Path], str]] = {
    "colmap": (export_colmap, "COLMAP model (binary) with pictures"),
    "colmap-text": (export_colmap_text, "COLMAP model (text) with pictures"),
    "nerfstudio": (export_nerfstudio, "transforms.json with pictures, depths and points"),
    "tum": (export_tum, "path, TUM RGB-D"),
    "kitti": (export_kitti, "path, KITTI odometry"),
    "ply": (export_ply, "mesh, PLY with vertex colours"),
    "glb": (export_glb, "mesh, binary glTF"),
    "obj": (export_obj, "mesh, Wavefront OBJ with vertex colours"),
    "points": (export_points, "point cloud, PLY"),
    "las": (export_las, "point cloud, LAS 1.4"),
    "3dgs": (export_gaussians, "Gaussian splats, 3DGS PLY"),
    "spz": (export_spz, "Gaussian splats, SPZ"),
    "mp4": (export_mp4, "video as it was received"),
    "coco": (export_coco, "objects in keyframes, COCO"),
}


def export(folder: Path, format: str, out: Path) -> Path:
    """Write the run in `folder` as `format` to `out`; returns the file to open.

    Raises `StorageError` when the format is unknown or the run lacks what it needs.
    """
    if format not in FORMATS:
        known = ", ".join(FORMATS)
        raise StorageError(f"format '{format}' is not known; choose one of: {known}")
    write, _ = FORMATS[format]
    return write(RecordedRun(folder), Path(out))
