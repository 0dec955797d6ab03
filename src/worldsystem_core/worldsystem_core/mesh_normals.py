# SPDX-License-Identifier: Apache-2.0
"""Normals of a mesh's vertices."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32, Int32
from numba import njit


def vertex_normals(
    vertices: Float32[np.ndarray, "v 3"], faces: Int32[np.ndarray, "f 3"]
) -> Float32[np.ndarray, "v 3"]:
    """Unit normals, each the area-weighted mean of its faces'; (0, 0, 1) where there is no area.

    Runs without the interpreter's lock; the twin in plain numpy is in its test.
    """
    normals = np.zeros((len(vertices), 3), np.float32)
    _summed(np.ascontiguousarray(vertices), np.ascontiguousarray(faces), normals)
    return normals


@njit(cache=True, nogil=True)
def _summed(vertices, faces, normals):  # type: ignore[no-untyped-def]
    """Add up the faces' normals in 64 bits, and make them one long."""
    sums = np.zeros((len(vertices), 3))
    for f in range(len(faces)):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        px, py, pz = vertices[a, 0], vertices[a, 1], vertices[a, 2]
        ux, uy, uz = vertices[b, 0] - px, vertices[b, 1] - py, vertices[b, 2] - pz
        vx, vy, vz = vertices[c, 0] - px, vertices[c, 1] - py, vertices[c, 2] - pz
        nx, ny, nz = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
        for corner in (a, b, c):
            sums[corner, 0] += nx
            sums[corner, 1] += ny
            sums[corner, 2] += nz
    for i in range(len(vertices)):
        length = np.sqrt(sums[i, 0] ** 2 + sums[i, 1] ** 2 + sums[i, 2] ** 2)
        if length > 0:
            for axis in range(3):
                normals[i, axis] = sums[i, axis] / length
        else:
            normals[i, 2] = 1.0
