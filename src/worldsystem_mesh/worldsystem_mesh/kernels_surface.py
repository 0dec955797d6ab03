# SPDX-License-Identifier: Apache-2.0
"""Warp kernels of the extraction: count what the samples say; `kernels_emission` writes it.

Points of a block's 9³ samples (`kernels_sampling`) are numbered x fastest, and edge 3 p + a starts
at point p along axis a. A surface is kept as its code: the crossed cells and their marching-cubes
cases, and per vertex its edge, its share of the edge and its colour, cells and edges ascending.
Twins in plain numpy: `reference.surface`.
"""
# mypy: disable-error-code="untyped-decorator, misc, index"

from __future__ import annotations

import warp as wp

from worldsystem_mesh.kernels_sampling import Batch, find_slot, sample
from worldsystem_mesh.kernels_turns import Turns, first_turn, next_turn
from worldsystem_mesh.kernels_volume import Volume

wp.set_module_options({"enable_backward": False, "max_unroll": 1, "fuse_fp": False})


@wp.struct
class Tables:
    """Marching cubes, per case: its triangles with the edges of their corners, relative to the
    cell's first. And per point of a block's 9³ who holds it (`packed_places`)."""

    triangle_count: wp.array[wp.int32]
    triangle: wp.array2d[wp.vec3i]
    place_of_point: wp.array[wp.uint32]


COUNT_BLOCK = """
    using namespace wp;
#ifdef __CUDA_ARCH__
    auto lowest = [](int bits) { return __ffs(bits) - 1; };
#else
    auto lowest = [](int bits) { return __builtin_ctz(bits); };
#endif
    const int16* in = &index(inside, i, 0);
    const int16* sure = &index(known, i, 0);
    int* found = &index(counts, i, 0);
    int somewhere = 0;
    for (int row = 0; row < 81; ++row) somewhere |= in[row];
    if (somewhere == 0) {  // all air
        found[0] = found[1] = found[2] = 0;
        return;
    }

    // crossed cells, a bit each: corners known and of two signs; with a border of none
    uint16 crossed[10][10];
    for (int z = 0; z < 10; ++z) for (int y = 0; y < 10; ++y) crossed[z][y] = 0;
    for (int z = 0; z < 8; ++z) for (int y = 0; y < 8; ++y) {
        const int16* a = in + z * 9 + y;
        const int16* k = sure + z * 9 + y;
        const int any = a[0] | a[1] | a[9] | a[10], all = a[0] & a[1] & a[9] & a[10];
        const int whole = k[0] & k[1] & k[9] & k[10];
        const int cut = (any | any >> 1) & ~(all & all >> 1);
        crossed[z + 1][y + 1] = uint16(cut & whole & whole >> 1 & 255);
    }

    uint16* listed = &index(cell, i, 0);
    uint8* case_of = &index(case_of_cell, i, 0);
    int cells = 0, faces = 0;
    for (int z = 0; z < 8; ++z) for (int y = 0; y < 8; ++y) {
        const int row = z * 9 + y, a = in[row], b = in[row + 1], c = in[row + 9], d = in[row + 10];
        for (int left = crossed[z + 1][y + 1]; left != 0; left &= left - 1) {
            const int x = lowest(left);
            const int low = (a >> x & 3) | (b >> x & 3) << 2;
            const int shape = low | (c >> x & 3) << 4 | (d >> x & 3) << 6;
            listed[cells] = uint16(row * 9 + x);
            case_of[cells] = uint8(shape);
            faces += triangle_count.data[shape];
            ++cells;
        }
    }

    // edges of crossed cells whose ends are on two sides, in ascending order
    uint16* named = &index(edge_of_vertex, i, 0);
    int vertices = 0;
    if (cells != 0) for (int z = 0; z < 9; ++z) for (int y = 0; y < 9; ++y) {
        const int row = z * 9 + y, here = in[row];
        const int own = crossed[z + 1][y + 1], beside = crossed[z + 1][y];
        const int under = crossed[z][y + 1], diagonal = crossed[z][y];
        if ((own | beside | under | diagonal) == 0) continue;
        const int by_y = own | under, by_z = own | beside;  // 0 where y or z is 8
        const int along_x = (here ^ here >> 1) & (own | beside | under | diagonal);
        const int along_y = by_y ? (here ^ in[row + 1]) & (by_y | by_y << 1) : 0;
        const int along_z = by_z ? (here ^ in[row + 9]) & (by_z | by_z << 1) : 0;
        for (int left = along_x | along_y | along_z; left != 0; left &= left - 1) {
            const int x = lowest(left), edge = 3 * (row * 9 + x);
            named[vertices] = uint16(edge);
            vertices += along_x >> x & 1;
            named[vertices] = uint16(edge + 1);
            vertices += along_y >> x & 1;
            named[vertices] = uint16(edge + 2);
            vertices += along_z >> x & 1;
        }
    }
    found[0] = vertices;
    found[1] = cells;
    found[2] = faces;
"""


@wp.func_native(COUNT_BLOCK)
def count_block(
    inside: wp.array2d[wp.int16],
    known: wp.array2d[wp.int16],
    triangle_count: wp.array[wp.int32],
    i: wp.int32,
    cell: wp.array2d[wp.uint16],
    case_of_cell: wp.array2d[wp.uint8],
    edge_of_vertex: wp.array2d[wp.uint16],
    counts: wp.array2d[wp.int32],
) -> None:
    """Cells of block i whose corners are known and differ in sign, and the edges that carry their
    vertices. A case has bits of the rows (y, z) = (0, 0), (1, 0), (0, 1), (1, 1), two of each."""


@wp.func
def count(tables: Tables, batch: Batch, i: wp.int32) -> None:
    count_block(
        batch.inside,
        batch.known,
        tables.triangle_count,
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
        sample(volume, batch, i)
        count(tables, batch, i)
        i = next_turn(turns, i)
