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
def block_seed(seed: wp.uint32, block: wp.vec3i) -> wp.uint32:
    """What the dither of a block's rows begins with; it depends on place and view alone."""
    h = seed ^ (wp.uint32(block[0]) * wp.uint32(0x1E3779B1))
    h = h ^ (wp.uint32(block[1]) * wp.uint32(0x45EBCA77))
    return h ^ (wp.uint32(block[2]) * wp.uint32(0x62B2AE3D))


ROWS_AT_ONCE = """
#ifdef __CUDA_ARCH__
    return 1;
#else
    return 8;
#endif
"""


@wp.func_native(ROWS_AT_ONCE)
def rows_at_once() -> wp.int32:
    """How many rows `fuse_rows` takes: on a CPU all with the same z."""


# Neighbouring voxels at once, step by step and without branches, so that a compiler makes vector
# instructions of each step; Warp's own language has no loops of that kind.
FUSE_ROWS = f"""
    using namespace wp;
#ifdef __CUDA_ARCH__
    constexpr int n = 8;
#else
    constexpr int n = 64;
#endif
    const int stride = int(depth.strides[0] / sizeof(uint16));
    const float width = float(depth.shape[1]), height = float(depth.shape[0]);
    const int least = rule[0], most = rule[1], watched = rule[2];
    int16* row_sdf = &index(sdf, s, row * 8);
    uint32* row_paint = &index(paint, s, row * 8);
    float z[n], far_by[n], half[n];
    int pixel[n], inside[n], steps[n], counts[n], any = 0, move = 0;
    uint32 observed[n], chance[n];

    // the pixel that each voxel projects to: rounded, not cut
    for (int i = 0; i < n; ++i) {{
        const float x = float(i & 7), y = float((row & 7) + (i >> 3));
        z[i] = p[2] + y * across[2] + x * along[2];
        const float inverse = 1.0f / z[i];
        const float u = k[0] * (p[0] + y * across[0] + x * along[0]) * inverse + k[2] + 0.5f;
        const float v = k[1] * (p[1] + y * across[1] + x * along[1]) * inverse + k[3] + 0.5f;
        inside[i] = (z[i] > 1.0f) & (u >= 0.0f) & (u < width) & (v >= 0.0f) & (v < height);
        pixel[i] = inside[i] ? int(v) * stride + int(u) : 0;
    }}
    for (int i = 0; i < n; ++i) steps[i] = depth.data[pixel[i]];

    // how far in front of the measured surface it lies, and whether that is in the band
    for (int i = 0; i < n; ++i) {{
        const float measured = float(steps[i]) * depth_step;
        half[i] = wp::min(wp::max(noise * measured, truncation), 16.0f);
        far_by[i] = measured - z[i];
        counts[i] = inside[i] & (steps[i] > 0) & (far_by[i] > -half[i]);
        any |= counts[i];
    }}
    if (!any) return 0;
    for (int i = 0; i < n; ++i) observed[i] = seen.data[pixel[i]];

    // the dither: a hash of the row whose every bit depends on every bit, and of the voxel
    for (int y = 0; y < n / 8; ++y) {{
        uint32 start = seed + uint32(row + y);
        start = (start ^ start >> 16) * 0x7FEB352Du;
        start = (start ^ start >> 15) * 0x46CA68B5u;
        start ^= start >> 16;
        for (int x = 0; x < 8; ++x) {{
            const uint32 bits = (start + uint32(x) * 0x9E3779B9u) * 0x7FEB352Du;
            chance[8 * y + x] = bits ^ bits >> 15;
        }}
    }}
    for (int i = 0; i < n; ++i) {{
        const uint32 bits = chance[i];
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


@wp.func_native(FUSE_ROWS)
def fuse_rows(
    depth: wp.array2d[wp.uint16],
    seen: wp.array2d[wp.uint32],
    sdf: wp.array2d[wp.int16],
    paint: wp.array2d[wp.uint32],
    s: wp.int32,
    row: wp.int32,
    p: wp.vec3,
    along: wp.vec3,
    across: wp.vec3,
    k: wp.vec4,
    depth_step: wp.float32,
    truncation: wp.float32,
    noise: wp.float32,
    rule: wp.vec3i,
    seed: wp.uint32,
) -> wp.int32:
    """Fuse pixels into `rows_at_once` rows of slot `s`, from `row` on; return by how many distance
    steps one of their voxels moved at most.

    The first voxel of the first row with the same z lies at `p` in the camera's frame, the next of
    its row `along` from it, the next row `across`: the same sums for every number of rows, so that
    they round alike. `rule` is (least weight that counts, most weight, watched steps). A voxel that
    becomes known counts a whole voxel, or `FAR_BUT_KNOWN` where it is farther from the surface than
    is watched; moves out there do not count.
    """


@wp.func
def plane_start(view: View, block: wp.vec3i, z: wp.int32) -> wp.vec3:
    """First voxel of those of a block with the same z, in the camera's frame."""
    start = wp.vec3(
        float((block[0] - view.home[0]) * 8),
        float((block[1] - view.home[1]) * 8),
        float((block[2] - view.home[2]) * 8 + z),
    )
    return view.cam_from_world * (start - view.eye)


@wp.func
def fuse_view(voxels: Voxels, view: View, block: wp.vec3i, s: wp.int32, lane: wp.vec2i) -> wp.int32:
    """Fuse the view into the share lane[0] of lane[1] of a block's voxels; return by how many
    distance steps one of them moved at most.

    Projective fusion of Curless & Levoy, SIGGRAPH 1996.
    """
    turn = view.cam_from_world
    rows = rows_at_once()
    move = wp.int32(0)
    row = lane[0] * rows
    while row < 64:
        moved = fuse_rows(
            view.depth,
            view.paint,
            voxels.sdf,
            voxels.paint,
            s,
            row,
            plane_start(view, block, row >> 3),
            wp.vec3(turn[0, 0], turn[1, 0], turn[2, 0]),
            wp.vec3(turn[0, 1], turn[1, 1], turn[2, 1]),
            view.intrinsics,
            view.depth_step,
            view.truncation,
            view.depth_noise,
            wp.vec3i(voxels.min_weight, voxels.max_weight, voxels.watched),
            block_seed(view.seed, block),
        )
        move = wp.max(move, moved)
        row += lane[1] * rows
    return move


@wp.func
def chance(seed: wp.uint32, voxel: wp.uint32) -> wp.float32:
    """From 0 up to 1, in steps of 1/65536, as good as evenly over voxels and views."""
    h = seed + voxel * wp.uint32(0x9E3779B9)
    h = (h ^ (h >> wp.uint32(16))) * wp.uint32(0x7FEB352D)
    h = (h ^ (h >> wp.uint32(15))) * wp.uint32(0x846CA68B)
    h = h ^ (h >> wp.uint32(16))
    return float(h & wp.uint32(0xFFFF)) / 65536.0


@wp.func
def fade(
    paint: wp.array2d[wp.uint32], s: wp.int32, share: wp.float32, seed: wp.uint32, lane: wp.vec2i
) -> None:
    """Make the weights of the rows lane[0], lane[0] + lane[1], ... smaller. Rounded by chance,
    which depends on place and view alone: to the nearest, a small weight would never fade."""
    row = lane[0]
    while row < 64:
        for o in range(row * 8, row * 8 + 8):
            kept = float(weight_of(paint[s, o])) * share
            less = wp.uint32(wp.int32(wp.floor(kept + chance(seed, wp.uint32(o)))))
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
                    seed = block_seed(view.seed, block)
                    fade(volume.voxels.paint, s, share, seed, wp.vec2i(lane, lanes))
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
