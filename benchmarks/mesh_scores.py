# SPDX-License-Identifier: Apache-2.0
"""How good a mesh of the rooms is, by their formula, and whether it has cracks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64
from mesh_room import Rooms

from worldsystem.evaluation.surface import SurfaceDistance
from worldsystem_core.geometry.se3 import transform
from worldsystem_core.reconstruction import Keyframe
from worldsystem_core.surface import Mesh

SAMPLES = 200_000


@dataclass(frozen=True)
class RoomScore:
    """Mean distances [m] mesh → rooms and seen points → mesh, and their F-score."""

    accuracy_m: float
    completeness_m: float
    fscore: float


def samples_of(mesh: Mesh, count: int = SAMPLES, seed: int = 5) -> Float64[np.ndarray, "n 3"]:
    """Points spread evenly over the mesh's area."""
    rng = np.random.default_rng(seed)
    a, b, c = np.moveaxis(mesh.vertices[mesh.faces].astype(np.float64), 1, 0)
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    face = rng.choice(len(area), count, p=area / area.sum())
    u, v = np.sqrt(rng.random(count)), rng.random(count)
    weight = np.stack([1 - u, u * (1 - v), u * v], axis=-1)[..., None]
    return np.asarray((np.stack([a[face], b[face], c[face]], axis=1) * weight).sum(axis=1))


def seen_points(clean: list[Keyframe], stride: int = 6) -> Float64[np.ndarray, "n 3"]:
    """Points of the rooms that the noise-free keyframes show."""
    parts = [transform(k.world_from_cam, k.pointmap[::stride, ::stride]) for k in clean]
    return np.concatenate([part.reshape(-1, 3) for part in parts])


def score(
    mesh: Mesh, rooms: Rooms, seen: Float64[np.ndarray, "n 3"], threshold_m: float
) -> RoomScore:
    """Accuracy by the rooms' exact distance, completeness by distance to the mesh's triangles."""
    off = np.abs(rooms.distance(samples_of(mesh)))
    missed = SurfaceDistance(mesh)(seen)
    precision, recall = (off < threshold_m).mean(), (missed < threshold_m).mean()
    fscore = 2 * precision * recall / max(precision + recall, 1e-9)
    return RoomScore(float(off.mean()), float(missed.mean()), float(fscore))


def border_edges(mesh: Mesh) -> tuple[Int64[np.ndarray, "e 2"], int]:
    """Edges with an odd number of faces, and how many edges there are."""
    f = mesh.faces
    edges = np.sort(np.concatenate([f[:, [0, 1]], f[:, [1, 2]], f[:, [2, 0]]]), axis=1)
    kinds, uses = np.unique(edges.astype(np.int64), axis=0, return_counts=True)
    return kinds[uses % 2 == 1], len(kinds)


def rms_between(mesh: Mesh, other: Mesh) -> float:
    """Root mean square of the distance between two surfaces, both ways, cut at the 99.9th
    percentile: what only one of them shows at its ragged border has no partner."""
    gaps = np.concatenate(
        [SurfaceDistance(other)(samples_of(mesh)), SurfaceDistance(mesh)(samples_of(other))]
    )
    return float(np.sqrt(np.mean(gaps[gaps <= np.percentile(gaps, 99.9)] ** 2)))
