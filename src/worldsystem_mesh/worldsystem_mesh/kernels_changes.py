# SPDX-License-Identifier: Apache-2.0
"""Warp kernels that say which blocks' surfaces moved enough to be drawn again."""
# mypy: disable-error-code="untyped-decorator, misc, index, operator"

from __future__ import annotations

import warp as wp

from worldsystem_mesh.kernels_turns import Turns, first_turn, next_turn
from worldsystem_mesh.kernels_volume import (
    DIRTY,
    RIM_SAMPLES,
    SDF_UNITS,
    UNKNOWN,
    Volume,
    block_key,
    find_block,
)

wp.set_module_options({"enable_backward": False, "max_unroll": 1, "fuse_fp": False})

COMMITTED = -1
"""`Volume.step` of a block between the kernels that commit it and the one that lists it."""


COMMIT_RIM = f"""
    using namespace wp;
    const int16* held = sdf.data + size_t(s) * 512;
    const uint32* seen = paint.data + size_t(s) * 512;
    int16* kept = rim.data + size_t(s) * {RIM_SAMPLES};
    const uint32 least = uint32(min_weight) << 24;
    int16 sure[512];
    for (int o = 0; o < 512; ++o) {{
        const int16 drawn = held[o] == 0 ? int16(1) : held[o];
        sure[o] = seen[o] >= least ? drawn : int16({UNKNOWN});
    }}
    for (int yx = 0; yx < 64; ++yx) *kept++ = sure[yx];
    for (int z = 1; z < 8; ++z) for (int x = 0; x < 8; ++x) *kept++ = sure[z * 64 + x];
    for (int z = 1; z < 8; ++z) for (int y = 1; y < 8; ++y) *kept++ = sure[z * 64 + y * 8];
"""


@wp.func_native(COMMIT_RIM)
def commit_rim(
    sdf: wp.array2d[wp.int16],
    paint: wp.array2d[wp.uint32],
    rim: wp.array2d[wp.int16],
    s: wp.int32,
    min_weight: wp.int32,
) -> None:
    """Copy the samples on the low faces of slot s to where the drawing reads them.

    Order: face z = 0 (y, x); then y = 0 (z from 1, x); then x = 0 (z and y from 1). Of all voxels
    at once, eight a step, and then the faces: half the time of reading the faces voxel by voxel.
    """


@wp.func
def draw_again(volume: Volume, b: wp.int32) -> None:
    """Commit the block's surface and mark it for `list_dirty`."""
    volume.change_drawn[b] = volume.change[b]
    v = volume.voxels
    commit_rim(v.sdf, v.paint, v.rim, volume.slot[b], v.min_weight)
    volume.step[b] = wp.int32(COMMITTED)


@wp.func
def add_change(volume: Volume, b: wp.int32, order: wp.int32) -> None:
    """Add up how far the surface of the block, fused into up to view `order`, moved; beyond the
    gate it is to be drawn again. One without a slot was not fused into."""
    if volume.slot[b] < 0:
        return
    volume.fused_at[b] = wp.max(volume.fused_at[b], order)
    move = volume.step[b]
    if move == 0:
        return
    volume.step[b] = 0
    volume.change[b] = volume.change[b] + float(move) / SDF_UNITS
    if volume.change[b] - volume.change_drawn[b] > volume.gate:
        draw_again(volume, b)


@wp.kernel
def add_changes(
    turns: Turns, volume: Volume, blocks: wp.array[wp.int32], orders: wp.array[wp.int32]
) -> None:
    """`add_change` for each of the blocks and the view that it was fused into last."""
    i = first_turn(turns, wp.tid())
    while i < turns.count:
        add_change(volume, blocks[i], orders[i])
        i = next_turn(turns, i)


@wp.kernel
def add_pending(turns: Turns, volume: Volume, blocks: wp.array[wp.int32]) -> None:
    """Blocks whose surface moved at all since they were drawn are to be drawn again."""
    i = first_turn(turns, wp.tid())
    while i < turns.count:
        b = blocks[i]
        if volume.slot[b] >= 0 and volume.change[b] > volume.change_drawn[b]:
            draw_again(volume, b)
        i = next_turn(turns, i)


@wp.kernel
def list_dirty(volume: Volume, blocks: wp.array[wp.int32]) -> None:
    """Put those marked, and their seven lower neighbours, on the list; one thread on a CPU.

    A cell belongs to the block of its low corner, so it reads samples of upper neighbours.
    """
    b = blocks[wp.tid()]
    if volume.step[b] != COMMITTED:
        return
    volume.step[b] = 0
    for corner in range(8):
        key = block_key(
            volume.coords[b, 0] - (corner & 1),
            volume.coords[b, 1] - ((corner >> 1) & 1),
            volume.coords[b, 2] - (corner >> 2),
        )
        lower = find_block(volume.keys, volume.block_of_key, key)
        if lower >= 0 and wp.atomic_max(volume.is_dirty, lower, 1) == 0:
            at = wp.atomic_add(volume.counters, DIRTY, 1)
            volume.dirty[at] = lower


@wp.kernel
def clear_dirty(volume: Volume, blocks: wp.array[wp.int32]) -> None:
    volume.is_dirty[blocks[wp.tid()]] = 0
