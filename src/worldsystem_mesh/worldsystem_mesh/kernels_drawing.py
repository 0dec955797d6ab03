# SPDX-License-Identifier: Apache-2.0
"""Warp kernel that draws triangles from a surface's code (`kernels_surface`).

Twin in plain numpy: `reference.drawn`.
"""
# mypy: disable-error-code="untyped-decorator, misc, index"

from __future__ import annotations

import warp as wp

from worldsystem_mesh.kernels_surface import SHARE_STEPS, Code, Tables

wp.set_module_options({"enable_backward": False, "max_unroll": 1})


@wp.struct
class Drawing:
    """Triangles of blocks: where block i's faces begin, and room for vertices and faces."""

    voxel: wp.float64
    index: wp.array2d[wp.int32]
    face_start: wp.array[wp.int32]
    vertex_of_edge: wp.array2d[wp.int16]
    vertices: wp.array[wp.vec3]
    faces: wp.array[wp.vec3i]


@wp.kernel
def draw_surface(first: wp.int32, tables: Tables, code: Code, out: Drawing) -> None:
    """Vertices [world units] and faces (numbered within their block) of block i from its code.

    A place is worked out from the lattice of the whole map in 64 bits, so that neighbours get the
    same one.
    """
    i = first + wp.tid()
    edges = code.edges
    shares = code.shares
    vertex_of_edge = out.vertex_of_edge
    vertices = out.vertices
    voxel = out.voxel
    v0 = code.vertex_start[i]
    v1 = code.vertex_start[i + 1]
    x0 = out.index[i, 0] * 8
    y0 = out.index[i, 1] * 8
    z0 = out.index[i, 2] * 8
    none = wp.float64(0.0)
    for at in range(v0, v1):
        edge = wp.int32(edges[at])
        vertex_of_edge[i, edge] = wp.int16(at - v0)
        point = edge // 3
        axis = edge - point * 3
        z = point // 81
        y = (point - z * 81) // 9
        x = point - z * 81 - y * 9
        share = wp.float64(shares[at]) * wp.float64(1.0 / SHARE_STEPS)
        px = wp.float64(x0 + x) + wp.where(axis == 0, share, none)
        py = wp.float64(y0 + y) + wp.where(axis == 1, share, none)
        pz = wp.float64(z0 + z) + wp.where(axis == 2, share, none)
        vertices[at] = wp.vec3(
            wp.float32(px * voxel), wp.float32(py * voxel), wp.float32(pz * voxel)
        )
    cells = code.cells
    cases = code.cases
    triangle_count = tables.triangle_count
    triangle = tables.triangle
    faces = out.faces
    face = out.face_start[i]
    c1 = code.cell_start[i + 1]
    for c in range(code.cell_start[i], c1):
        case = wp.int32(cases[c])
        base = wp.int32(cells[c]) * 3
        for t in range(triangle_count[case]):
            corner = triangle[case, t]
            faces[face] = wp.vec3i(
                wp.int32(vertex_of_edge[i, base + corner[0]]),
                wp.int32(vertex_of_edge[i, base + corner[1]]),
                wp.int32(vertex_of_edge[i, base + corner[2]]),
            )
            face += 1
