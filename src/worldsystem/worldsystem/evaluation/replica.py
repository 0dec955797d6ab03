# SPDX-License-Identifier: Apache-2.0
"""Replica as the mapping papers render it: `results/frame*.jpg`, `depth*.png`, `traj.txt`.

`cam_params.json` lies beside the scenes' folders, and so does `<scene>_mesh.ply`.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from worldsystem_core.frames import Camera
from worldsystem_core.trajectory import StampedPoses
from worldsystem_storage.errors import StorageError
from worldsystem_storage.importing.dataset import Dataset, DatasetPicture, Layout, numbers

FPS = 30


def read_replica(folder: Path) -> Dataset:
    """One scene; pictures are 30 a second."""
    results = folder / "results"
    colours = sorted([*results.glob("frame*.jpg"), *results.glob("frame*.png")])
    pictures = []
    for i, colour in enumerate(colours):
        depth = results / f"depth{colour.stem.removeprefix('frame')}.png"
        stamp_ns = round(i * 1e9 / FPS)
        pictures.append(DatasetPicture(stamp_ns, colour, depth if depth.is_file() else None))
    poses = numbers(folder / "traj.txt", 16)[:, :16].reshape(-1, 4, 4)
    stamps_ns = np.round(np.arange(len(poses)) * 1e9 / FPS).astype(np.int64)
    camera, depth_unit_m = _camera(folder)
    return Dataset(
        folder.name,
        pictures,
        camera=camera,
        truth=StampedPoses(stamps_ns, poses),
        depth_unit_m=depth_unit_m,
    )


def replica_mesh(folder: Path) -> Path | None:
    """The true mesh beside a scene's folder, if it is there."""
    path = folder.parent / f"{folder.name}_mesh.ply"
    return path if path.is_file() else None


def _camera(folder: Path) -> tuple[Camera | None, float]:
    for place in (folder / "cam_params.json", folder.parent / "cam_params.json"):
        if place.is_file():
            try:
                c = json.loads(place.read_text())["camera"]
                size = {"width": int(c["w"]), "height": int(c["h"])}
                K = {name: float(c[name]) for name in ("fx", "fy", "cx", "cy")}
                return Camera(**size, **K), 1.0 / float(c["scale"])  # type: ignore[arg-type]
            except (ValueError, KeyError, TypeError) as error:
                raise StorageError(f"{place} is no camera of Replica: {error}") from error
    return None, 0.001


REPLICA = Layout(
    "replica",
    lambda folder: (folder / "traj.txt").is_file() and (folder / "results").is_dir(),
    read_replica,
    "Replica",
)
