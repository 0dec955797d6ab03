# SPDX-License-Identifier: Apache-2.0
"""Warp kernels of the extraction's first step: which samples of a block are inside and known.

Block b's cells need the 9³ samples that begin at its low corner, of its own voxels and of its seven
upper neighbours'.
"""
# mypy: disable-error-code="untyped-decorator, misc, index"

from __future__ import annotations

import warp as wp

from worldsystem_mesh.kernels_volume import RIM_SAMPLES, Volume, block_key, find_block

wp.set_module_options({"enable_backward": False, "max_unroll": 1, "fuse_fp": False})


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

SAMPLE_ROWS = f"""
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


@wp.func_native(SAMPLE_ROWS)
def sample_some_rows(
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


@wp.kernel
def sample_rows(volume: Volume, batch: Batch, lanes: wp.int32) -> None:
    """Who is inside and who is known in the rows of nine samples, `lanes` threads a block; on
    CUDA."""
    i, lane = wp.tid()
    v = volume.voxels
    least = wp.uint32(v.min_weight) << wp.uint32(24)
    sample_some_rows(
        v.sdf, v.paint, v.rim, batch.slots, i, least, lane, lanes, batch.inside, batch.known
    )


# For one thread: the 64 rows of a block's own voxels in planes, and those of its neighbours.
SAMPLE_PLANES = f"""
    using namespace wp;
    const int* slot = &index(slots, i, 0);
    int16* row_inside = &index(inside, i, 0);
    int16* row_known = &index(known, i, 0);
    auto bits_of = [](const uint8* ones) {{  // eight bytes of 0 or 1
        uint64 all = 0;
        for (int k = 0; k < 8; ++k) all |= uint64(ones[k]) << 8 * k;
        return int(all * 0x0102040810204080ull >> 56);
    }};
    for (int high_z = 0; high_z < 9; ++high_z) {{
        const int x = 0, z = high_z & 7;
        for (int half = 0; half < 2; ++half) {{  // the rows of one slot: y from 0 to 7, and y = 8
            const int corner = half << 1 | (high_z >> 3) << 2, rows = half ? 1 : 8;
            const int s = slot[corner], far = slot[corner | 1];
            uint8 sure[64], below[64];
            for (int o = 0; o < 64; ++o) sure[o] = below[o] = 0;
            if (s >= 0) {{
                const int16* at = rim.data + size_t(s) * {RIM_SAMPLES} + (z == 0 ? 0 : 56 + z * 8);
                const int held = z == 0 && !half ? 64 : 8;
                for (int o = 0; o < held; ++o) sure[o] = at[o] != 0 ? 1 : 0;
                for (int o = 0; o < held; ++o) below[o] = at[o] < 0 ? 1 : 0;
                if (z != 0 && !half) {{
                    const uint32* seen = paint.data + size_t(s) * 512 + z * 64;
                    const int16* deep = sdf.data + size_t(s) * 512 + z * 64;
                    for (int o = 8; o < 64; ++o) sure[o] = seen[o] >= least ? 1 : 0;
                    for (int o = 8; o < 64; ++o) below[o] = sure[o] & (deep[o] < 0 ? 1 : 0);
                    const int16* side = rim.data + size_t(s) * {RIM_SAMPLES} + 112 + z * 7;
                    for (int y = 1; y < 8; ++y) sure[y * 8] = side[y] != 0 ? 1 : 0;
                    for (int y = 1; y < 8; ++y) below[y * 8] = side[y] < 0 ? 1 : 0;
                }}
            }}
            for (int y = 0; y < rows; ++y) {{
                const int row = high_z * 9 + y + 8 * half, low = {RIM_AT};
                const int last = far >= 0 ? rim.data[size_t(far) * {RIM_SAMPLES} + low] : 0;
                row_known[row] = int16(bits_of(sure + y * 8) | (last != 0 ? 256 : 0));
                row_inside[row] = int16(bits_of(below + y * 8) | (last < 0 ? 256 : 0));
            }}
        }}
    }}
"""


@wp.func_native(SAMPLE_PLANES)
def sample_planes(
    sdf: wp.array2d[wp.int16],
    paint: wp.array2d[wp.uint32],
    rim: wp.array2d[wp.int16],
    slots: wp.array2d[wp.int32],
    i: wp.int32,
    least: wp.uint32,
    inside: wp.array2d[wp.int16],
    known: wp.array2d[wp.int16],
) -> None:
    """All rows of block i, as `sample_some_rows` leaves them; quicker in one thread."""


@wp.func
def sample(volume: Volume, batch: Batch, i: wp.int32) -> None:
    """Who is inside and who is known in block i; for one thread."""
    v = volume.voxels
    least = wp.uint32(v.min_weight) << wp.uint32(24)
    sample_planes(v.sdf, v.paint, v.rim, batch.slots, i, least, batch.inside, batch.known)
