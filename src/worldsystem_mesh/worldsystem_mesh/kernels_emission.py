# SPDX-License-Identifier: Apache-2.0
"""Warp kernel of the extraction that writes a surface's code: vertices, cells and a fingerprint.

Twins in plain numpy: `reference.surface`.
"""
# mypy: disable-error-code="untyped-decorator, misc, index"

from __future__ import annotations

import warp as wp

from worldsystem_mesh.kernels_sampling import Batch
from worldsystem_mesh.kernels_surface import Tables
from worldsystem_mesh.kernels_turns import Turns, first_turn, next_turn
from worldsystem_mesh.kernels_volume import RIM_SAMPLES, Volume

wp.set_module_options({"enable_backward": False, "max_unroll": 1, "fuse_fp": False})

SHARE_STEPS = 65536.0
SHARE_MARGIN = 64.0
"""Vertices keep this many steps (0.001 of an edge) off its ends, so that no two coincide."""


@wp.struct
class Code:
    """The surface of the batch: block i owns vertices and cells from its starts on.

    `fingerprint` sums hashes of all that block i emitted.
    """

    vertex_start: wp.array[wp.int32]
    cell_start: wp.array[wp.int32]
    edges: wp.array[wp.uint16]
    shares: wp.array[wp.uint16]
    colours: wp.array[wp.vec3ub]
    cells: wp.array[wp.uint16]
    cases: wp.array[wp.uint8]
    fingerprint: wp.array[wp.int64]


HASH = """
            uint64 h = uint64(int64({place})) * 0x9E3779B97F4A7C15ull;
            h = (h ^ uint64({a})) * 0xBF58476D1CE4E5B9ull;
            h = (h ^ (h >> 29) ^ uint64({b})) * 0x94D049BB133111EBull;
            total += h ^ (h >> 32);
"""
EMIT_BLOCK = (
    f"""
    using namespace wp;
#ifdef __CUDA_ARCH__
    constexpr int n = 1;
#else
    constexpr int n = 32;
#endif
    const int* slot = &index(slots, i, 0);
    const int v0 = vertex_start.data[i], count = vertex_start.data[i + 1] - v0;
    const uint16* named = &index(edge_of_vertex, i, 0);
    uint64 total = 0;
    for (int first = n * lane; first < count; first += n * lanes) {{
        const int some = wp::min(count - first, n);
        int held[2][n];
        uint32 shade[2][n], rgb[n];
        uint16 at[n];

        // the ends of some edges: how far they are from the surface, and their colours
        for (int m = 0; m < some; ++m) {{
            const int edge = named[first + m], low = edge / 3, axis = edge - 3 * low;
            for (int end = 0; end < 2; ++end) {{
                const int point = low + end * (axis == 0 ? 1 : axis == 1 ? 9 : 81);
                const uint32 place = place_of_point.data[point];
                const size_t s = size_t(slot[place & 7]);
                const int16* from = place >> 31 ? rim.data + s * {RIM_SAMPLES} : sdf.data + s * 512;
                held[end][m] = from[place >> 16 & 511];
                shade[end][m] = paint.data[s * 512 + (place >> 3 & 511)];
            }}
        }}
        for (int m = some; m < n; ++m) {{  // the next step takes no fewer
            held[0][m] = 1, held[1][m] = -1;
            shade[0][m] = shade[1][m] = 0u;
        }}

        // where the distance is 0, off the edges' ends, and the colour there; black is none, and
        // no known distance is 0
        for (int m = 0; m < n; ++m) {{
            const float near = held[0][m] == 0 ? 1.0f : float(held[0][m]);
            const float far = held[1][m] == 0 ? 1.0f : float(held[1][m]);
            const float share = near / (near - far);
            const float exact = share * {SHARE_STEPS}f + 0.5f;
            at[m] = uint16(wp::min(wp::max(exact, {SHARE_MARGIN}f), {SHARE_STEPS - SHARE_MARGIN}f));
            const uint32 a = shade[0][m] & 0xFFFFFFu, b = shade[1][m] & 0xFFFFFFu;
            const uint32 low = a != 0u ? a : b, high = b != 0u ? b : a;
            rgb[m] = 0u;
            for (int k = 0; k < 3; ++k) {{
                const float dark = float(int(low >> 8 * k & 255u));
                const float gap = float(int(high >> 8 * k & 255u)) - dark;
                rgb[m] |= uint32(int(dark + gap * share + 0.5f)) << 8 * k;
            }}
        }}
        for (int m = 0; m < some; ++m) {{
            const int edge = named[first + m], v = v0 + first + m;
            edges.data[v] = uint16(edge);
            shares.data[v] = at[m];
            uint8* colour = (uint8*)&colours.data[v];
            for (int k = 0; k < 3; ++k) colour[k] = uint8(rgb[m] >> 8 * k);
"""
    + HASH.format(place="first + m", a="edge | int(at[m]) << 16", b="rgb[m]")
    + """
        }
    }

    // the crossed cells and their cases
    const uint16* listed = &index(cell, i, 0);
    const uint8* case_of = &index(case_of_cell, i, 0);
    const int c0 = cell_start.data[i], crossed = cell_start.data[i + 1] - c0;
    for (int c = lane; c < crossed; c += lanes) {
        cells.data[c0 + c] = listed[c];
        cases.data[c0 + c] = case_of[c];
"""
    + HASH.format(place="~c", a="listed[c]", b="case_of[c]")
    + """
    }
    return int64(total);
"""
)


@wp.func_native(EMIT_BLOCK)
def emit_block(
    sdf: wp.array2d[wp.int16],
    rim: wp.array2d[wp.int16],
    paint: wp.array2d[wp.uint32],
    slots: wp.array2d[wp.int32],
    place_of_point: wp.array[wp.uint32],
    edge_of_vertex: wp.array2d[wp.uint16],
    cell: wp.array2d[wp.uint16],
    case_of_cell: wp.array2d[wp.uint8],
    i: wp.int32,
    lane: wp.int32,
    lanes: wp.int32,
    vertex_start: wp.array[wp.int32],
    cell_start: wp.array[wp.int32],
    edges: wp.array[wp.uint16],
    shares: wp.array[wp.uint16],
    colours: wp.array[wp.vec3ub],
    cells: wp.array[wp.uint16],
    cases: wp.array[wp.uint8],
) -> wp.int64:
    """Vertices and cells lane, lane + lanes, ... of block i; returns their part of the
    fingerprint, which is the sum of the hashes of all."""


@wp.kernel
def emit_surface(
    turns: Turns, volume: Volume, tables: Tables, batch: Batch, code: Code, lanes: wp.int32
) -> None:
    """Write the code of block i; `lanes` threads share a block's vertices and cells.

    A vertex lies where the distance is 0 and has the colour there.
    """
    at, lane = wp.tid()
    i = first_turn(turns, at)
    while i < turns.count:
        part = emit_block(
            volume.voxels.sdf,
            volume.voxels.rim,
            volume.voxels.paint,
            batch.slots,
            tables.place_of_point,
            batch.edge_of_vertex,
            batch.cell,
            batch.case_of_cell,
            i,
            lane,
            lanes,
            code.vertex_start,
            code.cell_start,
            code.edges,
            code.shares,
            code.colours,
            code.cells,
            code.cases,
        )
        wp.atomic_add(code.fingerprint, i, part)
        i = next_turn(turns, i)
