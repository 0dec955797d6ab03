# SPDX-License-Identifier: Apache-2.0
"""Ground truth from wherever it is: a simulated flight, a data set's folder, a trajectory file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float32

from worldsystem.evaluation.cloud import read_surface
from worldsystem.evaluation.replica import REPLICA, replica_mesh
from worldsystem.evaluation.surface import area_samples
from worldsystem.evaluation.truth import GroundTruth
from worldsystem.evaluation.truth_files import (
    from_simulator,
    load_truth_trajectory,
    located,
    thinned,
)
from worldsystem_core.errors import SourceError
from worldsystem_core.frames import Camera
from worldsystem_core.geometry.pinhole import pointmap_from_depth
from worldsystem_core.geometry.se3 import transform
from worldsystem_core.trajectory import StampedPoses
from worldsystem_sim.truth import SCENE_FILE
from worldsystem_storage.importing.dataset import Dataset, in_full
from worldsystem_storage.importing.layouts import LAYOUTS

DATASETS = (REPLICA, *LAYOUTS)
DEPTH_FRAMES = 120
"""Depth pictures that a true surface is made of, spread over the recording."""
DEPTH_STRIDE = 2
FAR_M = 10.0
TRUTH_CELL_M = 0.01
SEEN_SAMPLES = 200_000
STAMP_REACH_NS = 20_000_000


def truth_at(place: Path, *, mesh: Path | None = None) -> GroundTruth:
    """The truth that lies at `place`: a folder of the simulator or of a known data set, or a file.

    `mesh` is a true surface of its own. Raises SourceError (or the storage's own error) saying
    what is known when it is nothing of the kind.
    """
    truth = _truth(place)
    return truth if mesh is None else _with_surface(truth, mesh)


def _with_surface(truth: GroundTruth, path: Path) -> GroundTruth:
    """`truth` with the mesh or the cloud in `path`; points without a place, as in scans, are none.

    What the camera saw stays where it is known, unless there is a cloud alone. Where it is not, all
    of a mesh counts, each piece by its area, however large its triangles are.
    """
    surface = read_surface(path)
    known = surface.vertices[np.isfinite(surface.vertices).all(axis=1)]
    if not len(known):
        raise SourceError(f"no point of {path} has a position")
    if not len(surface.faces):
        return replace(truth, mesh=None, seen_points=known)
    if truth.seen_points is not None:
        return replace(truth, mesh=surface)
    samples, diameter = area_samples(surface, SEEN_SAMPLES), np.linalg.norm(np.ptp(known, axis=0))
    seen = samples if len(samples) else known  # of triangles without area
    return replace(truth, mesh=surface, seen_points=seen, diameter=float(diameter))


def _truth(place: Path) -> GroundTruth:
    if place.is_file():
        return GroundTruth(poses=load_truth_trajectory(place))
    if not place.exists():
        raise SourceError(f"there is no ground truth at {place}")
    if (place / SCENE_FILE).is_file():
        return from_simulator(place)
    for layout in DATASETS:
        if layout.fits(place):
            return _of_dataset(layout.read(place), in_full(place))
    for name in ("groundtruth.txt", "ground_truth.tum", "trajectory.log", "poses.txt"):
        if (place / name).is_file():
            return GroundTruth(poses=load_truth_trajectory(place / name))
    known = ", ".join(layout.meaning for layout in DATASETS)
    raise SourceError(
        f"{place} is no ground truth that is known: a simulator's folder, {known}, or a "
        "trajectory file (TUM, Redwood .log, 4×4 matrices, CSV with lat_deg or n_m)"
    )


def _of_dataset(dataset: Dataset, folder: Path) -> GroundTruth:
    if dataset.truth is None:
        raise SourceError(f"{folder} is a data set without true poses")
    truth = GroundTruth(
        poses=located(dataset.truth, folder),
        seen_points=surface_from_depth(dataset),
        frame_count=len(dataset.pictures),
    )
    mesh = replica_mesh(folder)
    return truth if mesh is None else _with_surface(truth, mesh)


def surface_from_depth(dataset: Dataset) -> Float32[np.ndarray, "n 3"] | None:
    """True depth pictures put together at their true poses, a point a centimetre; None without."""
    if dataset.truth is None or dataset.camera is None:
        return None
    pictures = [picture for picture in dataset.pictures if picture.depth is not None]
    if not pictures:
        return None
    step = max(1, len(pictures) // DEPTH_FRAMES)
    clouds = []
    for picture in pictures[::step]:
        pose = _pose_at(dataset.truth, picture.stamp_ns)
        counts = cv2.imread(str(picture.depth), cv2.IMREAD_UNCHANGED)
        if pose is None or counts is None:
            continue
        depth_m = counts.astype(np.float32) * np.float32(dataset.depth_unit_m)
        clouds.append(_lifted(depth_m, dataset.camera, pose))
    if not clouds:
        return None
    return thinned(np.concatenate(clouds), TRUTH_CELL_M)


def _lifted(depth_m: np.ndarray, camera: Camera, world_from_cam: np.ndarray) -> np.ndarray:
    size = depth_m.shape[1], depth_m.shape[0]
    depth_m = np.where((depth_m > 0) & (depth_m < FAR_M), depth_m, np.nan)
    points = pointmap_from_depth(depth_m, replace(camera.resized(*size), distortion=()))
    flat = points[::DEPTH_STRIDE, ::DEPTH_STRIDE].reshape(-1, 3)
    flat = flat[np.isfinite(flat[:, 2])]
    return thinned(transform(world_from_cam, flat).astype(np.float32), TRUTH_CELL_M)


def _pose_at(poses: StampedPoses, stamp_ns: int) -> np.ndarray | None:
    at = int(np.argmin(np.abs(poses.stamps_ns - stamp_ns)))
    near = abs(int(poses.stamps_ns[at]) - stamp_ns) <= STAMP_REACH_NS
    return poses.world_from_cam[at] if near else None
