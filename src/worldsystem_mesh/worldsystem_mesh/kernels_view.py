# SPDX-License-Identifier: Apache-2.0
"""Warp kernel that makes a keyframe compact; it runs where keyframes come in, on the CPU.

Twin in plain numpy: `reference.compacted`.
"""
# mypy: disable-error-code="untyped-decorator, misc, index, operator"

from __future__ import annotations

import warp as wp

wp.set_module_options({"enable_backward": False, "max_unroll": 1})

MOST_CONFIDENCE = 3.0e38


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
    """Depth in 65535 steps up to `farthest` (0: unknown, beyond, or not trusted), and colour with
    confidence in one number."""
    v, u = wp.tid()
    z = pointmap[v, u, 2]
    trust = confidence[v, u]
    steps = wp.int32(0)
    level = wp.int32(0)
    # comparisons with NaN are false
    if z > 0.0 and z <= farthest and trust >= least_confidence and trust < MOST_CONFIDENCE:
        steps = wp.int32(z * (65535.0 / farthest) + 0.5)
        level = wp.int32(wp.min(trust, 1.0) * 255.0 + 0.5)
    red = wp.uint32(rgb[v, u, 0])
    green = wp.uint32(rgb[v, u, 1]) << wp.uint32(8)
    blue = wp.uint32(rgb[v, u, 2]) << wp.uint32(16)
    depth[v, u] = wp.uint16(wp.min(steps, 65535))
    paint[v, u] = red | green | blue | (wp.uint32(level) << wp.uint32(24))
