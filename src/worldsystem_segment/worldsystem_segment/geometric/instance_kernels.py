# SPDX-License-Identifier: Apache-2.0
"""Compiled loops over numbered pixels: who is large, who lies over whom, whose pixels are where.

test/segment/plain_geometry.py has their plain twins. Numbers count from 1, 0 is nobody; points
and normals are three planes, (3, h, w).
"""

from __future__ import annotations

import numba
import numpy as np


@numba.njit(cache=True, nogil=True)
def areas(labels, count):  # type: ignore[no-untyped-def]
    """How many pixels each number below `count` has."""
    out = np.zeros(count, np.int64)
    for v in range(labels.shape[0]):
        for u in range(labels.shape[1]):
            out[labels[v, u]] += 1
    return out


@numba.njit(cache=True, nogil=True)
def looked_up(table, labels):  # type: ignore[no-untyped-def]
    """What `table` says of every label (h, w)."""
    out = np.empty(labels.shape, np.int32)
    for v in range(labels.shape[0]):
        for u in range(labels.shape[1]):
            out[v, u] = table[labels[v, u]]
    return out


@numba.njit(cache=True, nogil=True)
def extent_of(labels):  # type: ignore[no-untyped-def]
    """First and last row, first and last column with a label; the last ones exclusive."""
    h, w = labels.shape
    top, bottom, left, right = h, 0, w, 0
    for v in range(h):
        for u in range(w):
            if labels[v, u]:
                top, bottom = min(top, v), v + 1
                left, right = min(left, u), max(right, u + 1)
    return top, bottom, left, right


@numba.njit(cache=True, nogil=True)
def by_label(labels, count):  # type: ignore[no-untyped-def]
    """Flat pixel numbers ordered by label from 1 to `count`, and where each label's begin."""
    h, w = labels.shape
    starts = np.zeros(count + 2, np.int64)
    for v in range(h):
        for u in range(w):
            starts[labels[v, u] + 1] += 1
    starts[1] = 0
    for number in range(1, count + 2):
        starts[number] += starts[number - 1]
    following = starts.copy()
    out = np.empty(starts[count + 1], np.int64)
    for v in range(h):
        for u in range(w):
            number = labels[v, u]
            if number:
                out[following[number]] = v * w + u
                following[number] += 1
    return out, starts[1:]


@numba.njit(cache=True, nogil=True)
def inner(labels, rim):  # type: ignore[no-untyped-def]
    """Pixels (h, w) of a label whose neighbours `rim` pixels away are of the same one."""
    h, w = labels.shape
    out = np.zeros((h, w), np.bool_)
    for v in range(rim, h - rim):
        for u in range(rim, w - rim):
            own = labels[v, u]
            if own == 0:
                continue
            rows = labels[v - rim, u] == own and labels[v + rim, u] == own
            out[v, u] = rows and labels[v, u - rim] == own and labels[v, u + rim] == own
    return out


@numba.njit(cache=True, nogil=True)
def at_border(labels, count):  # type: ignore[no-untyped-def]
    """Which of the numbers up to `count` have a pixel at the picture's border."""
    h, w = labels.shape
    out = np.zeros(count + 1, np.bool_)
    for u in range(w):
        out[labels[0, u]] = out[labels[h - 1, u]] = True
    for v in range(h):
        out[labels[v, 0]] = out[labels[v, w - 1]] = True
    return out


@numba.njit(cache=True, nogil=True)
def overhangs(labels, points, normals, up, reaches, steepest):  # type: ignore[no-untyped-def]
    """Where a label hangs over another, at most once a pixel: upper, lower, distance, column.

    The upper pixel lies one of `reaches` above in the picture and farther along `up`, no more than
    2 % of depth behind; the lower one's normal has less than `steepest` of `up`.
    """
    h, w = labels.shape
    upper, lower = np.empty(h * w, np.int64), np.empty(h * w, np.int64)
    gap, column = np.empty(h * w, np.float32), np.empty(h * w, np.int64)
    count = 0
    for v in range(h):
        for u in range(w):
            below = labels[v, u]
            if below == 0:
                continue
            tilt = np.float32(0.0)
            for k in range(3):
                tilt += normals[k, v, u] * up[k]
            if not tilt < steepest:
                continue
            for reach in reaches:
                above = labels[v - reach, u] if v >= reach else 0
                if above == 0 or above == below:
                    continue
                x = points[0, v - reach, u] - points[0, v, u]
                y = points[1, v - reach, u] - points[1, v, u]
                z = points[2, v - reach, u] - points[2, v, u]
                over = x * up[0] + y * up[1] + z * up[2] > 0
                if over and z < np.float32(0.02) * points[2, v, u]:
                    upper[count], lower[count] = above, below
                    gap[count], column[count] = np.sqrt(x * x + y * y + z * z), u
                    count += 1
                    break
    return upper[:count].copy(), lower[:count].copy(), gap[:count].copy(), column[:count].copy()


@numba.njit(cache=True, nogil=True)
def widths_and_extents(labels, points, count):  # type: ignore[no-untyped-def]
    """Of each number up to `count`: picture columns with it, and its bounds' longest side."""
    h, w = labels.shape
    width, last = np.zeros(count + 1, np.int64), np.full(count + 1, -1, np.int64)
    low = np.full((count + 1, 3), np.float32(np.inf))
    high = np.full((count + 1, 3), np.float32(-np.inf))
    for u in range(w):
        for v in range(h):
            number = labels[v, u]
            if number and last[number] != u:
                width[number] += 1
                last[number] = u
    for v in range(h):
        for u in range(w):
            number = labels[v, u]
            if number:
                for k in range(3):
                    low[number, k] = min(low[number, k], points[k, v, u])
                    high[number, k] = max(high[number, k], points[k, v, u])
    extent = np.zeros(count + 1, np.float32)
    for number in range(1, count + 1):
        for k in range(3):
            extent[number] = max(extent[number], high[number, k] - low[number, k])
    return width, extent
