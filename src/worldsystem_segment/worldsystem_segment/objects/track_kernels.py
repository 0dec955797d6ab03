# SPDX-License-Identifier: Apache-2.0
"""Compiled loops over the points of tracks: shared voxels, and what a view shows of a track.

test/segment/plain_tracks.py has their plain twins.
"""

from __future__ import annotations

import numba
import numpy as np


@numba.njit(cache=True, nogil=True)
def count_beside(held, keys, steps):  # type: ignore[no-untyped-def]
    """How many of the `held` voxels lie one of `steps` from one of `keys`; both are sorted.

    Both are walked side by side, once for each step.
    """
    found = np.zeros(len(held), np.bool_)
    for step in steps:
        place = 0
        for index in range(len(held)):
            wanted = held[index] - step
            while place < len(keys) and keys[place] < wanted:
                place += 1
            if place == len(keys):
                break
            if keys[place] == wanted:
                found[index] = True
    return found.sum()


@numba.njit(cache=True, nogil=True)
def sighted(points, cam_from_world, lens, depth, near, owner, own):  # type: ignore[no-untyped-def]
    """Which points (n, 3) of a track a view sees through, and which it shows to be another's.

    `depth` (h, w) is what the view saw; it sees through a point when that lies more than `near[0]`
    of depth behind it, and sees its surface within `near[1]`. `owner` (h, w) is whose the pixels
    are, empty when nobody knows. Also returns how many points are in the picture, and how many of
    them on the surface seen. `lens` is (fx, fy, cx, cy).
    """
    count = len(points)
    through, foreign = np.zeros(count, np.bool_), np.zeros(count, np.bool_)
    h, w = depth.shape
    half = np.float32(0.5)
    m = cam_from_world
    inside, at = 0, 0
    for k in range(count):
        x, y, z = points[k, 0], points[k, 1], points[k, 2]
        ahead = m[2, 0] * x + m[2, 1] * y + m[2, 2] * z + m[2, 3]
        if not ahead > 0:
            continue
        u = lens[0] * (m[0, 0] * x + m[0, 1] * y + m[0, 2] * z + m[0, 3]) / ahead + lens[2]
        v = lens[1] * (m[1, 0] * x + m[1, 1] * y + m[1, 2] * z + m[1, 3]) / ahead + lens[3]
        if not (u >= -half and u < w - half and v >= -half and v < h - half):
            continue
        inside += 1
        row, column = min(int(np.rint(v)), h - 1), min(int(np.rint(u)), w - 1)
        ratio = depth[row, column] / ahead - np.float32(1.0)
        through[k] = ratio > near[0]
        if abs(ratio) < near[1]:
            at += 1
            if owner.size:
                foreign[k] = owner[row, column] != 0 and owner[row, column] != own
    return through, foreign, inside, at


@numba.njit(cache=True, nogil=True)
def bounds_seen(points, cam_from_world, lens, size):  # type: ignore[no-untyped-def]
    """How many points (n, 3) are in a picture of `size` (w, h), and their first and last pixels.

    The four are least column and row, greatest column and row [px]. `lens` is (fx, fy, cx, cy).
    """
    m = cam_from_world
    half = np.float32(0.5)
    bounds = np.array([np.inf, np.inf, -np.inf, -np.inf])
    inside = 0
    for k in range(len(points)):
        x, y, z = points[k, 0], points[k, 1], points[k, 2]
        ahead = m[2, 0] * x + m[2, 1] * y + m[2, 2] * z + m[2, 3]
        if not ahead > 0:
            continue
        u = lens[0] * (m[0, 0] * x + m[0, 1] * y + m[0, 2] * z + m[0, 3]) / ahead + lens[2]
        v = lens[1] * (m[1, 0] * x + m[1, 1] * y + m[1, 2] * z + m[1, 3]) / ahead + lens[3]
        if u >= -half and u < size[0] - half and v >= -half and v < size[1] - half:
            inside += 1
            bounds[0], bounds[1] = min(bounds[0], u), min(bounds[1], v)
            bounds[2], bounds[3] = max(bounds[2], u), max(bounds[3], v)
    return inside, bounds
