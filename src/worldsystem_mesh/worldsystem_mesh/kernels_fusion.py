# SPDX-License-Identifier: Apache-2.0
"""Warp kernels of the fusion: a view's pixels into the voxels of its blocks.

Functions of inner loops take numbers and single arrays: Warp copies a whole struct at each call.
"""
# mypy: disable-error-code="untyped-decorator, misc, index, operator"

from __future__ import annotations

import warp as wp

from worldsystem_mesh.kernels_changes import add_change
from worldsystem_mesh.kernels_turns import Turns, first_turn, next_turn
from worldsystem_mesh.kernels_volume import (
    COLOUR_CHANGE,
    COLOUR_MEMORY,
    FAR_BUT_KNOWN,
    SDF_UNITS,
    WEIGHT_UNITS,
    View,
    Volume,
    Voxels,
    weight_of,
)

wp.set_module_options({"enable_backward": False, "max_unroll": 1, "fuse_fp": False})


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


# Eight neighbouring voxels at once, step by step and without branches, so that a compiler makes
# vector instructions of each step; Warp's own language has no loops of that kind.
FUSE_ROW = f"""
    using namespace wp;
    const int stride = int(depth.strides[0] / sizeof(uint16));
    const float width = float(depth.shape[1]), height = float(depth.shape[0]);
    const int least = rule[0], most = rule[1], watched = rule[2];
    int16* row_sdf = &index(sdf, s, o);
    uint32* row_paint = &index(paint, s, o);
    float z[8], far_by[8], half[8];
    int pixel[8], inside[8], steps[8], counts[8], any = 0, move = 0;
    uint32 observed[8];

    // the pixel that each voxel projects to: rounded, not cut
    for (int i = 0; i < 8; ++i) {{
        z[i] = p[2] + float(i) * along[2];
        const float inverse = 1.0f / z[i];
        const float u = k[0] * (p[0] + float(i) * along[0]) * inverse + k[2] + 0.5f;
        const float v = k[1] * (p[1] + float(i) * along[1]) * inverse + k[3] + 0.5f;
        inside[i] = (z[i] > 1.0f) & (u >= 0.0f) & (u < width) & (v >= 0.0f) & (v < height);
        pixel[i] = inside[i] ? int(v) * stride + int(u) : 0;
    }}
    for (int i = 0; i < 8; ++i) steps[i] = depth.data[pixel[i]];

    // how far in front of the measured surface it lies, and whether that is in the band
    for (int i = 0; i < 8; ++i) {{
        const float measured = float(steps[i]) * depth_step;
        half[i] = wp::min(wp::max(noise * measured, truncation), 16.0f);
        far_by[i] = measured - z[i];
        counts[i] = inside[i] & (steps[i] > 0) & (far_by[i] > -half[i]);
        any |= counts[i];
    }}
    if (!any) return 0;
    for (int i = 0; i < 8; ++i) observed[i] = seen.data[pixel[i]];

    for (int i = 0; i < 8; ++i) {{
        uint32 bits = (seed + uint32(i) * 0x9E3779B9u) * 0x7FEB352Du;
        bits ^= bits >> 15;
        const float dither = float(bits & 0xFFFFu) * (1.0f / 65536.0f);

        // weight: the pixel's confidence, falling to 0 in the last quarter behind the surface
        const float behind = wp::min(4.0f + 4.0f * far_by[i] / half[i], 1.0f);
        const float exact = float(int(observed[i] >> 24)) * ({WEIGHT_UNITS}.0f / 255.0f) * behind;
        const float weighed = exact + float(int(bits >> 16)) * (1.0f / 65536.0f);
        const int weight = counts[i] ? int(weighed) : 0;

        // running mean of the distance
        const uint32 before = row_paint[i];
        const int held = int(before >> 24), old = row_sdf[i];
        const int total = wp::min(held + weight, most);
        const float share = float(weight) / float(wp::max(held + weight, 1));
        const float gap = wp::min(far_by[i], half[i]) * {SDF_UNITS}f - float(old);
        const int now = old + int(floorf(gap * share + dither));

        // how far that counts as moved
        const int edge = wp::abs(now), was = wp::abs(old);
        const int appeared = edge < watched ? int({SDF_UNITS}f) : {FAR_BUT_KNOWN};
        const int is_out = (wp::min(edge, was) >= watched) & ((now ^ old) >= 0);
        int moved = held < least ? appeared : (is_out ? 0 : wp::abs(now - old));

        // colour, in the band; black is none
        const int r = before & 255, g = (before >> 8) & 255, b = (before >> 16) & 255;
        const float slow = float(weight) / float({COLOUR_MEMORY} + wp::max(weight, 0));
        const float kept = held > {COLOUR_MEMORY} ? slow : share;
        const float part = (before & 0xFFFFFFu) == 0u ? 1.0f : kept;
        const int red = int(floorf(float(int(observed[i] & 255) - r) * part + dither));
        const int green = int(floorf(float(int((observed[i] >> 8) & 255) - g) * part + dither));
        const int blue = int(floorf(float(int((observed[i] >> 16) & 255) - b) * part + dither));
        const int new_blue = wp::max(b + blue, 1);
        const int in_band = far_by[i] < half[i];
        const uint32 mixed = uint32((r + red) | ((g + green) << 8) | (new_blue << 16));
        const uint32 colour = in_band ? mixed : before & 0xFFFFFFu;
        const int shades = wp::max(wp::max(wp::abs(red), wp::abs(green)), wp::abs(new_blue - b));
        const int repainted = (in_band & (now > -watched)) ? {COLOUR_CHANGE} * shades : 0;

        const int is_seen = weight > 0;
        moved = wp::max(moved, repainted);
        move = wp::max(move, (is_seen & (total >= least)) ? moved : 0);
        row_sdf[i] = int16(is_seen ? now : old);
        row_paint[i] = is_seen ? colour | (uint32(total) << 24) : before;
    }}
    return move;
"""


@wp.func_native(FUSE_ROW)
def fuse_row(
    depth: wp.array2d[wp.uint16],
    seen: wp.array2d[wp.uint32],
    sdf: wp.array2d[wp.int16],
    paint: wp.array2d[wp.uint32],
    s: wp.int32,
    o: wp.int32,
    p: wp.vec3,
    along: wp.vec3,
    k: wp.vec4,
    depth_step: wp.float32,
    truncation: wp.float32,
    noise: wp.float32,
    rule: wp.vec3i,
    seed: wp.uint32,
) -> wp.int32:
    """Fuse pixels into the eight voxels from `o` on of slot `s`, the first of which lies at `p` in
    the camera's frame and the others `along` from it; return by how many distance steps one of
    them moved at most. `rule` is (least weight that counts, most weight, watched steps).

    A voxel that becomes known counts a whole voxel, or `FAR_BUT_KNOWN` where it is farther from the
    surface than is watched; moves out there do not count.
    """


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

    Projective fusion of Curless & Levoy, SIGGRAPH 1996.
    """
    along = wp.vec3(view.cam_from_world[0, 0], view.cam_from_world[1, 0], view.cam_from_world[2, 0])
    rule = wp.vec3i(voxels.min_weight, voxels.max_weight, voxels.watched)
    move = wp.int32(0)
    row = lane[0]
    while row < 64:
        moved = fuse_row(
            view.depth,
            view.paint,
            voxels.sdf,
            voxels.paint,
            s,
            row * 8,
            row_start(view, block, row),
            along,
            view.intrinsics,
            view.depth_step,
            view.truncation,
            view.depth_noise,
            rule,
            row_seed(view.seed, block[0], block[1], block[2], row),
        )
        move = wp.max(move, moved)
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
    turns: Turns,
    volume: Volume,
    views: wp.array[View],
    blocks: wp.array[wp.int32],
    start: wp.array[wp.int32],
    view_of_pair: wp.array[wp.int32],
    lanes: wp.int32,
    is_noted: wp.bool,
) -> None:
    """Fuse into block i the views `view_of_pair[start[i]]` ... in their order; `lanes` threads
    share a block. Weights halve for every `half_life` views that did not see the block. With
    `is_noted` (for one lane) the block's changes are added up too, while its voxels are in the
    cache."""
    at, lane = wp.tid()
    i = first_turn(turns, at)
    while i < turns.count:
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
            if is_noted:
                add_change(volume, b, last)
        i = next_turn(turns, i)


@wp.kernel
def empty_blocks(turns: Turns, volume: Volume, blocks: wp.array[wp.int32], lanes: wp.int32) -> None:
    """Make each block's voxels unknown, `lanes` threads a block, and count it as moved by a
    voxel."""
    at, lane = wp.tid()
    i = first_turn(turns, at)
    while i < turns.count:
        b = blocks[i]
        s = volume.slot[b]
        if s >= 0:
            for o in range(lane, 512, lanes):
                volume.voxels.sdf[s, o] = wp.int16(0)
                volume.voxels.paint[s, o] = wp.uint32(0)
            if lane == 0:
                volume.fused_at[b] = 0
                volume.step[b] = wp.int32(SDF_UNITS)
        i = next_turn(turns, i)
