# SPDX-License-Identifier: Apache-2.0
"""The camera's path as text: TUM RGB-D and KITTI odometry."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from worldsystem_core.trajectory import StampedPoses, write_tum
from worldsystem_storage.errors import StorageError
from worldsystem_storage.export.place import output_file
from worldsystem_storage.export.recorded import RecordedRun


def export_tum(run: RecordedRun, out: Path) -> Path:
    """`timestamp tx ty tz qx qy qz qw` a line: seconds, world units, camera optical axes."""
    out = output_file(out, "trajectory.tum")
    write_tum(out, _path_of(run))
    return out


def export_kitti(run: RecordedRun, out: Path) -> Path:
    """Twelve numbers a line, the rows of `world_from_cam` [R t]; `times.txt` beside it, in seconds.

    KITTI's first pose is the identity by custom: all poses are given in the first camera's frame.
    """
    path = _path_of(run)
    out.mkdir(parents=True, exist_ok=True)
    first_from_world = np.linalg.inv(path.world_from_cam[0])
    rows = (first_from_world @ path.world_from_cam)[:, :3].reshape(-1, 12)
    np.savetxt(out / "poses.txt", rows, fmt="%.9e")
    np.savetxt(out / "times.txt", (path.stamps_ns - path.stamps_ns[0]) / 1e9, fmt="%.9e")
    return out / "poses.txt"


def _path_of(run: RecordedRun) -> StampedPoses:
    if run.path is None or not len(run.path):
        raise StorageError(f"{run.folder} holds no path: the camera was never tracked")
    return run.path
