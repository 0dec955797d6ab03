# SPDX-License-Identifier: Apache-2.0
"""What is to be judged: a run's folder, or a trajectory file and perhaps a surface."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from worldsystem.evaluation.cloud import read_surface
from worldsystem.evaluation.truth_files import load_truth_trajectory
from worldsystem_core.errors import SourceError
from worldsystem_core.surface import Mesh
from worldsystem_core.trajectory import StampedPoses

TRAJECTORY_FILE, MESH_FILE = "trajectory.tum", "mesh.ply"


def read_estimate(
    place: Path, *, mesh: Path | None = None, offset_s: float = 0.0
) -> tuple[StampedPoses, Mesh]:
    """Poses, and the surface where there is one; SourceError when there is no trajectory.

    A trajectory may have any format of `load_truth_trajectory` that tells rotations. `offset_s` is
    added to its stamps.
    """
    path = place / TRAJECTORY_FILE if place.is_dir() else place
    if not path.is_file():
        raise SourceError(f"there is no estimated trajectory at {path}")
    poses = load_truth_trajectory(path)
    if len(poses) and not np.isfinite(poses.world_from_cam).all(axis=(1, 2)).any():
        raise SourceError(
            f"{path} tells no rotations, without which no estimate is judged; give it as TRUTH"
        )
    poses = StampedPoses(poses.stamps_ns + round(offset_s * 1e9), poses.world_from_cam)
    if mesh is None and place.is_dir() and (place / MESH_FILE).is_file():
        mesh = place / MESH_FILE
    return poses, Mesh.empty() if mesh is None else read_surface(mesh)
