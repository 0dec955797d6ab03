# SPDX-License-Identifier: Apache-2.0
"""Warp kernels of the extraction: sample and count; `kernels_emission` writes what they find.

Block b's cells need the 9³ samples that begin at its low corner; points of that lattice are
numbered x fastest, and edge 3 p + a starts at point p along axis a. A surface is kept as its code:
the crossed cells and their marching-cubes cases, and per vertex its edge, its share of the edge and
its colour. Twins in plain numpy: `reference.surface`.
"""
# mypy: disable-error-code="untyped-decorator, misc, index"

from __future__ import annotations

import warp as wp

from worldsystem_mesh.kernels_turns import Turns, first_turn, next_turn
from worldsystem_mesh.kernels_volume import (
    Volume,
    block_key,
    find_block,
)

wp.set_module_options({"enable_backward": False, "max_unroll": 1, "fuse_fp": False})


@wp.struct
class Tables:
    """Marching cubes, per case: its triangles with the edges of their corners, and each of these
    edges once, in the order in which the triangles first name it. Edges are relative to the cell's
    first."""

    triangle_count: wp.array[wp.int32]
    triangle: wp.array2d[wp.vec3i]
    edge_count: wp.array[wp.int32]
    edge: wp.array2d[wp.int32]


@wp.struct
class Batch:
    """What counting leaves for emitting, per block of the batch; `slots` are those of the block
    and its seven upper neighbours, `inside` and `known` bit masks per row of nine samples,
    `counts` the numbers of vertices, cells and faces."""

    slots: wp.array2d[wp.int32]
    inside: wp.array2d[wp.int16]
    known: wp.array2d[wp.int16]
    edge_of_vertex: wp.array2d[wp.uint16]
    cell: wp.array2d[wp.uint16]
    case_of_cell: wp.array2d[wp.uint8]
    counts: wp.array2d[wp.int32]


@wp.func
def find_slot(volume: Volume, b: wp.int32, batch: Batch, i: wp.int32, corner: wp.int32) -> None:
    """Slot of block i of the batch, number b, or of an upper neighbour; negative: there is none."""
    if corner == 0:
        batch.slots[i, 0] = volume.slot[b]
        return
    key = block_key(
        volume.coords[b, 0] + (corner & 1),
        volume.coords[b, 1] + ((corner >> 1) & 1),
        volume.coords[b, 2] + (corner >> 2),
    )
    upper = find_block(volume.keys, volume.block_of_key, key)
    batch.slots[i, corner] = wp.int32(-1)
    if upper >= 0:
        batch.slots[i, corner] = volume.slot[upper]


@wp.kernel
def find_slots(volume: Volume, blocks: wp.array[wp.int32], batch: Batch) -> None:
    """Slots of each block and of its seven upper neighbours; on CUDA."""
    i, corner = wp.tid()
    find_slot(volume, blocks[i], batch, i, corner)


# Loops on plain pointers: Warp's own language works out each element's address anew, and a compiler
# makes no vector instructions of its loops.
RIM_AT = "(z == 0 ? y * 8 + x : (y == 0 ? 56 + z * 8 + x : 112 + z * 7 + y))"
"""Where `Volume.rim` keeps a sample with x, y or z = 0."""

SAMPLE_BLOCK = f"""
    using namespace wp;
    const int* slot = &index(slots, i, 0);
    int16* row_inside = &index(inside, i, 0);
    int16* row_known = &index(known, i, 0);
    for (int row = lane; row < 81; row += lanes) {{
        const int high_z = row / 9, high_y = row - 9 * high_z;
        const int corner = ((high_y >> 3) << 1) | ((high_z >> 3) << 2);
        const int x = 0, y = high_y & 7, z = high_z & 7;
        const int s = slot[corner], far = slot[corner | 1], low = {RIM_AT};
        int sure = 0, below = 0;
        if (s >= 0 && (y == 0 || z == 0)) {{
            const int16* at = &index(rim, s, low);
            for (int k = 0; k < 8; ++k) sure |= (at[k] != 0 ? 1 : 0) << k;
            for (int k = 0; k < 8; ++k) below |= (at[k] < 0 ? 1 : 0) << k;
        }} else if (s >= 0) {{
            const uint32* held = &index(paint, s, (z * 8 + y) * 8);
            const int16* at = &index(sdf, s, (z * 8 + y) * 8);
            for (int k = 1; k < 8; ++k) sure |= (held[k] >= least ? 1 : 0) << k;
            for (int k = 1; k < 8; ++k) below |= (at[k] < 0 ? 1 : 0) << k;
            const int first = index(rim, s, low);
            below = (below & sure) | (first < 0 ? 1 : 0);
            sure |= first != 0 ? 1 : 0;
        }}
        if (far >= 0) {{
            const int last = index(rim, far, low);
            sure |= last != 0 ? 256 : 0;
            below |= last < 0 ? 256 : 0;
        }}
        row_inside[row] = int16(below);
        row_known[row] = int16(sure);
    }}
"""


@wp.func_native(SAMPLE_BLOCK)
def sample_block(
    sdf: wp.array2d[wp.int16],
    paint: wp.array2d[wp.uint32],
    rim: wp.array2d[wp.int16],
    slots: wp.array2d[wp.int32],
    i: wp.int32,
    least: wp.uint32,
    lane: wp.int32,
    lanes: wp.int32,
    inside: wp.array2d[wp.int16],
    known: wp.array2d[wp.int16],
) -> None:
    """Rows lane, lane + lanes, ... of block i. A voxel is known when its paint is at least `least`,
    because the weight is its highest byte; a rim sample when it is not `UNKNOWN`, which is 0."""


@wp.func
def sample(volume: Volume, batch: Batch, i: wp.int32, lane: wp.int32, lanes: wp.int32) -> None:
    v = volume.voxels
    least = wp.uint32(v.min_weight) << wp.uint32(24)
    sample_block(
        v.sdf, v.paint, v.rim, batch.slots, i, least, lane, lanes, batch.inside, batch.known
    )


@wp.kernel
def sample_rows(volume: Volume, batch: Batch, lanes: wp.int32) -> None:
    """Who is inside and who is known in the rows of nine samples, `lanes` threads a block; on
    CUDA."""
    i, lane = wp.tid()
    sample(volume, batch, i, lane, lanes)


COUNT_BLOCK = """
    using namespace wp;
    const int16* in = &index(inside, i, 0);
    const int16* sure = &index(known, i, 0);
    const int* triangles = triangle_count.data;
    const int* crossings = edge_count.data;
    uint16* listed = &index(cell, i, 0);
    uint8* case_of = &index(case_of_cell, i, 0);
    uint16* named = &index(edge_of_vertex, i, 0);
    uint32 is_named[69];  // a bit for each of the 2187 edges
    int cells = 0, vertices = 0, faces = 0;
    for (int yz = 0; yz < 64; ++yz) {
        const int row = (yz >> 3) * 9 + (yz & 7);
        const int a = in[row], b = in[row + 1], c = in[row + 9], d = in[row + 10];
        const int any = a | b | c | d, all = a & b & c & d;
        if (any == 0) continue;  // most rows
        const int whole = sure[row] & sure[row + 1] & sure[row + 9] & sure[row + 10];
        const int crossed = (any | any >> 1) & ~(all & all >> 1) & whole & whole >> 1 & 255;
        if (crossed != 0 && cells == 0) for (int k = 0; k < 69; ++k) is_named[k] = 0;
        for (int x = 0; crossed >> x; ++x) {
            if (!(crossed >> x & 1)) continue;
            const int point = row * 9 + x;
            const int low = (a >> x & 3) | (b >> x & 3) << 2;
            const int shape = low | (c >> x & 3) << 4 | (d >> x & 3) << 6;
            listed[cells] = uint16(point);
            case_of[cells] = uint8(shape);
            ++cells;
            faces += triangles[shape];
            const int* relative = &index(edge_of_case, shape, 0);
            for (int e = 0; e < crossings[shape]; ++e) {
                const int edge = point * 3 + relative[e];
                const uint32 bit = 1u << (edge & 31);
                named[vertices] = uint16(edge);
                vertices += is_named[edge >> 5] & bit ? 0 : 1;
                is_named[edge >> 5] |= bit;
            }
        }
    }
    int* found = &index(counts, i, 0);
    found[0] = vertices;
    found[1] = cells;
    found[2] = faces;
"""


@wp.func_native(COUNT_BLOCK)
def count_block(
    inside: wp.array2d[wp.int16],
    known: wp.array2d[wp.int16],
    triangle_count: wp.array[wp.int32],
    edge_count: wp.array[wp.int32],
    edge_of_case: wp.array2d[wp.int32],
    i: wp.int32,
    cell: wp.array2d[wp.uint16],
    case_of_cell: wp.array2d[wp.uint8],
    edge_of_vertex: wp.array2d[wp.uint16],
    counts: wp.array2d[wp.int32],
) -> None:
    """Cells of block i whose corners are known and differ in sign; rows without are refused at
    once. A case has bits of the rows (y, z) = (0, 0), (1, 0), (0, 1), (1, 1), two of each."""


@wp.func
def count(tables: Tables, batch: Batch, i: wp.int32) -> None:
    count_block(
        batch.inside,
        batch.known,
        tables.triangle_count,
        tables.edge_count,
        tables.edge,
        i,
        batch.cell,
        batch.case_of_cell,
        batch.edge_of_vertex,
        batch.counts,
    )


@wp.kernel
def count_surface(tables: Tables, batch: Batch) -> None:
    """List the cells that the surface crosses, number their vertices, count their triangles; on
    CUDA."""
    count(tables, batch, wp.tid())


@wp.kernel
def survey_blocks(
    turns: Turns, volume: Volume, blocks: wp.array[wp.int32], tables: Tables, batch: Batch
) -> None:
    """`find_slots`, `sample_rows` and `count_surface` block by block; on a CPU, where one launch is
    shared sooner than three, and a block's samples stay in the cache."""
    i = first_turn(turns, wp.tid())
    while i < turns.count:
        for corner in range(8):
            find_slot(volume, blocks[i], batch, i, corner)
        sample(volume, batch, i, 0, 1)
        count(tables, batch, i)
        i = next_turn(turns, i)
