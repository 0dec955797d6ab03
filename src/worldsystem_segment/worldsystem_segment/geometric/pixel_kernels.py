# SPDX-License-Identifier: Apache-2.0
"""Compiled loops over the pixels of a view: what is cut, what lies on a plane, what was seen where.

One pass and no temporary each; test/segment/plain_pixels.py has their plain twins. Points and
normals are three planes, (3, h, w), NaN where unknown: a comparison with NaN is false.
"""

from __future__ import annotations

import numba
import numpy as np


@numba.njit(cache=True, nogil=True)
def _across(normals, v, u, points, a, b):  # type: ignore[no-untyped-def]
    """How far the way from point a to point b leaves the plane of the normal at (v, u)."""
    total = np.float32(0.0)
    for k in range(3):
        total += normals[k, v, u] * (points[k, b[0], b[1]] - points[k, a[0], a[1]])
    return abs(total)


@numba.njit(cache=True, nogil=True)
def _jumps(points, normals, valid, a, b, limit, inwards, offset):  # type: ignore[no-untyped-def]
    """Whether depth steps between two pixels of a row or column that are not of one surface.

    A steep view of one surface steps in depth too: then one point lies on the other's plane,
    whose normal is taken a little inwards, where the step does not bend it.
    """
    if not (valid[a] and valid[b]):
        return False
    here, there = points[2, a[0], a[1]], points[2, b[0], b[1]]
    if not (here > there * limit or there > here * limit):
        return False
    h, w = valid.shape
    down, right = (inwards, 0) if a[1] == b[1] else (0, inwards)
    before = _across(normals, max(a[0] - down, 0), max(a[1] - right, 0), points, a, b)
    after = _across(normals, min(b[0] + down, h - 1), min(b[1] + right, w - 1), points, a, b)
    if np.isnan(before) or np.isnan(after):
        return True
    return not min(before, after) < offset * here


@numba.njit(cache=True, nogil=True)
def _folds(points, normals, a, b, limit):  # type: ignore[no-untyped-def]
    """Whether the surface folds inwards between two pixels by more than acos(`limit`)."""
    turn, fold = np.float32(0.0), np.float32(0.0)
    for k in range(3):
        first, second = normals[k, a[0], a[1]], normals[k, b[0], b[1]]
        turn += first * second
        fold += (second - first) * (points[k, b[0], b[1]] - points[k, a[0], a[1]])
    return turn < limit and fold < 0


@numba.njit(cache=True, nogil=True)
def uncut(points, normals, valid, pool, limits, reaches, offset):  # type: ignore[no-untyped-def]
    """Pixels (h, w) of `pool`, as 1, at which nothing is cut.

    `limits` are the ratios of depth that are a jump over `reaches[0]` pixels and over one, and the
    cosine of the crease over `reaches[1]`; `reaches[2]` is how far inwards normals are taken.
    """
    h, w = valid.shape
    out = np.zeros((h, w), np.uint8)
    near, far, inwards = reaches[0] // 2, reaches[1] // 2, reaches[2]
    for v in range(h):
        for u in range(w):
            if not pool[v, u]:
                continue
            cut = False
            for down, right in ((1, 0), (0, 1)):
                after = h - 1 - v if down else w - 1 - u
                before = v if down else u
                if before >= near and after >= near:
                    a = (v - near * down, u - near * right)
                    b = (v + near * down, u + near * right)
                    cut |= _jumps(points, normals, valid, a, b, limits[0], inwards, offset)
                if not cut and after >= 1:
                    b = (v + down, u + right)
                    cut |= _jumps(points, normals, valid, (v, u), b, limits[1], inwards, offset)
                if not cut and before >= far and after >= far:
                    a = (v - far * down, u - far * right)
                    b = (v + far * down, u + far * right)
                    cut |= _folds(points, normals, a, b, limits[2])
                if cut:
                    break
            out[v, u] = not cut
    return out


@numba.njit(cache=True, nogil=True)
def grown(labels, pool, depth, nearest, distance, most_px, most):  # type: ignore[no-untyped-def]
    """Labels (h, w) with the pixels of `pool` that lie by a labelled one, at about its depth.

    `nearest` numbers the labelled pixel next to each, `distance` says how far that is [px].
    """
    h, w = labels.shape
    count = nearest.max() + 1
    seed_label, seed_depth = np.zeros(count, np.int32), np.ones(count, np.float32)
    for v in range(h):
        for u in range(w):
            if labels[v, u]:
                seed_label[nearest[v, u]] = labels[v, u]
                seed_depth[nearest[v, u]] = depth[v, u]
    out = labels.copy()
    for v in range(h):
        for u in range(w):
            if labels[v, u] == 0 and pool[v, u] and distance[v, u] < most_px:
                seed = nearest[v, u]
                if abs(depth[v, u] / seed_depth[seed] - np.float32(1.0)) < most:
                    out[v, u] = seed_label[seed]
    return out


@numba.njit(cache=True, nogil=True)
def four_channels(vectors, which, stride):  # type: ignore[no-untyped-def]
    """Every `stride`-th of the vectors as (h, w, 4); NaN in the fourth and where not `which`."""
    h, w = (which.shape[0] - 1) // stride + 1, (which.shape[1] - 1) // stride + 1
    out = np.full((h, w, 4), np.float32(np.nan))
    for v in range(h):
        for u in range(w):
            if which[v * stride, u * stride]:
                for k in range(3):
                    out[v, u, k] = vectors[k, v * stride, u * stride]
    return out


@numba.njit(cache=True, nogil=True)
def seen_at(points, there_from_here, lens, size):  # type: ignore[no-untyped-def]
    """Pixel (h, w, 2) at which another camera sees each point, -1 where it does not; and which.

    `lens` is its (fx, fy, cx, cy), `size` its width and height [px].
    """
    _, h, w = points.shape
    where, inside = np.full((h, w, 2), np.float32(-1.0)), np.zeros((h, w), np.bool_)
    t = there_from_here
    for v in range(h):
        for u in range(w):
            x, y, z = points[0, v, u], points[1, v, u], points[2, v, u]
            ahead = t[2, 0] * x + t[2, 1] * y + t[2, 2] * z + t[2, 3]
            if not ahead > 0:
                continue
            right = t[0, 0] * x + t[0, 1] * y + t[0, 2] * z + t[0, 3]
            down = t[1, 0] * x + t[1, 1] * y + t[1, 2] * z + t[1, 3]
            column, row = lens[0] * right / ahead + lens[2], lens[1] * down / ahead + lens[3]
            if column > 1 and row > 1 and column < size[0] - 2 and row < size[1] - 2:
                where[v, u, 0], where[v, u, 1] = column, row
                inside[v, u] = True
    return where, inside


@numba.njit(cache=True, nogil=True)
def tints(lab, middle, dark):  # type: ignore[no-untyped-def]
    """Lightness, and chroma as at lightness `middle`, (h, w, 3), of 8-bit CIE Lab."""
    h, w, _ = lab.shape
    out = np.empty((h, w, 3), np.float32)
    for v in range(h):
        for u in range(w):
            light = np.float32(lab[v, u, 0]) * np.float32(100.0 / 255.0)
            lift = middle / max(light, dark)
            out[v, u, 0] = light
            out[v, u, 1] = (np.float32(lab[v, u, 1]) - np.float32(128.0)) * lift
            out[v, u, 2] = (np.float32(lab[v, u, 2]) - np.float32(128.0)) * lift
    return out


@numba.njit(cache=True, nogil=True)
def of_one_colour(labels, tint, edge, light_edge):  # type: ignore[no-untyped-def]
    """Labelled pixels (h, w), as 1, that lie on no edge of colour and at no border of labels."""
    h, w = labels.shape
    out = np.zeros((h, w), np.uint8)
    for v in range(h):
        for u in range(w):
            own = labels[v, u]
            if own == 0:
                continue
            if (v > 0 and labels[v - 1, u] != own) or (u > 0 and labels[v, u - 1] != own):
                continue
            cut = False
            if 0 < v < h - 1:
                cut |= _differs(tint[v - 1, u], tint[v + 1, u], edge, light_edge)
            if 0 < u < w - 1:
                cut |= _differs(tint[v, u - 1], tint[v, u + 1], edge, light_edge)
            out[v, u] = not cut
    return out


@numba.njit(cache=True, nogil=True)
def _differs(one, other, edge, light_edge):  # type: ignore[no-untyped-def]
    tint = abs(one[1] - other[1]) + abs(one[2] - other[2])
    return tint > edge or abs(one[0] - other[0]) > light_edge
