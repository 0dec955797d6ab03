# SPDX-License-Identifier: Apache-2.0
"""The slow and obvious twins of the compiled loops over the points of tracks."""

from __future__ import annotations

import numpy as np


def count_beside(held, keys, steps):
    around = {int(key + step) for key in keys for step in steps}
    return sum(int(key) in around for key in held)


def sighted(points, cam_from_world, lens, depth, near, owner, own):
    fx, fy, cx, cy = lens
    h, w = depth.shape
    through, foreign = np.zeros(len(points), bool), np.zeros(len(points), bool)
    inside = at = 0
    for index, point in enumerate(points):
        x, y, z = cam_from_world[:, :3] @ point + cam_from_world[:, 3]
        if z <= 0:
            continue
        u, v = fx * x / z + cx, fy * y / z + cy
        if not (-0.5 <= u < w - 0.5 and -0.5 <= v < h - 0.5):
            continue
        inside += 1
        pixel = round(v), round(u)
        through[index] = depth[pixel] > z * (1 + near[0])
        if abs(depth[pixel] / z - 1) < near[1]:
            at += 1
            foreign[index] = owner.size and owner[pixel] not in (0, own)
    return through, foreign, inside, at


def bounds_seen(points, cam_from_world, lens, size):
    fx, fy, cx, cy = lens
    x, y, z = cam_from_world[:, :3] @ points.T + cam_from_world[:, 3:]
    u, v = fx * x / z + cx, fy * y / z + cy
    inside = (z > 0) & (u >= -0.5) & (u < size[0] - 0.5) & (v >= -0.5) & (v < size[1] - 0.5)
    u, v = u[inside], v[inside]
    return inside.sum(), [u.min(), v.min(), u.max(), v.max()]
