# SPDX-License-Identifier: Apache-2.0
"""Warp kernels that walk along a view's rays and find its blocks.

On a CPU they run in one thread, because atomics are plain writes there.
"""
# mypy: disable-error-code="untyped-decorator, misc, index, operator"

from __future__ import annotations

import warp as wp

from worldsystem_mesh.kernels_volume import (
    NEVER_IN,
    OUTSIDE,
    PAGED,
    PAGED_OUT,
    TOUCHED,
    View,
    Volume,
    band,
    block_key,
    find_block,
    find_or_add_block,
    is_outside,
)

wp.set_module_options({"enable_backward": False, "max_unroll": 1, "fuse_fp": False})


RECENT_BLOCKS = 4096
"""Places of the blocks met last, 16 along each axis."""

FARTHEST_VOXELS = 131072.0
"""Points farther from their camera are left out: their keyframe's size is wrong by far. From 2^26
voxels on a step along the ray would be rounded away, and the walk never end."""


@wp.func
def is_recent(recent: wp.array[wp.int64], x: wp.int32, y: wp.int32, z: wp.int32) -> wp.bool:
    """Whether this view has met the block already, as far as `recent` still knows; notes it.

    Rays side by side meet the same blocks, and the hash and the blocks' flags do not fit the
    cache. Empty on CUDA, where threads would race for it.
    """
    if recent.shape[0] == 0:
        return False
    key = block_key(x, y, z)
    place = (x & 15) | ((y & 15) << 4) | ((z & 15) << 8)
    if recent[place] == key:
        return True
    recent[place] = key
    return False


@wp.func
def touch(volume: Volume, block: wp.int32, stamp: wp.int32) -> None:
    """Append the block to `touched` unless this stamp has it already."""
    if block < 0 or volume.touched_at[block] >= stamp:
        return
    if wp.atomic_max(volume.touched_at, block, stamp) < stamp:
        at = wp.atomic_add(volume.counters, TOUCHED, 1)
        volume.touched[at] = block
        if volume.slot[block] == PAGED_OUT:
            wp.atomic_add(volume.counters, PAGED, 1)


@wp.func
def ray(view: View, v: wp.int32, u: wp.int32) -> wp.vec3:
    """Direction of a pixel in the world, of unit depth."""
    k = view.intrinsics
    return view.world_from_cam * wp.vec3((float(u) - k[2]) / k[0], (float(v) - k[3]) / k[1], 1.0)


@wp.kernel
def touch_band(
    volume: Volume,
    views: wp.array[View],
    recent: wp.array[wp.int64],
    stride: wp.int32,
    stamp: wp.int32,
) -> None:
    """Touch, adding where new, the blocks along each ray within the band; one thread on a CPU."""
    row, column = wp.tid()
    view = views[0]
    v = row * stride
    u = column * stride
    depth = float(view.depth[v, u]) * view.depth_step
    if depth <= 0.0:
        return
    if depth > FARTHEST_VOXELS:
        wp.atomic_add(volume.counters, OUTSIDE, 1)
        return
    direction = ray(view, v, u)
    half = band(depth, view.truncation, view.depth_noise)
    z = depth - half
    last = wp.vec3i(1 << 29, 0, 0)
    while z < depth + half + 4.0:
        at = (view.eye + wp.min(z, depth + half) * direction) / 8.0
        here = wp.vec3i(
            view.home[0] + wp.int32(wp.floor(at[0])),
            view.home[1] + wp.int32(wp.floor(at[1])),
            view.home[2] + wp.int32(wp.floor(at[2])),
        )
        moved = here - last
        if moved[0] != 0 or moved[1] != 0 or moved[2] != 0:
            last = here
            if is_outside(here[0], here[1], here[2]):
                wp.atomic_add(volume.counters, OUTSIDE, 1)
            elif not is_recent(recent, here[0], here[1], here[2]):
                touch(volume, find_or_add_block(volume, here[0], here[1], here[2]), stamp)
        z += 4.0


@wp.kernel
def touch_free_space(
    volume: Volume,
    views: wp.array[View],
    recent: wp.array[wp.int64],
    stride: wp.int32,
    stamp: wp.int32,
) -> None:
    """Touch the blocks that have voxels between the camera and the band; one thread on a CPU."""
    row, column = wp.tid()
    view = views[0]
    v = row * stride
    u = column * stride
    depth = float(view.depth[v, u]) * view.depth_step
    if depth <= 0.0 or depth > FARTHEST_VOXELS:
        return
    direction = ray(view, v, u)
    z = wp.float32(4.0)
    last = wp.vec3i(1 << 29, 0, 0)
    while z < depth - band(depth, view.truncation, view.depth_noise):
        at = (view.eye + z * direction) / 8.0
        here = wp.vec3i(
            view.home[0] + wp.int32(wp.floor(at[0])),
            view.home[1] + wp.int32(wp.floor(at[1])),
            view.home[2] + wp.int32(wp.floor(at[2])),
        )
        moved = here - last
        if moved[0] != 0 or moved[1] != 0 or moved[2] != 0:
            last = here
            if is_outside(here[0], here[1], here[2]):
                z = depth  # whoever leaves the lattice along a ray does not come back
            elif not is_recent(recent, here[0], here[1], here[2]):
                key = block_key(here[0], here[1], here[2])
                block = find_block(volume.keys, volume.block_of_key, key)
                if block >= 0 and volume.slot[block] != NEVER_IN:
                    touch(volume, block, stamp)
        z += 4.0
