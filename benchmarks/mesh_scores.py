# SPDX-License-Identifier: Apache-2.0
"""How good a mesh of the rooms is, by their formula, and whether it has cracks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64
from mesh_distance import TriangleDistance
from mesh_room import Rooms
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

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
    missed = TriangleDistance(mesh)(seen)
    precision, recall = (off < threshold_m).mean(), (missed < threshold_m).mean()
    fscore = 2 * precision * recall / max(precision + recall, 1e-9)
    return RoomScore(float(off.mean()), float(missed.mean()), float(fscore))


def border_edges(mesh: Mesh) -> tuple[Int64[np.ndarray, "e 2"], int]:
    """Edges with an odd number of faces, and how many edges there are."""
    f = mesh.faces
    edges = np.sort(np.concatenate([f[:, [0, 1]], f[:, [1, 2]], f[:, [2, 0]]]), axis=1)
    kinds, uses = np.unique(edges.astype(np.int64), axis=0, return_counts=True)
    return kinds[uses % 2 == 1], len(kinds)


def small_holes(mesh: Mesh, most_edges: int = 20) -> tuple[Float64[np.ndarray, "h 3"], int]:
    """Middles of the border loops of at most `most_edges` edges, and how many edges the mesh has.

    Longer loops are where the camera's view of the rooms ends.
    """
    borders, edges = border_edges(mesh)
    if not len(borders):
        return np.zeros((0, 3)), edges
    ends, row = np.unique(borders, return_inverse=True)
    row = row.reshape(-1, 2)
    links = coo_array((np.ones(len(row)), (row[:, 0], row[:, 1])), shape=(len(ends), len(ends)))
    loop = connected_components(links, directed=False)[1][row[:, 0]]
    middles = mesh.vertices[borders].mean(axis=1).astype(np.float64)
    counts = np.bincount(loop)
    centres = np.stack([np.bincount(loop, middles[:, a]) for a in range(3)], axis=-1)
    small = counts <= most_edges
    return centres[small] / counts[small, None], edges


def covered(points: Float64[np.ndarray, "n 3"], keyframes: list[Keyframe]) -> Bool[np.ndarray, "n"]:
    """Points whose surroundings (5 cm) three keyframes saw whole, at one depth (10 cm)."""
    votes = np.zeros(len(points), int)
    for keyframe in keyframes:
        camera, pose = keyframe.camera, keyframe.world_from_cam
        depth = keyframe.pointmap[..., 2]
        x, y, z = ((points - pose[:3, 3]) @ pose[:3, :3]).T
        for row in np.nonzero(z > 0.3)[0].tolist():
            u = round(camera.fx * x[row] / z[row] + camera.cx)
            v = round(camera.fy * y[row] / z[row] + camera.cy)
            r = int(0.05 * camera.fx / z[row]) + 2
            if r <= u < camera.width - r and r <= v < camera.height - r:
                patch = depth[v - r : v + r + 1, u - r : u + r + 1]
                near = abs(float(depth[v, u]) - z[row]) < 0.1
                votes[row] += near and float(patch.max() - patch.min()) < 0.1
    return votes >= 3


def gaps_between(mesh: Mesh, other: Mesh) -> Float64[np.ndarray, "n"]:
    """Distances of points of each surface from the other one."""
    return np.concatenate(
        [TriangleDistance(other)(samples_of(mesh)), TriangleDistance(mesh)(samples_of(other))]
    )


def rms_of_most(gaps: Float64[np.ndarray, "n"]) -> float:
    """Root mean square, cut at the 99.9th percentile: what only one of two surfaces shows at its
    ragged border has no partner."""
    return float(np.sqrt(np.mean(gaps[gaps <= np.percentile(gaps, 99.9)] ** 2)))
