# SPDX-License-Identifier: Apache-2.0
"""Warp kernels that say which blocks' surfaces moved enough to be drawn again."""
# mypy: disable-error-code="untyped-decorator, misc, index, operator"

from __future__ import annotations

import warp as wp

from worldsystem_mesh.kernels_volume import (
    DIRTY,
    SDF_UNITS,
    UNKNOWN,
    Volume,
    block_key,
    find_block,
    weight_of,
)

wp.set_module_options({"enable_backward": False, "max_unroll": 1})


@wp.func
def rim_sample(paint: wp.uint32, sdf: wp.int16, min_weight: wp.int32) -> wp.int16:
    """A voxel's distance as its lower neighbours will read it."""
    if weight_of(paint) < min_weight:
        return wp.int16(UNKNOWN)
    return wp.where(sdf == wp.int16(0), wp.int16(1), sdf)


@wp.func
def commit_rim(
    sdf: wp.array2d[wp.int16],
    paint: wp.array2d[wp.uint32],
    rim: wp.array2d[wp.int16],
    s: wp.int32,
    least: wp.int32,
) -> None:
    """Copy the samples on the block's low faces to where the drawing reads them.

    Order: face z = 0 (y, x); then y = 0 (z from 1, x); then x = 0 (z and y from 1).
    """
    for yx in range(64):
        rim[s, yx] = rim_sample(paint[s, yx], sdf[s, yx], least)
    for z in range(1, 8):
        for x in range(8):
            o = z * 64 + x
            rim[s, 56 + z * 8 + x] = rim_sample(paint[s, o], sdf[s, o], least)
        for y in range(1, 8):
            o = z * 64 + y * 8
            rim[s, 112 + z * 7 + y] = rim_sample(paint[s, o], sdf[s, o], least)


@wp.func
def draw_again(volume: Volume, b: wp.int32) -> None:
    """Commit the block's surface; put it and its seven lower neighbours on the list.

    A cell belongs to the block of its low corner, so it reads samples of upper neighbours.
    """
    volume.change_drawn[b] = volume.change[b]
    v = volume.voxels
    commit_rim(v.sdf, v.paint, v.rim, volume.slot[b], v.min_weight)
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
def note_changes(volume: Volume, blocks: wp.array[wp.int32], order: wp.int32) -> None:
    """Add up how far each block's surface moved; those beyond the gate are to be drawn again;
    one thread on a CPU."""
    b = blocks[wp.tid()]
    volume.fused_at[b] = wp.max(volume.fused_at[b], order)
    move = volume.step[b]
    if move == 0 or volume.slot[b] < 0:
        return
    volume.step[b] = 0
    volume.change[b] = volume.change[b] + float(move) / SDF_UNITS
    if volume.change[b] - volume.change_drawn[b] > volume.gate:
        draw_again(volume, b)


@wp.kernel
def note_pending(volume: Volume, blocks: wp.array[wp.int32]) -> None:
    """Blocks whose surface moved at all since they were drawn are to be drawn again; one thread
    on a CPU."""
    b = blocks[wp.tid()]
    if volume.slot[b] >= 0 and volume.change[b] > volume.change_drawn[b]:
        draw_again(volume, b)


@wp.kernel
def clear_dirty(volume: Volume, blocks: wp.array[wp.int32]) -> None:
    volume.is_dirty[blocks[wp.tid()]] = 0
