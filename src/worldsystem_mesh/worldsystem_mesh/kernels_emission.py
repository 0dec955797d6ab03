# SPDX-License-Identifier: Apache-2.0
"""Warp kernel of the extraction that writes a surface's code: vertices, cells and a fingerprint.

Twins in plain numpy: `reference.surface`.
"""
# mypy: disable-error-code="untyped-decorator, misc, index"

from __future__ import annotations

import warp as wp

from worldsystem_mesh.kernels_surface import RIM_AT, Batch
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
    const int* slot = &index(slots, i, 0);
    const uint16* named = &index(edge_of_vertex, i, 0);
    const int v0 = vertex_start.data[i], count = vertex_start.data[i + 1] - v0;
    uint64 total = 0;
    for (int m = lane; m < count; m += lanes) {{
        const int edge = named[m], point = edge / 3, axis = edge - 3 * point;
        float distance[2];
        uint32 shade[2];

        // the edge's two ends: who holds them, how far they are from the surface, their colours
        for (int end = 0; end < 2; ++end) {{
            const int high_z = point / 81 + (end & (axis == 2));
            const int high_y = point / 9 % 9 + (end & (axis == 1));
            const int high_x = point % 9 + (end & (axis == 0));
            const int corner = (high_x >> 3) | ((high_y >> 3) << 1) | ((high_z >> 3) << 2);
            const size_t s = size_t(slot[corner]);
            const int x = high_x & 7, y = high_y & 7, z = high_z & 7;
            const int o = (z * 8 + y) * 8 + x;
            const bool on_rim = (x == 0) | (y == 0) | (z == 0);
            const int16* from = on_rim ? rim.data + s * {RIM_SAMPLES} : sdf.data + s * 512;
            const int held = from[on_rim ? {RIM_AT} : o];
            distance[end] = held == 0 ? 1.0f : float(held);  // of a known voxel, as drawn: never 0
            shade[end] = paint.data[s * 512 + o];
        }}

        // where the distance is 0, off the edge's ends, and the colour there; black is none
        const float share = distance[0] / (distance[0] - distance[1]);
        const float exact = share * {SHARE_STEPS}f + 0.5f;
        const int at = int(wp::min(wp::max(exact, {SHARE_MARGIN}f), {SHARE_STEPS - SHARE_MARGIN}f));
        const uint32 low = (shade[0] & 0xFFFFFFu) != 0u ? shade[0] : shade[1];
        const uint32 high = (shade[1] & 0xFFFFFFu) != 0u ? shade[1] : shade[0];
        int rgb[4];
        for (int k = 0; k < 4; ++k) {{
            const float dark = float(int(low >> 8 * k & 255u));
            rgb[k] = int(dark + (float(int(high >> 8 * k & 255u)) - dark) * share + 0.5f);
        }}
        edges.data[v0 + m] = uint16(edge);
        shares.data[v0 + m] = uint16(at);
        colours.data[v0 + m] = vec_t<3, uint8>(uint8(rgb[0]), uint8(rgb[1]), uint8(rgb[2]));
"""
    + HASH.format(place="m", a="edge | at << 16", b="rgb[0] << 16 | rgb[1] << 8 | rgb[2]")
    + """
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
def emit_surface(turns: Turns, volume: Volume, batch: Batch, code: Code, lanes: wp.int32) -> None:
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
