# SPDX-License-Identifier: Apache-2.0
"""Compiled loops that tell which of several planes each pixel lies on.

test/segment/plain_geometry.py has their plain twins. Points and normals are (3, h, w), NaN where
unknown: a comparison with NaN is false.
"""

from __future__ import annotations

import numba
import numpy as np


@numba.njit(cache=True, nogil=True)
def first_plane(  # type: ignore[no-untyped-def]
    points, normals, which, planes, tolerance, centres, radii
):
    """Of each pixel (h, w) of `which`, the first plane whose surface it is on; -1: none.

    On the surface of a plane (n, d): within `tolerance` of depth and looking its way, or within
    half of that; and within its radius of its centre.
    """
    h, w = which.shape
    out = np.full((h, w), np.int16(-1))
    half, facing = np.float32(0.5), np.float32(0.8)
    for v in range(h):
        if not which[v].any():
            continue
        for k in range(len(planes)):
            a, b, c, d = planes[k, 0], planes[k, 1], planes[k, 2], planes[k, 3]
            p, q, r = centres[k, 0], centres[k, 1], centres[k, 2]
            reach = radii[k] * radii[k]
            for u in range(w):  # without a branch, so that it runs over several pixels at once
                x, y, z = points[0, v, u], points[1, v, u], points[2, v, u]
                distance, limit = abs(x * a + y * b + z * c + d), tolerance * z
                way = normals[0, v, u] * a + normals[1, v, u] * b + normals[2, v, u] * c
                on = (distance < limit) & ((distance < half * limit) | (way > facing))
                away = (x - p) * (x - p) + (y - q) * (y - q) + (z - r) * (z - r)
                on = on & (away < reach) & which[v, u] & (out[v, u] < 0)
                out[v, u] = np.int16(k) if on else out[v, u]
    return out


@numba.njit(cache=True, nogil=True)
def doubled(labels, which):  # type: ignore[no-untyped-def]
    """A picture of half the size drawn at full size (h, w); 255 where not `which`."""
    h, w = which.shape
    out = np.full((h, w), np.uint8(255))
    for v in range(h):
        for u in range(w):
            if which[v, u]:
                out[v, u] = labels[v // 2, u // 2]
    return out


@numba.njit(cache=True, nogil=True)
def area_of(points, normals, which, focal):  # type: ignore[no-untyped-def]
    """Surface that the pixels of `which` cover, with grazing views held back.

    `focal` is the product of both focal lengths [px squared].
    """
    total = 0.0
    h, w = which.shape
    for v in range(h):
        for u in range(w):
            if not which[v, u]:
                continue
            x, y, z = points[0, v, u], points[1, v, u], points[2, v, u]
            turn = abs(normals[0, v, u] * x + normals[1, v, u] * y + normals[2, v, u] * z)
            area = z * z / focal / max(turn / np.sqrt(x * x + y * y + z * z), np.float32(0.15))
            if not np.isnan(area):
                total += area
    return total
