# SPDX-License-Identifier: Apache-2.0
"""Warp kernel that draws triangles from a surface's code (`kernels_emission`).

Twin in plain numpy: `reference.drawn`.
"""
# mypy: disable-error-code="untyped-decorator, misc, index"

from __future__ import annotations

import warp as wp

from worldsystem_mesh.kernels_emission import SHARE_STEPS, Code
from worldsystem_mesh.kernels_surface import Tables
from worldsystem_mesh.kernels_turns import Turns, first_turn, next_turn

wp.set_module_options({"enable_backward": False, "max_unroll": 1, "fuse_fp": False})


@wp.struct
class Drawing:
    """Triangles of blocks: where block i's faces begin, and room for vertices and faces."""

    voxel: wp.float64
    index: wp.array2d[wp.int32]
    face_start: wp.array[wp.int32]
    vertices: wp.array[wp.vec3]
    faces: wp.array[wp.vec3i]


# On plain pointers: Warp's own language works out each element's address anew.
DRAW_BLOCK = f"""
    using namespace wp;
    const int v0 = vertex_start.data[i], v1 = vertex_start.data[i + 1];
    const int c0 = cell_start.data[i], c1 = cell_start.data[i + 1];
    const int x0 = 8 * index(places, i, 0), y0 = 8 * index(places, i, 1);
    const int z0 = 8 * index(places, i, 2);
    int16 number[2187];  // of the vertex on each edge
    for (int at = v0; at < v1; ++at) {{
        const int edge = edges.data[at], point = edge / 3, axis = edge - 3 * point;
        number[edge] = int16(at - v0);
        const double share = double(shares.data[at]) * {1.0 / SHARE_STEPS};
        const double x = double(x0 + point % 9) + (axis == 0 ? share : 0.0);
        const double y = double(y0 + point / 9 % 9) + (axis == 1 ? share : 0.0);
        const double z = double(z0 + point / 81) + (axis == 2 ? share : 0.0);
        float* vertex = (float*)&vertices.data[at];
        vertex[0] = float(x * voxel);
        vertex[1] = float(y * voxel);
        vertex[2] = float(z * voxel);
    }}
    int* face = (int*)&faces.data[face_start.data[i]];
    for (int c = c0; c < c1; ++c) {{
        const int shape = cases.data[c];
        const int16* of_cell = number + 3 * int(cells.data[c]);
        const int* corner = (const int*)&index(triangle, shape, 0);
        for (int k = 0; k < 3 * triangle_count.data[shape]; ++k) *face++ = of_cell[corner[k]];
    }}
"""


@wp.func_native(DRAW_BLOCK)
def draw_block(
    triangle_count: wp.array[wp.int32],
    triangle: wp.array2d[wp.vec3i],
    vertex_start: wp.array[wp.int32],
    cell_start: wp.array[wp.int32],
    edges: wp.array[wp.uint16],
    shares: wp.array[wp.uint16],
    cells: wp.array[wp.uint16],
    cases: wp.array[wp.uint8],
    i: wp.int32,
    voxel: wp.float64,
    places: wp.array2d[wp.int32],
    face_start: wp.array[wp.int32],
    vertices: wp.array[wp.vec3],
    faces: wp.array[wp.vec3i],
) -> None:
    """Block i; its place is worked out from the lattice of the whole map in 64 bits, so that
    neighbours get the same one."""


@wp.kernel
def draw_surface(turns: Turns, tables: Tables, code: Code, out: Drawing) -> None:
    """Vertices [world units] and faces (numbered within their block) of block i from its code."""
    i = first_turn(turns, wp.tid())
    while i < turns.count:
        draw_block(
            tables.triangle_count,
            tables.triangle,
            code.vertex_start,
            code.cell_start,
            code.edges,
            code.shares,
            code.cells,
            code.cases,
            i,
            out.voxel,
            out.index,
            out.face_start,
            out.vertices,
            out.faces,
        )
        i = next_turn(turns, i)
