# SPDX-License-Identifier: Apache-2.0
"""Which photo shows each face best, in as few connected pieces as that allows.

After Waechter et al., "Let There Be Color!" (ECCV 2014), with a vote among neighbours instead of
their graph cut.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int, Int32, Int64

from worldsystem_core.geometry.se3 import inverse
from worldsystem_core.surface import Mesh
from worldsystem_mesh.export.textured import Photo

NO_PHOTO = -1
DEPTH_TOLERANCE = 0.03
LEAST_COSINE = 0.2
GOOD_ENOUGH = 0.5
VOTES = 4
HIDING_PX = 64.0
"""Smaller faces are taken for shown where their corners are."""
PARTS = 8
_SHARES = [(i, j, PARTS - i - j) for i in range(PARTS + 1) for j in range(PARTS + 1 - i)]
WITHIN = np.array([shares for shares in _SHARES if max(shares) < PARTS]) / PARTS
"""Points of a face, but its corners, as shares of those."""


def projected(
    photo: Photo, vertices: Float32[np.ndarray, "v 3"]
) -> tuple[Float64[np.ndarray, "v 2"], Bool[np.ndarray, "v"]]:
    """Pixel of each vertex, and whether the photo shows it: inside, and nothing before it."""
    px, z, seen = _looked_at(photo, vertices)
    return px, np.asarray(np.abs(seen - z) <= DEPTH_TOLERANCE * z)


def _looked_at(
    photo: Photo, points: Float[np.ndarray, "n 3"]
) -> tuple[Float64[np.ndarray, "n 2"], Float64[np.ndarray, "n"], Float64[np.ndarray, "n"]]:
    """Pixel and depth of each point, and the depth that the photo has there; NaN: it has none."""
    camera = photo.camera
    cam_from_world = inverse(photo.world_from_cam)
    points = points @ cam_from_world[:3, :3].T + cam_from_world[:3, 3]
    z = np.where(points[:, 2] > 1e-9, points[:, 2], np.nan)
    u = camera.fx * points[:, 0] / z + camera.cx
    v = camera.fy * points[:, 1] / z + camera.cy
    height, width = photo.depth.shape
    inside = (u >= 0.5) & (u <= width - 1.5) & (v >= 0.5) & (v <= height - 1.5)
    seen = np.full(len(points), np.nan)
    row, column = v[inside].round().astype(int), u[inside].round().astype(int)
    seen[inside] = photo.depth[row, column]
    return np.stack([u, v], axis=-1), z, seen


def _is_hidden_within(photo: Photo, corners: Float64[np.ndarray, "f 3 3"]) -> Bool[np.ndarray, "f"]:
    """Whether something stands before a part of each face, whose corners may lie beside it."""
    points = np.einsum("kc,fcd->fkd", WITHIN, corners).reshape(-1, 3)
    _, z, seen = _looked_at(photo, points)
    before = (seen > 0) & (seen < (1.0 - DEPTH_TOLERANCE) * z)
    return np.asarray(before.reshape(-1, len(WITHIN)).any(axis=1))


def face_scores(photo: Photo, mesh: Mesh) -> Float32[np.ndarray, "f"]:
    """Pixels that each face has in the photo; 0 where it is not shown, or from behind or aslant."""
    px, shown = projected(photo, mesh.vertices)
    corners = px[mesh.faces]
    first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    # y points down, so a face that looks to the camera turns clockwise
    area = 0.5 * (first[:, 1] * second[:, 0] - first[:, 0] * second[:, 1])
    places = mesh.vertices[mesh.faces].astype(np.float64)
    normals = np.cross(places[:, 1] - places[:, 0], places[:, 2] - places[:, 0])
    ways = photo.world_from_cam[:3, 3] - places.mean(axis=1)
    lengths = np.linalg.norm(normals, axis=1) * np.linalg.norm(ways, axis=1)
    cosine = (normals * ways).sum(axis=1) / np.maximum(lengths, 1e-30)
    good = shown[mesh.faces].all(axis=1) & (cosine > LEAST_COSINE) & (area > 0)
    large = np.flatnonzero(good & (area > HIDING_PX))
    good[large] = ~_is_hidden_within(photo, places[large])
    return np.asarray(np.where(good, area, 0.0), np.float32)


def best_photos(mesh: Mesh, photos: Sequence[Photo]) -> Int32[np.ndarray, "f"]:
    """Number of the photo for each face, or `NO_PHOTO`.

    Only the score of the chosen photo is kept: of all photos they would fill the memory.
    """
    best = np.full(len(mesh.faces), NO_PHOTO, np.int32)
    score = np.zeros(len(mesh.faces), np.float32)
    for number, photo in enumerate(photos):
        found = face_scores(photo, mesh)
        better = found > score
        best[better], score[better] = number, found[better]
    neighbours = face_neighbours(mesh)
    for _ in range(VOTES):
        faces, wanted = _wanted(best, neighbours)
        for number in np.unique(wanted).tolist():
            asked = faces[wanted == number]
            found = face_scores(photos[number], _alone(mesh, asked))
            enough = (found > 0) & (found >= GOOD_ENOUGH * score[asked])
            best[asked[enough]], score[asked[enough]] = number, found[enough]
    return best


def face_neighbours(mesh: Mesh) -> Int[np.ndarray, "n 2"]:
    """Pairs of faces that share an edge."""
    count = len(mesh.faces)
    edges = np.sort(np.concatenate([mesh.faces[:, pair] for pair in ([0, 1], [1, 2], [2, 0])]), 1)
    order = np.lexsort((edges[:, 1], edges[:, 0]))
    face, edges = order % max(count, 1), edges[order]
    same = (edges[1:] == edges[:-1]).all(axis=1)
    return np.asarray(np.stack([face[:-1][same], face[1:][same]], axis=-1))


def _wanted(
    best: Int32[np.ndarray, "f"], pairs: Int[np.ndarray, "n 2"]
) -> tuple[Int64[np.ndarray, "w"], Int64[np.ndarray, "w"]]:
    """Faces of which two neighbours or more have the same other photo, and which one most have."""
    votes: dict[int, list[int]] = {}
    both = np.concatenate([pairs, pairs[:, ::-1]])
    differ = best[both[:, 0]] != best[both[:, 1]]
    for face, other in both[differ].tolist():
        votes.setdefault(face, []).append(int(best[other]))
    wanted: dict[int, int] = {}
    for face, given in votes.items():
        photo = max(set(given), key=given.count)
        if photo != NO_PHOTO and given.count(photo) >= 2:
            wanted[face] = photo
    return np.array([*wanted], np.int64), np.array([*wanted.values()], np.int64)


def _alone(mesh: Mesh, faces: Int64[np.ndarray, "n"]) -> Mesh:
    """Some of the faces, each with corners of its own."""
    corners = mesh.faces[faces].reshape(-1)
    return Mesh(
        vertices=mesh.vertices[corners],
        colours=mesh.colours[corners],
        faces=np.arange(len(corners), dtype=np.int32).reshape(-1, 3),
    )
