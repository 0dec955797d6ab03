# SPDX-License-Identifier: Apache-2.0
"""What Warp kernels know of the volume and of a view, and the hash of blocks.

Lengths are in voxels. Block (i, j, k) holds the samples at 8 (i, j, k) + 0..7 of the voxel lattice,
x fastest. Places are told from the block that the camera is in, so that 32-bit floats keep their
precision at any distance from the origin. A block has a number for good and, while it is in memory,
a slot of the voxel arrays. Twins in plain numpy: `reference.py`.
"""
# mypy: disable-error-code="untyped-decorator, misc, index"

from __future__ import annotations

import warp as wp

wp.set_module_options({"enable_backward": False, "max_unroll": 1})
"""Loops stay loops: unrolled eight times, the kernels are slower on a CPU."""

KEY_BIAS = 1 << 20
NO_KEY = 0
REFUSED = -1
MAX_PROBES = 128
PAGED_OUT, NEVER_IN = -1, -2
"""A block's slot when it is on disk, and before it ever had one."""

SDF_UNITS = 2000.0
"""Integer steps of signed distance per voxel; the band of 16 voxels fits 16 bits."""

WEIGHT_UNITS = 8
"""Integer steps of weight per keyframe of full confidence; 255 steps are 31.9 keyframes."""

COLOUR_MEMORY = 64
"""Weight beyond which colour follows new views at a constant rate: 8 keyframes."""

COLOUR_CHANGE = 6
"""A colour level changed counts as much as this many distance steps (32 levels: 0.1 voxel)."""

FAR_BUT_KNOWN = 150
"""Steps that a voxel counts as moved when it becomes known far from the surface: a cell there may
have waited for it, but it can wait a little longer."""

RIM_SAMPLES = 169
"""Samples of a block on its three low faces, which its lower neighbours' cells read."""

UNKNOWN = 0
"""A rim sample that is not known; a known distance of 0 is kept as 1."""

BLOCKS, DIRTY, TOUCHED, LOST, PAGED, OUTSIDE, IN_BAND = 0, 1, 2, 3, 4, 5, 6
"""Meaning of the entries of `Volume.counters`. `LOST`: keys that found no place in the hash;
`PAGED`: touches of blocks on disk; `OUTSIDE`: places beyond the lattice, and points too far from
their camera; `IN_BAND`: those of `TOUCHED` that are in the band. From `TOUCHED` on they begin anew
with each view."""

COUNTERS = 7


@wp.struct
class Voxels:
    """The voxels, per slot, and the rules of their fusion.

    `paint` is red, green, blue and, in its highest byte, the weight: one load instead of four.
    Weights are in units, `watched` in steps of distance: moves farther from the surface do not
    count.
    """

    sdf: wp.array2d[wp.int16]
    paint: wp.array2d[wp.uint32]
    rim: wp.array2d[wp.int16]
    min_weight: wp.int32
    max_weight: wp.int32
    watched: wp.int32


@wp.struct
class Volume:
    """The map: a hash of block keys; per block its place and flags; the voxels of blocks in memory.

    `change` is how far the block's surface moved in all [voxels], `change_drawn` how far it had
    when its surface was last committed for drawing, `step` the largest move of the view at hand.
    """

    keys: wp.array[wp.int64]
    block_of_key: wp.array[wp.int32]
    coords: wp.array2d[wp.int32]
    slot: wp.array[wp.int32]
    touched_at: wp.array[wp.int32]
    fused_at: wp.array[wp.int32]
    step: wp.array[wp.int32]
    change: wp.array[wp.float32]
    change_drawn: wp.array[wp.float32]
    is_dirty: wp.array[wp.int32]
    touched: wp.array[wp.int32]
    dirty: wp.array[wp.int32]
    counters: wp.array[wp.int32]
    voxels: Voxels
    capacity: wp.int32
    gate: wp.float32
    half_life: wp.float32


@wp.struct
class View:
    """A keyframe as the kernels see it: `depth` in steps of `depth_step` voxels, 0 = unknown;
    `paint` as in `Voxels`, with the confidence (0..255) for a weight.

    `intrinsics` are (fx, fy, cx, cy) with pixel centres at integers. `eye` is the camera's place
    from the low corner of block `home`. `seed` makes the rounding of this view its own.
    """

    depth: wp.array2d[wp.uint16]
    paint: wp.array2d[wp.uint32]
    intrinsics: wp.vec4
    world_from_cam: wp.mat33
    cam_from_world: wp.mat33
    eye: wp.vec3
    home: wp.vec3i
    depth_step: wp.float32
    truncation: wp.float32
    depth_noise: wp.float32
    seed: wp.uint32
    order: wp.int32


@wp.func
def weight_of(paint: wp.uint32) -> wp.int32:
    return wp.int32(paint >> wp.uint32(24))


@wp.func
def block_key(x: wp.int32, y: wp.int32, z: wp.int32) -> wp.int64:
    """21 bits per axis."""
    bias = wp.int64(KEY_BIAS)
    high = (wp.int64(x) + bias) << wp.int64(42)
    return high | ((wp.int64(y) + bias) << wp.int64(21)) | (wp.int64(z) + bias)


@wp.func
def is_outside(x: wp.int32, y: wp.int32, z: wp.int32) -> wp.bool:
    """Whether the key of a block would not fit; a block's neighbours must fit too."""
    reach = wp.max(wp.max(wp.abs(x), wp.abs(y)), wp.abs(z))
    return reach >= KEY_BIAS - 2


@wp.func
def first_slot(key: wp.int64, slots: wp.int32) -> wp.int32:
    mixed = (key ^ (key >> wp.int64(31))) * wp.int64(-7046029254386353131)
    mixed = mixed ^ (mixed >> wp.int64(29))
    return wp.int32(mixed & wp.int64(slots - 1))


@wp.func
def find_block(
    keys: wp.array[wp.int64], block_of_key: wp.array[wp.int32], key: wp.int64
) -> wp.int32:
    """Number of the block with this key, or -1."""
    slots = keys.shape[0]
    slot = first_slot(key, slots)
    for _probe in range(MAX_PROBES):
        held = keys[slot]
        if held == key:
            return block_of_key[slot]
        if held == wp.int64(NO_KEY):
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
        held = volume.keys[slot]
        if held == wp.int64(NO_KEY):
            held = wp.atomic_cas(volume.keys, slot, wp.int64(NO_KEY), key)
        if held == key:
            return volume.block_of_key[slot]
        if held == wp.int64(NO_KEY):
            block = wp.atomic_add(volume.counters, BLOCKS, 1)
            if block >= volume.capacity:
                return wp.int32(REFUSED)
            volume.coords[block, 0] = x
            volume.coords[block, 1] = y
            volume.coords[block, 2] = z
            volume.block_of_key[slot] = block
            return block
        slot = (slot + 1) & (slots - 1)
    wp.atomic_add(volume.counters, LOST, 1)
    return wp.int32(REFUSED)


@wp.func
def band(depth: wp.float32, truncation: wp.float32, depth_noise: wp.float32) -> wp.float32:
    """Half-width of the truncation band around a measured depth."""
    return wp.clamp(depth_noise * depth, truncation, 16.0)


@wp.kernel
def insert_blocks(volume: Volume) -> None:
    """Put the blocks, whose `coords` are known, into an empty hash; one thread on a CPU."""
    block = wp.tid()
    key = block_key(volume.coords[block, 0], volume.coords[block, 1], volume.coords[block, 2])
    slots = volume.keys.shape[0]
    slot = first_slot(key, slots)
    for _probe in range(MAX_PROBES):
        if wp.atomic_cas(volume.keys, slot, wp.int64(NO_KEY), key) == wp.int64(NO_KEY):
            volume.block_of_key[slot] = block
            return
        slot = (slot + 1) & (slots - 1)
    wp.atomic_add(volume.counters, LOST, 1)


@wp.kernel
def find_blocks(volume: Volume, coords: wp.array2d[wp.int32], found: wp.array[wp.int32]) -> None:
    """Number of the block at each place, or -1."""
    i = wp.tid()
    x, y, z = coords[i, 0], coords[i, 1], coords[i, 2]
    found[i] = wp.int32(-1)
    if not is_outside(x, y, z):
        found[i] = find_block(volume.keys, volume.block_of_key, block_key(x, y, z))
