# SPDX-License-Identifier: Apache-2.0
"""Compiled loops over the pixels of a keyframe: usable points, smoothing, normals, drawn labels.

One pass and no temporary each; test/segment/plain_pixels.py has their plain twins. Vectors are
three planes, (3, h, w).
"""

from __future__ import annotations

import numba
import numpy as np

FAR = np.float32(1e4)
"""Log depth of what is unknown: so far from everything that it weighs nothing."""


@numba.njit(cache=True, nogil=True)
def usable_points(pointmap, confidence, least):  # type: ignore[no-untyped-def]
    """Which pixels (h, w) have a finite point before the camera that is confident enough."""
    h, w = confidence.shape
    out = np.empty((h, w), np.bool_)
    for v in range(h):
        for u in range(w):
            x, y, z = pointmap[v, u, 0], pointmap[v, u, 1], pointmap[v, u, 2]
            nothing = (x - x) + (y - y) + (z - z)  # NaN unless all three are finite
            out[v, u] = (nothing == 0) & (z > 0) & (confidence[v, u] >= least)
    return out


@numba.njit(cache=True, nogil=True)
def thinned(rgb, mask, pointmap, stride):  # type: ignore[no-untyped-def]
    """Colour (h, w, 3), mask and depth of every `stride`-th pixel."""
    h, w = (mask.shape[0] - 1) // stride + 1, (mask.shape[1] - 1) // stride + 1
    colour, kept = np.empty((h, w, 3), np.uint8), np.empty((h, w), np.bool_)
    depth = np.empty((h, w), np.float32)
    for v in range(h):
        for u in range(w):
            for k in range(3):
                colour[v, u, k] = rgb[v * stride, u * stride, k]
            kept[v, u] = mask[v * stride, u * stride]
            depth[v, u] = pointmap[v * stride, u * stride, 2]
    return colour, kept, depth


@numba.njit(cache=True, nogil=True)
def vectors_at(planes, pixels):  # type: ignore[no-untyped-def]
    """The vectors (n, 3) at flat pixel numbers of three planes (3, h, w)."""
    w = planes.shape[2]
    out = np.empty((len(pixels), 3), np.float32)
    for index in range(len(pixels)):
        v, u = pixels[index] // w, pixels[index] % w
        for k in range(3):
            out[index, k] = planes[k, v, u]
    return out


@numba.njit(cache=True, nogil=True, fastmath=True)
def bilateral(log, reach, range_sigma, space_sigma):  # type: ignore[no-untyped-def]
    """Bilateral filter over a disk. `log` (h + 2 reach, w + 2 reach) is the picture within a frame.

    The weight of a difference is (1 - x / 16)^16 where a Gaussian has exp(-x): within 0.02 of it,
    and made of multiplications.
    """
    h, w = log.shape[0] - 2 * reach, log.shape[1] - 2 * reach
    out = np.empty((h, w), np.float32)
    total, weights = np.empty(w, np.float32), np.empty(w, np.float32)
    shrink = np.float32(1.0 / (32.0 * range_sigma * range_sigma))
    zero, one = np.float32(0.0), np.float32(1.0)
    for v in range(h):
        centre = log[v + reach][reach : reach + w]
        total[:], weights[:] = zero, one
        for dv in range(-reach, reach + 1):
            row = log[v + reach + dv]
            for du in range(-reach, reach + 1):
                away = dv * dv + du * du
                if away > reach * reach or away == 0:
                    continue
                near = np.float32(np.exp(-away / (2.0 * space_sigma * space_sigma)))
                other = row[reach + du : reach + du + w]
                for u in range(w):
                    step = other[u] - centre[u]
                    t = max(zero, one - step * step * shrink)
                    t *= t
                    t *= t
                    t *= t
                    t *= t
                    weights[u] += near * t
                    total[u] += near * t * step
        for u in range(w):
            out[v, u] = centre[u] + total[u] / weights[u]
    return out


@numba.njit(cache=True, nogil=True)
def on_rays(pointmap, stride, depth):  # type: ignore[no-untyped-def]
    """Points (3, h, w) at `depth` on the rays of every `stride`-th pixel; NaN where that is."""
    h, w = depth.shape
    out = np.empty((3, h, w), np.float32)
    for v in range(h):
        for u in range(w):
            z = pointmap[v * stride, u * stride, 2]
            stretch = depth[v, u] / z if z > 0 else np.float32(np.nan)
            out[0, v, u] = pointmap[v * stride, u * stride, 0] * stretch
            out[1, v, u] = pointmap[v * stride, u * stride, 1] * stretch
            out[2, v, u] = depth[v, u]
    return out


@numba.njit(cache=True, nogil=True)
def normals_of_slopes(inverse, slope_u, slope_v, valid, lens):  # type: ignore[no-untyped-def]
    """Unit normals (3, h, w) of planes of inverse depth; NaN where not `valid`.

    `lens` is (fx, fy, cx, cy) [px].
    """
    h, w = inverse.shape
    fx, fy, cx, cy = lens[0], lens[1], lens[2], lens[3]
    out = np.empty((3, h, w), np.float32)
    for v in range(h):
        dv = np.float32(v) - cy
        for u in range(w):
            x, y = fx * slope_u[v, u], fy * slope_v[v, u]
            du = np.float32(u) - cx
            z = inverse[v, u] - du * slope_u[v, u] - dv * slope_v[v, u]
            length = max(np.sqrt(x * x + y * y + z * z), np.float32(1e-20))
            shorten = np.float32(-1.0) / length if valid[v, u] else np.float32(np.nan)
            out[0, v, u], out[1, v, u], out[2, v, u] = x * shorten, y * shorten, z * shorten
    return out


@numba.njit(cache=True, nogil=True)
def draw(small, stride, usable, ids):  # type: ignore[no-untyped-def]
    """Ids (h, w) of a thinned picture of numbers, and where each number lies.

    Pixels that are not `usable` are 0. Rows of the second are (x0, y0, x1, y1, area), the upper
    ends exclusive; an area of 0 is a number without a pixel.
    """
    h, w = usable.shape
    out = np.zeros((h, w), np.uint16)
    places = np.zeros((len(ids), 5), np.int64)
    places[:, 0], places[:, 1] = w, h
    for row in range(small.shape[0]):
        for column in range(small.shape[1]):
            number = small[row, column]
            if number == 0:
                continue
            place = places[number]
            for v in range(row * stride, min((row + 1) * stride, h)):
                for u in range(column * stride, min((column + 1) * stride, w)):
                    if not usable[v, u]:
                        continue
                    out[v, u] = ids[number]
                    place[0], place[1] = min(place[0], u), min(place[1], v)
                    place[2], place[3] = max(place[2], u + 1), max(place[3], v + 1)
                    place[4] += 1
    return out, places
