# SPDX-License-Identifier: Apache-2.0
"""Joining block meshes into one, and dropping its crumbs, when a whole mesh is exported."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int32
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from worldsystem_core.surface import Mesh


def weld(mesh: Mesh) -> Mesh:
    """Make one vertex of those at the very same position; rim vertices of blocks are such.

    The first of them gives the colour. Vertex order follows position, face order stays.
    """
    if not len(mesh.vertices):
        return mesh
    plain = np.ascontiguousarray(mesh.vertices + np.float32(0.0))  # -0.0 becomes 0.0
    bits = plain.view(np.uint32)
    order = np.lexsort(bits.T[::-1])  # by x, then y, then z; among the same the first comes first
    ordered = bits[order]
    is_new = np.ones(len(order), bool)
    is_new[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    first = order[is_new]
    number = np.empty(len(order), np.int32)
    number[order] = np.cumsum(is_new, dtype=np.int32) - 1
    return Mesh(
        vertices=plain[first],
        colours=mesh.colours[first],
        faces=number[mesh.faces],
    )


def component_of_faces(mesh: Mesh) -> Int32[np.ndarray, "f"]:
    """Number of the connected component (over shared vertices) that each face belongs to."""
    a, b = mesh.faces[:, [0, 1, 2]].reshape(-1), mesh.faces[:, [1, 2, 0]].reshape(-1)
    count = len(mesh.vertices)
    links = coo_array((np.ones(len(a), np.int8), (a, b)), shape=(count, count))
    of_vertex = connected_components(links, directed=False)[1]
    return np.asarray(of_vertex[mesh.faces[:, 0]], dtype=np.int32)


def without_crumbs(mesh: Mesh, min_faces: int) -> Mesh:
    """Drop connected components of fewer than `min_faces` faces, and vertices left unused."""
    if not len(mesh.faces):
        return mesh
    component = component_of_faces(mesh)
    keep = np.bincount(component)[component] >= min_faces
    faces = mesh.faces[keep]
    used = np.zeros(len(mesh.vertices), dtype=bool)
    used[faces.reshape(-1)] = True
    renumbered = np.cumsum(used, dtype=np.int32) - 1
    return Mesh(
        vertices=mesh.vertices[used],
        colours=mesh.colours[used],
        faces=renumbered.astype(np.int32)[faces],
    )
