# SPDX-License-Identifier: Apache-2.0
"""The 256 cases of marching cubes (Lorensen & Cline, SIGGRAPH 1987), derived from one face rule.

Corner c of a cell lies at (c & 1, c >> 1 & 1, c >> 2 & 1); bit c of a case is set when the corner
is inside (signed distance < 0). On each face of the cell, every run of inside corners is cut off
by one segment. The rule looks at the face alone, so both cells that share a face draw the same
segments on it: no cracks. Segments join to closed loops, which are cut into triangle fans whose
normals point outside (to positive distance).
"""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import numpy as np
from jaxtyping import Int32

Edge = tuple[int, int]

EDGES: tuple[Edge, ...] = tuple(
    (corner, corner | 1 << axis)
    for axis in range(3)
    for corner in range(8)
    if not corner >> axis & 1
)
"""The twelve edges as (low corner, high corner); four along x, then y, then z."""


def _faces() -> list[list[int]]:
    """Corners of the six faces, counter-clockwise when seen from outside the cell."""
    faces = []
    for axis in range(3):
        u, v = (axis + 1) % 3, (axis + 2) % 3
        for side in (0, 1):
            ring = [side << axis | i << u | j << v for i, j in ((0, 0), (1, 0), (1, 1), (0, 1))]
            faces.append(ring if side else ring[::-1])
    return faces


def _edge_between(a: int, b: int) -> int:
    return EDGES.index((min(a, b), max(a, b)))


def _segments(case: int) -> dict[int, int]:
    """Edge → next edge: on each face, from where its rim enters a run of inside corners to where
    it leaves it."""
    following: dict[int, int] = {}
    for ring in _faces():
        inside = [bool(case >> corner & 1) for corner in ring]
        for i in range(4):
            j = (i + 1) % 4
            if inside[i] or not inside[j]:
                continue
            while inside[(j + 1) % 4]:
                j = (j + 1) % 4
            entered = _edge_between(ring[i], ring[(i + 1) % 4])
            following[entered] = _edge_between(ring[j], ring[(j + 1) % 4])
    return following


def _triangles(case: int) -> list[tuple[int, int, int]]:
    """Triangles of one case as triples of edges."""
    following = _segments(case)
    triangles = []
    while following:
        loop = [next(iter(following))]
        while (after := following.pop(loop[-1])) != loop[0]:
            loop.append(after)
        triangles += _fan(loop)
    return triangles


def _fan(loop: list[int]) -> list[tuple[int, int, int]]:
    """Cut a loop into triangles from the first start whose diagonals stay inside the cell.

    A diagonal within a face could be drawn by the neighbour too: an edge of four triangles.
    """
    for turn in range(len(loop)):
        apex, *others = loop[turn:] + loop[:turn]
        if not any(_share_a_face(apex, edge) for edge in others[1:-1]):
            break
    return [(apex, a, b) for a, b in pairwise(others)]


def _share_a_face(a: int, b: int) -> bool:
    corners = {*EDGES[a], *EDGES[b]}
    return any(corners <= set(ring) for ring in _faces())


@cache
def case_triangles() -> tuple[tuple[tuple[int, int, int], ...], ...]:
    """For each of the 256 cases, its triangles as triples of edge numbers."""
    return tuple(tuple(_triangles(case)) for case in range(256))


def triangle_count_table() -> Int32[np.ndarray, "256"]:
    """Number of triangles of each case."""
    return np.array([len(triangles) for triangles in case_triangles()], dtype=np.int32)


def edge_table() -> Int32[np.ndarray, "256 e"]:
    """Edges of each case's triangles, three per triangle, padded with -1."""
    widest = 3 * int(triangle_count_table().max())
    table = np.full((256, widest), -1, dtype=np.int32)
    for case, triangles in enumerate(case_triangles()):
        table[case, : 3 * len(triangles)] = np.array(triangles, dtype=np.int32).reshape(-1)
    return table


def edge_offset_table(points_per_side: int) -> Int32[np.ndarray, "12"]:
    """What to add to 3 × (number of a cell's low point) to get the number of each of its edges.

    Points of a lattice are numbered x fastest; edge 3 p + a starts at point p along axis a.
    """
    n = points_per_side
    offsets = [
        3 * ((low & 1) + n * (low >> 1 & 1) + n * n * (low >> 2)) + ((low ^ high).bit_length() - 1)
        for low, high in EDGES
    ]
    return np.array(offsets, dtype=np.int32)
