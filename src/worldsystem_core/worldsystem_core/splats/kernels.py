# SPDX-License-Identifier: Apache-2.0
"""Compiled loops over splats: what a keyframe says of them, and whether they show anything new.

They run without the interpreter's lock. Twins in plain numpy: `test/splats/plain_splats.py`.
"""
# mypy: ignore-errors

from __future__ import annotations

import numpy as np
from numba import njit

SEEN_THROUGH = 0.92
AGREES = 0.05
BITS, HALF = 19, 1 << 18
"""A voxel's key: its level and three numbers of 19 bits each, counted from -2^18."""


@njit(cache=True, nogil=True)
def judge(means, rotation, translation, intrinsics, nearest, depth, verdict):
    """Verdicts on points, which `rotation` (its scale included) and `translation` take to the
    camera: see `sight.contradictions`."""
    fx, fy, cx, cy = intrinsics
    height, width = depth.shape
    for i in range(len(means)):
        a, b, c = means[i]
        z = rotation[2, 0] * a + rotation[2, 1] * b + rotation[2, 2] * c + translation[2]
        verdict[i] = 0
        if not z > 1e-6:
            continue
        x = rotation[0, 0] * a + rotation[0, 1] * b + rotation[0, 2] * c + translation[0]
        y = rotation[1, 0] * a + rotation[1, 1] * b + rotation[1, 2] * c + translation[1]
        u, v = fx * x / z + cx, fy * y / z + cy
        if not (-0.5 < u < width - 0.5 and -0.5 < v < height - 0.5):
            continue
        column = min(max(int(np.rint(u)), 0), width - 1)
        row = min(max(int(np.rint(v)), 0), height - 1)
        if z < SEEN_THROUGH * nearest[row, column]:
            verdict[i] = 1
        if abs(z - depth[row, column]) < AGREES * z:
            verdict[i] = -1


@njit(cache=True, nogil=True)
def key_at(x, y, z, size, level):
    """Key of the voxel of this `size` and level that a point (world) lies in."""
    key = np.int64(level)
    for value in (x, y, z):
        cell = np.int64(np.floor(value / size)) + HALF
        key = key << BITS | min(max(cell, 0), 2 * HALF - 1)
    return key


@njit(cache=True, nogil=True)
def show_nothing_new(means, rotation, translation, levels, voxel, shares, keys, area, covered):
    """Which points, moved along their rays by one of `shares`, lie in a voxel whose `area` of
    splats is more than half of its face; `keys` ascend, `rotation` has the scale in it."""
    for i in range(len(means)):
        level = levels[i]
        size = voxel * np.float64(1 << level)
        covered[i] = False
        a, b, c = np.float64(means[i, 0]), np.float64(means[i, 1]), np.float64(means[i, 2])
        dx = rotation[0, 0] * a + rotation[0, 1] * b + rotation[0, 2] * c
        dy = rotation[1, 0] * a + rotation[1, 1] * b + rotation[1, 2] * c
        dz = rotation[2, 0] * a + rotation[2, 1] * b + rotation[2, 2] * c
        before = np.int64(-1)
        for share in shares:
            grown = 1.0 + share
            x, y = grown * dx + translation[0], grown * dy + translation[1]
            key = key_at(x, y, grown * dz + translation[2], size, level)
            if key == before:  # the voxel just looked at
                continue
            before = key
            at = np.searchsorted(keys, key)
            if at < len(keys) and keys[at] == key and area[at] > 0.5 * size * size:
                covered[i] = True
                break
