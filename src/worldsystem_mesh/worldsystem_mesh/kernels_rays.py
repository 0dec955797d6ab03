# SPDX-License-Identifier: Apache-2.0
"""Warp kernels that walk along a view's rays and find its blocks.

On a CPU they run in one thread, because atomics are plain writes there.
"""
# mypy: disable-error-code="untyped-decorator, misc, index, operator"

from __future__ import annotations

import warp as wp

from worldsystem_mesh.kernels_volume import (
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
def touch_band(volume: Volume, view: View, stride: wp.int32, stamp: wp.int32) -> None:
    """Touch, adding where new, the blocks along each ray within the band; one thread on a CPU."""
    row, column = wp.tid()
    v = row * stride
    u = column * stride
    depth = float(view.depth[v, u]) * view.depth_step
    if depth <= 0.0:
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
            else:
                touch(volume, find_or_add_block(volume, here[0], here[1], here[2]), stamp)
        z += 4.0


@wp.kernel
def touch_free_space(volume: Volume, view: View, stride: wp.int32, stamp: wp.int32) -> None:
    """Touch the blocks that exist between the camera and the band; one thread on a CPU."""
    row, column = wp.tid()
    v = row * stride
    u = column * stride
    depth = float(view.depth[v, u]) * view.depth_step
    if depth <= 0.0:
        return
    direction = ray(view, v, u)
    z = wp.float32(4.0)
    while z < depth - band(depth, view.truncation, view.depth_noise):
        at = (view.eye + z * direction) / 8.0
        x = view.home[0] + wp.int32(wp.floor(at[0]))
        y = view.home[1] + wp.int32(wp.floor(at[1]))
        w = view.home[2] + wp.int32(wp.floor(at[2]))
        if not is_outside(x, y, w):
            block = find_block(volume.keys, volume.block_of_key, block_key(x, y, w))
            touch(volume, block, stamp)
        z += 4.0
