# SPDX-License-Identifier: Apache-2.0
"""From triangles to distances on the voxel lattice, and from those to blocks again."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float32, Int32, UInt8
from scipy.spatial import cKDTree

from worldsystem_core.marching_cubes import triangle_count_table
from worldsystem_core.mesh_code.cells import (
    SurfaceCells,
    case_edges,
    edge_points,
)
from worldsystem_core.surface import Mesh

REACH = 2.5
"""Distances are known to this far from a triangle [voxels]: a cell's diagonal, and some more."""
_EDGE_MARGIN = 0.001
_SLANT = 0.6


def mesh_distances(mesh: Mesh, points: Float32[np.ndarray, "n 3"]) -> Float32[np.ndarray, "n"]:
    """Signed distance to the nearest triangle, positive on the side that it looks to.

    NaN beyond `REACH`, and beside the mesh's border, where there is nothing to be near to.
    """
    if not len(mesh.faces):
        return np.full(len(points), np.nan, np.float32)
    import open3d as o3d  # two seconds; a mesher that is begun anew must not wait for them

    scene = o3d.t.geometry.RaycastingScene()
    scene.add_triangles(
        o3d.core.Tensor.from_numpy(np.ascontiguousarray(mesh.vertices, np.float32)),
        o3d.core.Tensor.from_numpy(np.ascontiguousarray(mesh.faces, np.uint32)),
    )
    found = scene.compute_closest_points(o3d.core.Tensor.from_numpy(points))
    away = points - found["points"].numpy()
    along = (away * found["primitive_normals"].numpy()).sum(axis=1)
    distance = np.linalg.norm(away, axis=1)
    known = (distance <= REACH) & ((np.abs(along) >= _SLANT * distance) | (distance < 0.5))
    return np.where(known, np.where(along < 0, -distance, distance), np.nan).astype(np.float32)


def blended(
    fused: Float32[np.ndarray, "..."],
    other: Float32[np.ndarray, "..."],
    weight: Float32[np.ndarray, "..."],
    *,
    only_fill: bool,
) -> Float32[np.ndarray, "..."]:
    """Distances of both, NaN where neither knows; with `only_fill` what is fused stays.

    Where only `other` knows, it counts from half the weight on.
    """
    both = np.isfinite(fused) & np.isfinite(other) & (not only_fill)
    mixed = np.where(both, fused + weight * (other - fused), fused)
    fills = ~np.isfinite(fused) & (weight > 0.5)
    return np.asarray(np.where(fills, other, mixed), np.float32)


def cells_of_samples(
    index: Int32[np.ndarray, "b 3"],
    version: Int32[np.ndarray, "b"],
    samples: Float32[np.ndarray, "b 9 9 9"],
    colours: UInt8[np.ndarray, "b 9 9 9 3"],
) -> SurfaceCells:
    """Marching cubes of blocks' samples [voxels, NaN = unknown], axes (block, z, y, x).

    Blocks without a surface have no cells.
    """
    block, cells, cases = _crossed(samples)
    edges, valid = case_edges(cells, cases)
    key = np.unique((block[:, None] * 3 * 729 + edges)[valid])
    of_block, edge = key // (3 * 729), (key % (3 * 729)).astype(np.uint16)
    share, rgb = _crossings(samples, colours, of_block, edge)
    count = np.arange(len(index) + 1)
    return SurfaceCells(
        index=index,
        version=version,
        vertex_start=np.searchsorted(of_block, count),
        cell_start=np.searchsorted(block, count),
        edges=edge,
        shares=share,
        colours=rgb,
        cells=cells,
        cases=cases,
    )


def _crossed(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Block, low point and case of the cells that the surface crosses."""
    known, inside = np.isfinite(samples), samples < 0
    whole = np.ones((len(samples), 8, 8, 8), bool)
    case = np.zeros((len(samples), 8, 8, 8), np.int64)
    for corner in range(8):
        at = tuple(slice(d, d + 8) for d in (corner >> 2, corner >> 1 & 1, corner & 1))
        whole &= known[(slice(None), *at)]
        case |= inside[(slice(None), *at)].astype(np.int64) << corner
    crossed = whole & (triangle_count_table()[case] > 0)
    block, z, y, x = np.nonzero(crossed)
    return block, (x + 9 * y + 81 * z).astype(np.uint16), case[crossed].astype(np.uint8)


def _crossings(
    samples: np.ndarray, colours: np.ndarray, block: np.ndarray, edge: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Where each edge is cut, and the colour there; black at one end is none, as in the kernel."""
    low = edge_points(edge)
    high = low + np.eye(3, dtype=np.int64)[edge % 3]
    s0, s1 = (samples[block, p[:, 2], p[:, 1], p[:, 0]] for p in (low, high))
    share = np.clip(s0 / np.where(s0 == s1, 1.0, s0 - s1), _EDGE_MARGIN, 1.0 - _EDGE_MARGIN)
    c0, c1 = (colours[block, p[:, 2], p[:, 1], p[:, 0]].astype(np.float32) for p in (low, high))
    black0, black1 = ((c == 0).all(axis=1, keepdims=True) for c in (c0, c1))
    c0, c1 = np.where(black0, c1, c0), np.where(black1, c0, c1)
    rgb = np.rint(c0 + share[:, None] * (c1 - c0)).astype(np.uint8)
    return np.rint(65536.0 * share).astype(np.uint16), rgb


def nearest_colours(
    mesh: Mesh, points: Float32[np.ndarray, "n 3"], known: Bool[np.ndarray, "n"]
) -> UInt8[np.ndarray, "n 3"]:
    """The mesh's colour nearest to each point; black where not `known`."""
    rgb = np.zeros((len(points), 3), np.uint8)
    if known.any() and len(mesh.vertices):
        rgb[known] = mesh.colours[cKDTree(mesh.vertices).query(points[known])[1]]
    return rgb
