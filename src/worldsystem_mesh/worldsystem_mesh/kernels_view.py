# SPDX-License-Identifier: Apache-2.0
"""Warp kernel that makes a keyframe compact; it runs where keyframes come in, on the CPU.

Twin in plain numpy: `reference.compacted`.
"""
# mypy: disable-error-code="untyped-decorator, misc, index, operator"

from __future__ import annotations

import warp as wp

wp.set_module_options({"enable_backward": False, "max_unroll": 1, "fuse_fp": False})

MOST_CONFIDENCE = 3.0e38

# Eight pixels at once: a loop without branches, which a compiler makes vector instructions of.
COMPACT_ROW = f"""
    using namespace wp;
    const int width = confidence.shape[1];
    const float* point = &index(pointmap, v, 0, 0);
    const float* trust = &index(confidence, v, 0);
    const uint8* colour = &index(rgb, v, 0, 0);
    uint16* steps = &index(depth, v, 0);
    uint32* painted = &index(paint, v, 0);
    const float per_unit = 65535.0f / farthest;
    for (int u = 0; u < width; ++u) {{
        const float z = point[3 * u + 2], sure = trust[u];
        // comparisons with NaN are false
        const int trusted = (sure >= least) & (sure < {MOST_CONFIDENCE}f);
        const int known = (z > 0.0f) & (z <= farthest) & trusted;
        const float level = (sure < 1.0f ? sure : 1.0f) * 255.0f + 0.5f;
        const int exact = known ? int(z * per_unit + 0.5f) : 0;
        steps[u] = uint16(exact < 65535 ? exact : 65535);
        const uint32 weight = known ? uint32(int(level)) : 0u;
        const uint8* c = colour + 3 * u;
        painted[u] = uint32(c[0]) | uint32(c[1]) << 8 | uint32(c[2]) << 16 | weight << 24;
    }}
"""


@wp.func_native(COMPACT_ROW)
def compact_row(
    pointmap: wp.array3d[wp.float32],
    confidence: wp.array2d[wp.float32],
    rgb: wp.array3d[wp.uint8],
    v: wp.int32,
    farthest: wp.float32,
    least: wp.float32,
    depth: wp.array2d[wp.uint16],
    paint: wp.array2d[wp.uint32],
) -> None:
    """Row v; all rows are contiguous."""


@wp.kernel
def compact_pixels(
    pointmap: wp.array3d[wp.float32],
    confidence: wp.array2d[wp.float32],
    rgb: wp.array3d[wp.uint8],
    farthest: wp.float32,
    least_confidence: wp.float32,
    depth: wp.array2d[wp.uint16],
    paint: wp.array2d[wp.uint32],
) -> None:
    """A row: depth in 65535 steps up to `farthest` (0: unknown, beyond, or not trusted), and colour
    with confidence in one number."""
    v = wp.tid()
    compact_row(pointmap, confidence, rgb, v, farthest, least_confidence, depth, paint)
