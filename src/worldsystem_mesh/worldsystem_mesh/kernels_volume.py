# SPDX-License-Identifier: Apache-2.0
"""Warp kernels of the volume: finding blocks, fusing a keyframe, marking what changed.

All lengths are in voxels. Block (i, j, k) holds the samples at 8 (i, j, k) + 0..7 of the voxel
lattice, x fastest. A voxel keeps integer sums, so that fusing a keyframe with sign -1 takes out
exactly what sign +1 put in. Twins in plain numpy: `reference.py`.
"""
# mypy: disable-error-code="untyped-decorator, misc"

from __future__ import annotations

import warp as wp

wp.set_module_options({"enable_backward": False})

KEY_BIAS = 1 << 20
EMPTY = -1
REFUSED = -1
MAX_PROBES = 128
SDF_UNITS = 2000.0
"""Integer steps of signed distance per voxel; 16 voxels × 256 keyframes × 255 fit 32 bits."""

BLOCK_COUNT, TOUCHED_COUNT, DIRTY_COUNT, LOST_COUNT = 0, 1, 2, 3
"""Meaning of the entries of `Volume.counters`; `LOST_COUNT`: keys that found no place."""


@wp.struct
class Volume:
    """The map: a hash of block keys and, per block b, its place, flags and voxels."""

    keys: wp.array[wp.int64]
    block_of_key: wp.array[wp.int32]
    coords: wp.array2d[wp.int32]
    touched_at: wp.array[wp.int32]
    changed: wp.array[wp.int32]
    is_dirty: wp.array[wp.int32]
    touched: wp.array[wp.int32]
    dirty: wp.array[wp.int32]
    counters: wp.array[wp.int32]
    sdf_sum: wp.array2d[wp.int32]
    weight: wp.array2d[wp.uint16]
    colour_sum: wp.array3d[wp.int32]
    colour_weight: wp.array2d[wp.uint16]
    capacity: wp.int32
    max_weight: wp.int32


@wp.struct
class View:
    """A keyframe as the kernels see it: `depth` [voxels] with 0 = unknown, `confidence` 0..255.

    `intrinsics` are (fx, fy, cx, cy) with pixel centres at integers.
    """

    depth: wp.array2d[wp.float32]
    confidence: wp.array2d[wp.uint8]
    rgb: wp.array3d[wp.uint8]
    intrinsics: wp.vec4
    cam_from_world: wp.mat33
    world_in_cam: wp.vec3
    world_from_cam: wp.mat33
    cam_in_world: wp.vec3
    truncation: wp.float32
    depth_noise: wp.float32


@wp.func
def block_key(x: wp.int32, y: wp.int32, z: wp.int32) -> wp.int64:
    """21 bits per axis."""
    bias = wp.int64(KEY_BIAS)
    high = (wp.int64(x) + bias) << wp.int64(42)
    return high | ((wp.int64(y) + bias) << wp.int64(21)) | (wp.int64(z) + bias)


@wp.func
def first_slot(key: wp.int64, slots: wp.int32) -> wp.int32:
    mixed = (key ^ (key >> wp.int64(31))) * wp.int64(-7046029254386353131)
    mixed = mixed ^ (mixed >> wp.int64(29))
    return wp.int32(mixed & wp.int64(slots - 1))


@wp.func
def find_block(volume: Volume, key: wp.int64) -> wp.int32:
    """Number of the block with this key, or -1."""
    slots = volume.keys.shape[0]
    slot = first_slot(key, slots)
    for _probe in range(MAX_PROBES):
        held = volume.keys[slot]
        if held == key:
            return volume.block_of_key[slot]
        if held == wp.int64(EMPTY):
            return wp.int32(-1)
        slot = (slot + 1) & (slots - 1)
    return wp.int32(-1)


@wp.func
def find_or_add_block(volume: Volume, x: wp.int32, y: wp.int32, z: wp.int32) -> wp.int32:
    """Number of the block, added when new; -1 when there is no room or another thread adds it."""
    key = block_key(x, y, z)
    slots = volume.keys.shape[0]
    slot = first_slot(key, slots)
    for _probe in range(MAX_PROBES):
        held = wp.atomic_cas(volume.keys, slot, wp.int64(EMPTY), key)
        if held == key:
            return volume.block_of_key[slot]
        if held == wp.int64(EMPTY):
            block = wp.atomic_add(volume.counters, BLOCK_COUNT, 1)
            if block >= volume.capacity:
                return wp.int32(REFUSED)
            volume.coords[block, 0] = x
            volume.coords[block, 1] = y
            volume.coords[block, 2] = z
            volume.block_of_key[slot] = block
            return block
        slot = (slot + 1) & (slots - 1)
    wp.atomic_add(volume.counters, LOST_COUNT, 1)
    return wp.int32(REFUSED)


@wp.func
def touch(volume: Volume, block: wp.int32, stamp: wp.int32) -> None:
    """Append the block to `touched` unless this stamp has it already."""
    if block >= 0 and wp.atomic_max(volume.touched_at, block, stamp) < stamp:
        at = wp.atomic_add(volume.counters, TOUCHED_COUNT, 1)
        volume.touched[at] = block


@wp.func
def band(view: View, depth: wp.float32) -> wp.float32:
    """Half-width of the truncation band around a measured depth."""
    return wp.clamp(view.depth_noise * depth, view.truncation, 16.0)


@wp.kernel
def insert_blocks(volume: Volume) -> None:
    """Put the blocks, whose `coords` are known, into an empty hash; one thread on a CPU."""
    block = wp.tid()
    key = block_key(volume.coords[block, 0], volume.coords[block, 1], volume.coords[block, 2])
    slots = volume.keys.shape[0]
    slot = first_slot(key, slots)
    for _probe in range(MAX_PROBES):
        if wp.atomic_cas(volume.keys, slot, wp.int64(EMPTY), key) == wp.int64(EMPTY):
            volume.block_of_key[slot] = block
            return
        slot = (slot + 1) & (slots - 1)
    wp.atomic_add(volume.counters, LOST_COUNT, 1)


@wp.kernel
def touch_band(volume: Volume, view: View, stride: wp.int32, stamp: wp.int32) -> None:
    """Touch, adding where new, the blocks along each ray within the band; one thread on a CPU."""
    row, column = wp.tid()
    v = row * stride
    u = column * stride
    depth = view.depth[v, u]
    if depth <= 0.0:
        return
    k = view.intrinsics
    ray = view.world_from_cam * wp.vec3((float(u) - k[2]) / k[0], (float(v) - k[3]) / k[1], 1.0)
    half = band(view, depth)
    z = depth - half
    while z < depth + half + 4.0:
        at = (view.cam_in_world + wp.min(z, depth + half) * ray) / 8.0
        x = wp.int32(wp.floor(at[0]))
        y = wp.int32(wp.floor(at[1]))
        touch(volume, find_or_add_block(volume, x, y, wp.int32(wp.floor(at[2]))), stamp)
        z += 4.0


@wp.kernel
def touch_free_space(volume: Volume, view: View, stride: wp.int32, stamp: wp.int32) -> None:
    """Touch the blocks that exist between the camera and the band; one thread on a CPU."""
    row, column = wp.tid()
    v = row * stride
    u = column * stride
    depth = view.depth[v, u]
    if depth <= 0.0:
        return
    k = view.intrinsics
    ray = view.world_from_cam * wp.vec3((float(u) - k[2]) / k[0], (float(v) - k[3]) / k[1], 1.0)
    z = wp.float32(4.0)
    while z < depth - band(view, depth):
        at = (view.cam_in_world + z * ray) / 8.0
        key = block_key(
            wp.int32(wp.floor(at[0])), wp.int32(wp.floor(at[1])), wp.int32(wp.floor(at[2]))
        )
        touch(volume, find_block(volume, key), stamp)
        z += 4.0


@wp.func
def forget_half(volume: Volume, b: wp.int32, o: wp.int32) -> None:
    volume.sdf_sum[b, o] = volume.sdf_sum[b, o] / 2
    volume.weight[b, o] = wp.uint16(wp.int32(volume.weight[b, o]) / 2)
    volume.colour_weight[b, o] = wp.uint16(wp.int32(volume.colour_weight[b, o]) / 2)
    for channel in range(3):
        volume.colour_sum[b, o, channel] = volume.colour_sum[b, o, channel] / 2


@wp.func
def add_distance(
    volume: Volume, b: wp.int32, o: wp.int32, sdf: wp.float32, weight: wp.int32
) -> None:
    """Add (weight > 0) or take out (weight < 0) one observation of voxel o of block b."""
    if wp.int32(volume.weight[b, o]) + weight > volume.max_weight:
        forget_half(volume, b, o)
    total = wp.max(wp.int32(volume.weight[b, o]) + weight, 0)
    volume.weight[b, o] = wp.uint16(total)
    if total == 0:
        volume.sdf_sum[b, o] = 0
    else:
        units = wp.int32(wp.floor(sdf * SDF_UNITS + 0.5))
        volume.sdf_sum[b, o] = volume.sdf_sum[b, o] + weight * units


@wp.func
def add_colour(
    volume: Volume, view: View, b: wp.int32, o: wp.int32, v: wp.int32, u: wp.int32, weight: wp.int32
) -> None:
    """Add or take out the colour of pixel (u, v)."""
    total = wp.max(wp.int32(volume.colour_weight[b, o]) + weight, 0)
    volume.colour_weight[b, o] = wp.uint16(total)
    for channel in range(3):
        shade = wp.int32(view.rgb[v, u, channel])
        held = volume.colour_sum[b, o, channel] + weight * shade
        volume.colour_sum[b, o, channel] = wp.where(total == 0, 0, held)


@wp.kernel
def fuse_rows(
    first: wp.int32, volume: Volume, view: View, blocks: wp.array[wp.int32], sign: wp.int32
) -> None:
    """Fuse the view into one row of eight voxels (Curless & Levoy, SIGGRAPH 1996, projective).

    The weight is the pixel's confidence; behind half the band it falls to 0 linearly.
    """
    i, row = wp.tid()
    b = blocks[first + i]
    k = view.intrinsics
    start = wp.vec3(
        float(volume.coords[b, 0] * 8),
        float(volume.coords[b, 1] * 8 + (row & 7)),
        float(volume.coords[b, 2] * 8 + (row >> 3)),
    )
    p = view.cam_from_world * start + view.world_in_cam
    step = wp.vec3(view.cam_from_world[0, 0], view.cam_from_world[1, 0], view.cam_from_world[2, 0])
    for x in range(8):
        if p[2] > 1.0:
            u = wp.int32(wp.floor(k[0] * p[0] / p[2] + k[2] + 0.5))
            v = wp.int32(wp.floor(k[1] * p[1] / p[2] + k[3] + 0.5))
            if u >= 0 and v >= 0 and v < view.depth.shape[0] and u < view.depth.shape[1]:
                depth = view.depth[v, u]
                half = band(view, depth)
                sdf = depth - p[2]
                if depth > 0.0 and sdf > -half:
                    trust = wp.min(2.0 * (1.0 + sdf / half), 1.0)
                    weight = wp.int32(float(view.confidence[v, u]) * trust + 0.5)
                    if weight > 0:
                        o = row * 8 + x
                        add_distance(volume, b, o, wp.min(sdf, half), sign * weight)
                        if sdf < half:
                            add_colour(volume, view, b, o, v, u, sign * weight)
                        volume.changed[b] = 1
        p = p + step


@wp.kernel
def mark_dirty(volume: Volume, blocks: wp.array[wp.int32]) -> None:
    """Put each changed block and its seven lower neighbours on the list; one thread on a CPU.

    A cell belongs to the block of its low corner, so it reads samples of upper neighbours.
    """
    b = blocks[wp.tid()]
    if volume.changed[b] == 0:
        return
    volume.changed[b] = 0
    for corner in range(8):
        key = block_key(
            volume.coords[b, 0] - (corner & 1),
            volume.coords[b, 1] - ((corner >> 1) & 1),
            volume.coords[b, 2] - (corner >> 2),
        )
        lower = find_block(volume, key)
        if lower >= 0 and wp.atomic_max(volume.is_dirty, lower, 1) == 0:
            at = wp.atomic_add(volume.counters, DIRTY_COUNT, 1)
            volume.dirty[at] = lower
