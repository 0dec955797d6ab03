# SPDX-License-Identifier: Apache-2.0
"""Compiled loops behind the ground: which way is up, which plane lies low, what rises from it.

test/segment/plain_geometry.py has their plain twins. Points and normals are three planes,
(3, h, w), NaN where unknown: a comparison with NaN is false.
"""

from __future__ import annotations

import numba
import numpy as np

STARTS = 24
START_NEAR = np.float32(0.94)


@numba.njit(cache=True, nogil=True)
def sampled(vectors, which, stride):  # type: ignore[no-untyped-def]
    """The vectors (3, n) at every `stride`-th pixel of `which`, row by row."""
    h, w = which.shape
    out = np.empty((3, ((h - 1) // stride + 1) * ((w - 1) // stride + 1)), np.float32)
    count = 0
    for v in range(0, h, stride):
        for u in range(0, w, stride):
            if which[v, u]:
                for k in range(3):
                    out[k, count] = vectors[k, v, u]
                count += 1
    return out[:, :count].copy()


@numba.njit(cache=True, nogil=True)
def looking(normals, which, direction, least):  # type: ignore[no-untyped-def]
    """Pixels (h, w) of `which` whose normal has more than `least` of `direction`."""
    h, w = which.shape
    out = np.zeros((h, w), np.bool_)
    a, b, c = direction[0], direction[1], direction[2]
    for v in range(h):
        for u in range(w):
            way = normals[0, v, u] * a + normals[1, v, u] * b + normals[2, v, u] * c
            out[v, u] = which[v, u] & (way > least)
    return out


@numba.njit(cache=True, nogil=True)
def densest(normals, weights):  # type: ignore[no-untyped-def]
    """Of some of the normals (3, n), spread over their order, the one with most weight near it."""
    count = normals.shape[1]
    best, most = np.zeros(3, np.float32), np.float32(-1.0)
    for start in range(STARTS):
        place = int(start * (count - 1) / (STARTS - 1))
        a, b, c = normals[0, place], normals[1, place], normals[2, place]
        total = np.float32(0.0)
        for k in range(count):
            near = normals[0, k] * a + normals[1, k] * b + normals[2, k] * c > START_NEAR
            total += weights[k] if near else np.float32(0.0)
        if total > most:
            most = total
            best[0], best[1], best[2] = a, b, c
    return best


@numba.njit(cache=True, nogil=True)
def mean_near(normals, direction, least):  # type: ignore[no-untyped-def]
    """Sum (3,) of the normals (3, n) with more than `least` of `direction`, of unit length.

    Zero where there is none.
    """
    a, b, c = direction[0], direction[1], direction[2]
    total = np.zeros(3)
    for k in range(normals.shape[1]):
        if normals[0, k] * a + normals[1, k] * b + normals[2, k] * c > least:
            for axis in range(3):
                total[axis] += normals[axis, k]
    length = np.sqrt((total * total).sum())
    return (total / length if length > 0 else total).astype(np.float32)


@numba.njit(cache=True, nogil=True)
def heights_by_bin(points, direction, bins):  # type: ignore[no-untyped-def]
    """How many points (3, n) lie at which height along `direction`; least height, bin's width."""
    count = points.shape[1]
    height = np.empty(count, np.float32)
    for k in range(count):
        height[k] = (
            points[0, k] * direction[0] + points[1, k] * direction[1] + points[2, k] * direction[2]
        )
    low, high = height.min() - np.float32(1e-3), height.max() + np.float32(1e-3)
    width = (high - low) / bins
    found = np.zeros(bins, np.int64)
    for k in range(count):
        found[min(int((height[k] - low) / width), bins - 1)] += 1
    return found, low, width


@numba.njit(cache=True, nogil=True)
def plane_equations(points, plane, gate, basis):  # type: ignore[no-untyped-def]
    """Normal equations (3, 4) of tilt and shift that bring a plane (n, d) to the points near it.

    Points (3, n) count within `gate` of their depth, weighed by the inverse of its square; tilt is
    along `basis` (3, 2) about the points' mean. Also returns that mean (3,) and how many there are.
    """
    count, mean = 0, np.zeros(3)
    distances = np.empty(points.shape[1], np.float32)
    for k in range(points.shape[1]):
        distance = (
            points[0, k] * plane[0] + points[1, k] * plane[1] + points[2, k] * plane[2] + plane[3]
        )
        close = abs(distance) < gate * points[2, k]
        distances[k] = distance if close else np.float32(np.nan)
        if close:
            count += 1
            for axis in range(3):
                mean[axis] += points[axis, k]
    mean /= max(count, 1)
    out, row = np.zeros((3, 4)), np.ones(4)
    for k in range(points.shape[1]):
        if np.isnan(distances[k]):
            continue
        row[0], row[1], row[3] = 0.0, 0.0, distances[k]
        for axis in range(3):
            local = points[axis, k] - mean[axis]
            row[0] += local * basis[axis, 0]
            row[1] += local * basis[axis, 1]
        weight = 1.0 / max(points[2, k], 1e-6) ** 2
        for i in range(3):
            for j in range(i, 4):
                out[i, j] += weight * row[i] * row[j]
    for i in range(3):
        for j in range(i):
            out[i, j] = out[j, i]
    return out, mean, count


@numba.njit(cache=True, nogil=True)
def beside_ground(  # type: ignore[no-untyped-def]
    points, normals, valid, plane, relief, tolerance, tall
):
    """Pixels (h, w) on the ground, below it and well above it: three masks (3, h, w).

    Heights are above the plane (n, d) and `relief` (h, w) [of depth] on it; ground lies within
    `tolerance` of depth, or within 0.6 of that where it does not look up, and tall is beyond `tall`
    times as much.
    """
    h, w = valid.shape
    out = np.zeros((3, h, w), np.bool_)
    a, b, c, d = plane[0], plane[1], plane[2], plane[3]
    narrow, half = np.float32(0.6), np.float32(0.5)
    for v in range(h):
        for u in range(w):
            z = points[2, v, u]
            above = points[0, v, u] * a + points[1, v, u] * b + z * c + d - relief[v, u] * z
            limit = tolerance * z
            up = normals[0, v, u] * a + normals[1, v, u] * b + normals[2, v, u] * c > half
            out[0, v, u] = valid[v, u] & (abs(above) < (limit if up else narrow * limit))
            out[1, v, u] = valid[v, u] & (above <= -limit)
            out[2, v, u] = above > tall * limit
    return out
