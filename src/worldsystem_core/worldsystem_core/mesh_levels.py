# SPDX-License-Identifier: Apache-2.0
"""Coarser levels of a block, and joining blocks of different levels without cracks.

Vertices are clustered (Rossignac & Borrel, "Multi-resolution 3D approximations", 1993): along each
axis a place of x voxels lies in cluster K1 = floor((x + 1) / 2) at level 1 and in
K2 = floor((K1 + 1) / 2) at level 2. Clusters straddle the rims of blocks, so neighbours share them.
Every map of vertices that is the same in all blocks keeps a closed surface closed, so nothing
cracks as long as a vertex on a rim goes where the coarsest block there has put its cluster.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Bool, Float64, Int, Int32, UInt16

from worldsystem_core.surface import Mesh, MeshBlock

POINTS = 9
CLUSTERS = {1: 5, 2: 3}
"""Clusters along a block's edge, those on its rims included."""
LEVELS = (0, *CLUSTERS)
CLUSTER_VOXELS = {1: 2, 2: 4}


def clustered(blocks: Sequence[MeshBlock], level: int) -> list[MeshBlock]:
    """`blocks`, of level 0 and in lattice form, at level 1 or 2.

    A cluster's vertex is the mean of its block's vertices in it, in place and colour. Faces that
    keep three vertices stay, but for pairs of opposite ones. Clusters without faces stay, too:
    neighbours find their rims there. Raises ValueError for a block without lattice form.
    """
    if not blocks:
        return []
    side = CLUSTERS[level]
    sizes = [len(block.vertices) for block in blocks]
    of_block = np.repeat(np.arange(len(blocks)), sizes)
    k = _cluster_places(_points(np.concatenate([_edges(block) for block in blocks])), level)
    keys = of_block * side**3 + k @ np.array([1, side, side * side])
    clusters, number, count = np.unique(keys, return_inverse=True, return_counts=True)
    number = number.reshape(-1)
    vertices = np.concatenate([block.vertices for block in blocks]).astype(np.float64)
    colours = np.concatenate([block.colours for block in blocks])
    means = [np.bincount(number, v) / count for v in (*vertices.T, *colours.T)]
    starts = np.cumsum([0, *sizes[:-1]])
    faces = [number[block.faces + at] for block, at in zip(blocks, starts, strict=True)]
    return _parted(
        blocks, level, clusters, np.stack(means, axis=-1), canonical_faces(np.concatenate(faces))
    )


def _parted(
    blocks: Sequence[MeshBlock],
    level: int,
    clusters: Int[np.ndarray, "n"],
    means: Float64[np.ndarray, "n 6"],
    faces: Int32[np.ndarray, "f 3"],
) -> list[MeshBlock]:
    """Block after block of what was computed for all at once."""
    size, count = CLUSTERS[level] ** 3, np.arange(len(blocks) + 1)
    v = np.searchsorted(clusters // size, count)
    f = np.searchsorted(faces[:, 0], v)
    vertices, colours = means[:, :3].astype(np.float32), np.rint(means[:, 3:]).astype(np.uint8)
    return [
        MeshBlock(
            index=block.index,
            version=block.version,
            vertices=vertices[v[i] : v[i + 1]],
            colours=colours[v[i] : v[i + 1]],
            faces=faces[f[i] : f[i + 1]] - np.int32(v[i]),
            level=level,
            clusters=(clusters[v[i] : v[i + 1]] % size).astype(np.uint16),
        )
        for i, block in enumerate(blocks)
    ]


def _edges(block: MeshBlock) -> UInt16[np.ndarray, "v"]:
    if block.edges is None:
        raise ValueError("a block without its lattice form has no coarser levels")
    return block.edges


def canonical_faces(faces: Int[np.ndarray, "f 3"]) -> Int32[np.ndarray, "g 3"]:
    """Faces of three different vertices, smallest first, ascending; opposite pairs cancel."""
    whole = (np.roll(faces, 1, axis=1) != faces).all(axis=1)
    faces = faces[whole]
    turns = (faces.argmin(axis=1)[:, None] + np.arange(3)) % 3
    faces = np.take_along_axis(faces, turns, axis=1)
    flipped = faces[:, 1] > faces[:, 2]
    ordered = np.sort(faces, axis=1)
    order = np.lexsort((ordered[:, 2], ordered[:, 1], ordered[:, 0]))
    ordered = ordered[order]
    begins = np.flatnonzero((np.diff(ordered, axis=0, prepend=-1) != 0).any(axis=1))
    rows, turned = ordered[begins], np.where(flipped, -1, 1)[order]
    net = np.add.reduceat(turned, begins) if len(begins) else np.zeros(0, np.int64)
    rows = np.where((net < 0)[:, None], rows[:, [0, 2, 1]], rows)
    rows = np.repeat(rows, np.abs(net), axis=0)
    order = np.lexsort((rows[:, 2], rows[:, 1], rows[:, 0]))
    return np.asarray(rows[order].astype(np.int32))


def stitched(blocks: Iterable[MeshBlock]) -> Mesh:
    """One welded mesh of blocks of any levels, for readers of `mesh/stream`: no stage calls it.

    It is free of cracks where the blocks belong together. Vertices of one cluster share the
    place of the newest block that has it. A rim vertex goes to its cluster's place at level 2 where
    a level-2 block has that cluster, else at level 1.
    """
    there = [block for block in blocks if len(block.vertices)]
    if not there:
        return Mesh.empty()
    own = np.concatenate([_nodes(block) for block in there])
    nodes, rims = own, np.concatenate([_on_rim(block) for block in there])
    for level in (1, 2):
        nodes = _moved_to_clusters(nodes, rims, level)
    version = np.repeat([b.version for b in there], [len(b.vertices) for b in there])
    order = np.lexsort((-version, (nodes != own).any(axis=1)))
    _, first, number = np.unique(nodes[order], axis=0, return_index=True, return_inverse=True)
    of_vertex = np.empty(len(nodes), np.int64)
    of_vertex[order] = number.reshape(-1)
    source = order[first]
    starts = np.cumsum([0] + [len(block.vertices) for block in there[:-1]])
    faces = np.concatenate(
        [block.faces + start for block, start in zip(there, starts, strict=True)]
    )
    return Mesh(
        vertices=np.concatenate([block.vertices for block in there])[source],
        colours=np.concatenate([block.colours for block in there])[source],
        faces=canonical_faces(of_vertex[faces]),
    )


def _nodes(block: MeshBlock) -> Int[np.ndarray, "v 5"]:
    """What each vertex is the same as, in all blocks: level, place on its lattice, axis."""
    index = np.array(block.index, np.int64)
    if block.level and block.clusters is not None:
        side = CLUSTERS[block.level]
        k = block.clusters.astype(np.int64)
        local = np.stack([k % side, k // side % side, k // side**2], axis=-1)
        place, axis = index * (side - 1) + local, np.zeros(len(k), np.int64)
    elif block.edges is not None:
        place, axis = 8 * index + _points(block.edges), block.edges.astype(np.int64) % 3
    else:
        raise ValueError("a block without its lattice form cannot be stitched")
    return np.column_stack([np.full(len(axis), block.level), place, axis])


def _on_rim(block: MeshBlock) -> Bool[np.ndarray, "v"]:
    """Vertices that another block could have, too; those of level 2 move nowhere."""
    if block.edges is None:
        assert block.clusters is not None
        side, k = CLUSTERS[block.level], block.clusters.astype(np.int64)
        local = np.stack([k % side, k // side % side, k // side**2], axis=-1)
        return np.asarray((local % (side - 1) == 0).any(axis=1))
    points = _points(block.edges) % (POINTS - 1) == 0
    points[np.arange(len(points)), block.edges % 3] = False
    return np.asarray(points.any(axis=1))


def _moved_to_clusters(
    nodes: Int[np.ndarray, "v 5"], rims: Bool[np.ndarray, "v"], level: int
) -> Int[np.ndarray, "v 5"]:
    """Nodes of finer levels on rims, at the clusters of `level` where a block has those."""
    finer = rims & (nodes[:, 0] < level)
    place = nodes[:, 1:4].copy()
    for below in range(level):
        rises = nodes[:, 0] <= below
        place[rises] = (place[rises] + 1) >> 1
    goal = np.column_stack([np.full(len(nodes), level), place, np.zeros(len(nodes), np.int64)])
    known = np.unique(nodes[nodes[:, 0] == level], axis=0)
    both, number = np.unique(np.concatenate([known, goal]), axis=0, return_inverse=True)
    is_known = np.zeros(len(both), bool)
    is_known[number.reshape(-1)[: len(known)]] = True
    hit = finer & is_known[number.reshape(-1)[len(known) :]]
    return np.where(hit[:, None], goal, nodes)


def _cluster_places(points: Int[np.ndarray, "n 3"], level: int) -> Int[np.ndarray, "n 3"]:
    """Cluster of vertices on edges from `points`; the share along the edge changes nothing."""
    for _ in range(level):
        points = (points + 1) >> 1
    return points


def _points(edges: np.ndarray) -> Int[np.ndarray, "n 3"]:
    p = edges.astype(np.int64) // 3
    return np.stack([p % POINTS, p // POINTS % POINTS, p // POINTS**2], axis=-1)
