# SPDX-License-Identifier: Apache-2.0
"""Warp kernels of the fusion: a view's pixels into the voxels of its blocks.

Functions of inner loops take numbers and single arrays: Warp copies a whole struct at each call.
"""
# mypy: disable-error-code="untyped-decorator, misc, index, operator"

from __future__ import annotations

import warp as wp

from worldsystem_mesh.kernels_volume import (
    COLOUR_CHANGE,
    COLOUR_MEMORY,
    FAR_BUT_KNOWN,
    SDF_UNITS,
    WEIGHT_UNITS,
    View,
    Volume,
    Voxels,
    band,
    level_of,
    weight_of,
)

wp.set_module_options({"enable_backward": False, "max_unroll": 1})


@wp.func
def mixed_bits(h: wp.uint32) -> wp.uint32:
    """A hash of 32 bits whose every output bit depends on every input bit."""
    a = (h ^ (h >> wp.uint32(16))) * wp.uint32(0x7FEB352D)
    a = (a ^ (a >> wp.uint32(15))) * wp.uint32(0x46CA68B5)
    return a ^ (a >> wp.uint32(16))


@wp.func
def row_seed(seed: wp.uint32, x: wp.int32, y: wp.int32, z: wp.int32, row: wp.int32) -> wp.uint32:
    """Start of the dither of a row of voxels; it depends on place and view alone."""
    h = seed ^ (wp.uint32(x) * wp.uint32(0x1E3779B1)) ^ (wp.uint32(y) * wp.uint32(0x45EBCA77))
    return mixed_bits((h ^ (wp.uint32(z) * wp.uint32(0x62B2AE3D))) + wp.uint32(row))


@wp.func
def rounded(value: wp.float32, dither: wp.float32) -> wp.int32:
    """Round up or down by chance, so that the mean of many roundings is right; for values above
    -40000."""
    return wp.int32(value + dither + 40000.0) - 40000


@wp.func
def move_of(
    held: wp.int32, total: wp.int32, old: wp.int32, new: wp.int32, rule: wp.vec2i
) -> wp.int32:
    """By how many steps a voxel's change from distance `old` to `new` counts as moved.

    One that becomes known (weight from below to above the least, `rule[0]`) counts a whole voxel,
    or little where it is farther from the surface than `rule[1]`; moves out there do not count.
    """
    if total < rule[0]:
        return wp.int32(0)
    if held < rule[0]:
        return wp.where(wp.abs(new) < rule[1], wp.int32(SDF_UNITS), FAR_BUT_KNOWN)
    if wp.min(wp.abs(new), wp.abs(old)) >= rule[1] and (new ^ old) >= 0:
        return wp.int32(0)
    return wp.abs(new - old)


@wp.func
def blended(paint: wp.uint32, seen: wp.uint32, share: wp.float32, dither: wp.float32) -> wp.uint32:
    """Colours that went `share` of the way to those seen, all of it from black, which is none."""
    held = paint & wp.uint32(0xFFFFFF)
    part = wp.where(held == wp.uint32(0), 1.0, share)
    r = level_of(paint, 0)
    g = level_of(paint, 1)
    b = level_of(paint, 2)
    r += rounded(float(level_of(seen, 0) - r) * part, dither)
    g += rounded(float(level_of(seen, 1) - g) * part, dither)
    b = wp.max(b + rounded(float(level_of(seen, 2) - b) * part, dither), 1)
    return wp.uint32(r) | (wp.uint32(g) << wp.uint32(8)) | (wp.uint32(b) << wp.uint32(16))


@wp.func
def colour_gap(a: wp.uint32, b: wp.uint32) -> wp.int32:
    """Largest difference of a channel."""
    most = wp.abs(level_of(a, 0) - level_of(b, 0))
    most = wp.max(most, wp.abs(level_of(a, 1) - level_of(b, 1)))
    return wp.max(most, wp.abs(level_of(a, 2) - level_of(b, 2)))


@wp.func
def trusted_weight(confidence: wp.int32, sdf: wp.float32, half: wp.float32) -> wp.float32:
    """Weight of an observation in `WEIGHT_UNITS`: the pixel's confidence; in the last quarter
    of the band behind the surface it falls to 0 linearly."""
    exact = float(confidence) * (float(WEIGHT_UNITS) / 255.0)
    if sdf < -0.75 * half:
        return exact * (4.0 + 4.0 * sdf / half)
    return exact


@wp.func
def row_start(view: View, block: wp.vec3i, row: wp.int32) -> wp.vec3:
    """First voxel of a row of a block, in the camera's frame."""
    start = wp.vec3(
        float((block[0] - view.home[0]) * 8),
        float((block[1] - view.home[1]) * 8 + (row & 7)),
        float((block[2] - view.home[2]) * 8 + (row >> 3)),
    )
    return view.cam_from_world * (start - view.eye)


@wp.func
def fuse_view(voxels: Voxels, view: View, block: wp.vec3i, s: wp.int32, lane: wp.vec2i) -> wp.int32:
    """Fuse the view into rows lane[0], lane[0] + lane[1], ... of a block's voxels; return by how
    many distance steps one of them moved at most.

    Projective fusion of Curless & Levoy, SIGGRAPH 1996. Pixels are rounded, not cut.
    """
    along = wp.vec3(view.cam_from_world[0, 0], view.cam_from_world[1, 0], view.cam_from_world[2, 0])
    k = view.intrinsics
    rule = wp.vec2i(voxels.min_weight, voxels.watched)
    width = float(view.depth.shape[1])
    height = float(view.depth.shape[0])
    move = wp.int32(0)
    row = lane[0]
    while row < 64:
        p = row_start(view, block, row)
        bits = row_seed(view.seed, block[0], block[1], block[2], row)
        for o in range(row * 8, row * 8 + 8):
            inverse = 1.0 / p[2]
            fu = k[0] * p[0] * inverse + k[2] + 0.5
            fv = k[1] * p[1] * inverse + k[3] + 0.5
            steps = wp.int32(0)
            u = wp.int32(0)
            v = wp.int32(0)
            if p[2] > 1.0 and fu >= 0.0 and fu < width and fv >= 0.0 and fv < height:
                u = wp.int32(fu)
                v = wp.int32(fv)
                steps = wp.int32(view.depth[v, u])
            depth = float(steps) * view.depth_step
            half = band(depth, view.truncation, view.depth_noise)
            sdf = depth - p[2]
            weight = wp.int32(0)
            seen = wp.uint32(0)
            if steps > 0 and sdf > -half:
                bits = bits * wp.uint32(1664525) + wp.uint32(1013904223)
                seen = view.paint[v, u]
                exact = trusted_weight(weight_of(seen), sdf, half)
                weight = rounded(exact, float(bits >> wp.uint32(16)) / 65536.0)
            if weight > 0:
                dither = float(bits & wp.uint32(0xFFFF)) / 65536.0
                paint = voxels.paint[s, o]
                old = wp.int32(voxels.sdf[s, o])
                held = weight_of(paint)
                share = float(weight) / float(held + weight)
                gap = wp.min(sdf, half) * SDF_UNITS - float(old)
                new = old + rounded(gap * share, dither)
                total = wp.min(held + weight, voxels.max_weight)
                move = wp.max(move, move_of(held, total, old, new, rule))
                colour = paint & wp.uint32(0xFFFFFF)
                if sdf < half:
                    if held > COLOUR_MEMORY:
                        share = float(weight) / float(COLOUR_MEMORY + weight)
                    colour = blended(paint, seen, share, dither)
                    if total >= rule[0] and new > -rule[1]:
                        move = wp.max(move, COLOUR_CHANGE * colour_gap(colour, paint))
                voxels.sdf[s, o] = wp.int16(new)
                voxels.paint[s, o] = colour | (wp.uint32(total) << wp.uint32(24))
            p = p + along
        row += lane[1]
    return move


@wp.func
def fade(paint: wp.array2d[wp.uint32], s: wp.int32, share: wp.float32, lane: wp.vec2i) -> None:
    """Make the weights of the rows lane[0], lane[0] + lane[1], ... smaller."""
    row = lane[0]
    while row < 64:
        for o in range(row * 8, row * 8 + 8):
            less = wp.uint32(wp.int32(float(weight_of(paint[s, o])) * share + 0.5))
            paint[s, o] = (paint[s, o] & wp.uint32(0xFFFFFF)) | (less << wp.uint32(24))
        row += lane[1]


@wp.kernel
def fuse_views(
    first: wp.int32,
    volume: Volume,
    views: wp.array[View],
    blocks: wp.array[wp.int32],
    start: wp.array[wp.int32],
    view_of_pair: wp.array[wp.int32],
    lanes: wp.int32,
) -> None:
    """Fuse into block i the views `view_of_pair[start[i]]` ... in their order; `lanes` threads
    share a block. Weights halve for every `half_life` views that did not see the block."""
    i, lane = wp.tid()
    i = first + i
    b = blocks[i]
    s = volume.slot[b]
    if s >= 0:
        block = wp.vec3i(volume.coords[b, 0], volume.coords[b, 1], volume.coords[b, 2])
        last = volume.fused_at[b]
        move = wp.int32(0)
        for pair in range(start[i], start[i + 1]):
            view = views[view_of_pair[pair]]
            if volume.half_life > 0.0 and view.order > last:
                share = wp.pow(0.5, float(view.order - last) / volume.half_life)
                fade(volume.voxels.paint, s, share, wp.vec2i(lane, lanes))
            last = view.order
            rows = wp.vec2i(lane, lanes)
            move = wp.max(move, fuse_view(volume.voxels, view, block, s, rows))
        if move > 0:
            wp.atomic_max(volume.step, b, move)


@wp.kernel
def empty_blocks(first: wp.int32, volume: Volume, blocks: wp.array[wp.int32]) -> None:
    """Make a row of each block's voxels unknown, and count the block as moved by a voxel."""
    i, row = wp.tid()
    b = blocks[first + i]
    s = volume.slot[b]
    if s < 0:
        return
    for o in range(row * 8, row * 8 + 8):
        volume.voxels.sdf[s, o] = wp.int16(0)
        volume.voxels.paint[s, o] = wp.uint32(0)
    if row == 0:
        volume.fused_at[b] = 0
        volume.step[b] = wp.int32(SDF_UNITS)
