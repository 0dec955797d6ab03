# SPDX-License-Identifier: Apache-2.0
"""Normals of a mesh's vertices."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32, Int32


def vertex_normals(
    vertices: Float32[np.ndarray, "v 3"], faces: Int32[np.ndarray, "f 3"]
) -> Float32[np.ndarray, "v 3"]:
    """Unit normals, each the area-weighted mean of its faces'; (0, 0, 1) where there is no area."""
    a, b, c = (vertices[faces[:, corner]] for corner in range(3))
    face_normals = np.cross(b - a, c - a)
    corners = faces.reshape(-1)
    summed = np.stack(
        [
            np.bincount(corners, np.repeat(face_normals[:, axis], 3), minlength=len(vertices))
            for axis in range(3)
        ],
        axis=1,
    )
    length = np.linalg.norm(summed, axis=1, keepdims=True)
    flat = ~(length[:, 0] > 0)
    summed[flat], length[flat] = (0.0, 0.0, 1.0), 1.0
    normals: np.ndarray = (summed / length).astype(np.float32)
    return normals
