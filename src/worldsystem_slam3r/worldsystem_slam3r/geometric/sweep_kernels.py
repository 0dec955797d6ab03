# SPDX-License-Identifier: Apache-2.0
"""Compiled inner loops of dense depth: census cost volume, path aggregation, consistency."""

from __future__ import annotations

import numba
import numpy as np
from numba.extending import intrinsic

OUTSIDE = 255
"""Cost of a plane at which the pixel leaves the neighbour's picture."""
NO_BITS = 255
"""In place of a number of bits where there is no code to compare with."""
FAR = np.int16(16000)
"""Path cost of a plane that does not exist, far above any real one and far from overflowing."""


@numba.njit(cache=True, nogil=True)
def census(grey):  # type: ignore[no-untyped-def]
    """24 brighter-than-centre bits of a 5×5 pattern with taps two pixels apart; borders are 0."""
    h, w = grey.shape
    out = np.zeros((h, w), np.uint32)
    for v in range(4, h - 4):
        for dv in range(-4, 5, 2):
            for du in range(-4, 5, 2):
                if dv == 0 and du == 0:
                    continue
                for u in range(4, w - 4):
                    bit = np.uint32(grey[v + dv, u + du] > grey[v, u])
                    out[v, u] = (out[v, u] << np.uint32(1)) | bit
    return out


@intrinsic
def _bits(typing_context, word):  # type: ignore[no-untyped-def]
    """Number of set bits, by the processor's own instruction."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return builder.ctpop(arguments[0])

    return numba.types.uint32(numba.types.uint32), generate


@numba.njit(cache=True, nogil=True, fastmath=True)
def cost_volume(reference, neighbours, H, b, inverse_depths):  # type: ignore[no-untyped-def]
    """Matching cost (h, w, d) uint8: the mean of the two neighbours that match best.

    `reference` (h, w) and `neighbours` (n, H, W) are census pictures; a reference pixel at inverse
    depth ρ lies at `H[i] @ (u, v, 1) + ρ b[i]` in neighbour i. A cost is 8 × the differing bits; a
    lone neighbour's counts one bit more.
    """
    h, w = reference.shape
    n, nh, nw = neighbours.shape
    d = len(inverse_depths)
    codes = neighbours.reshape(n * nh * nw)
    out = np.full((h, w, d), OUTSIDE, np.uint8)
    first, second, bits = np.empty(d, np.uint8), np.empty(d, np.uint8), np.empty(d, np.uint8)
    index = np.empty(d, np.uint32)
    for v in range(2, h - 2):
        for u in range(2, w - 2):
            uf, vf = np.float32(u), np.float32(v)
            first[:] = NO_BITS
            second[:] = NO_BITS
            for i in range(n):
                px = H[i, 0, 0] * uf + H[i, 0, 1] * vf + H[i, 0, 2]
                py = H[i, 1, 0] * uf + H[i, 1, 1] * vf + H[i, 1, 2]
                pz = H[i, 2, 0] * uf + H[i, 2, 1] * vf + H[i, 2, 2]
                _line(px, py, pz, b[i], inverse_depths, nh, nw, i * nh * nw, index)
                _differences(reference[v, u], codes, index, bits)
                _lowest_two(bits, first, second)
            _mean(first, second, out[v, u])
    return out


@numba.njit(cache=True, nogil=True, fastmath=True, inline="always")
def _line(px, py, pz, b, inverse_depths, nh, nw, begin, index):  # type: ignore[no-untyped-def]
    """Where each plane's pixel is among all neighbours' codes, of which this one's `begin` there.

    0 stands for outside: no line comes as near to a corner. Free of branches: it vectorises.
    """
    bx, by, bz = b[0], b[1], b[2]
    half, margin = np.float32(0.5), np.float32(4.0)
    right, bottom = np.float32(nw - 4), np.float32(nh - 4)
    base = np.int32(begin)
    for k in range(len(inverse_depths)):
        rho = inverse_depths[k]
        z = pz + rho * bz
        iz = np.float32(1.0) / max(z, np.float32(1e-6))
        x = (px + rho * bx) * iz + half
        y = (py + rho * by) * iz + half
        inside = (x >= margin) & (y >= margin) & (x < right) & (y < bottom)
        xi = np.int32(min(max(x, margin), right))
        yi = np.int32(min(max(y, margin), bottom))
        index[k] = np.uint32(base + yi * np.int32(nw) + xi) if inside else np.uint32(0)


@numba.njit(cache=True, nogil=True, inline="always")
def _differences(code, codes, index, bits):  # type: ignore[no-untyped-def]
    """Differing bits at each index; `NO_BITS` where it is outside."""
    for k in range(len(index)):
        at = index[k]
        bits[k] = np.uint8(_bits(code ^ codes[at])) if at != 0 else np.uint8(NO_BITS)


@numba.njit(cache=True, nogil=True, inline="always")
def _lowest_two(bits, first, second):  # type: ignore[no-untyped-def]
    """Bring the two lowest numbers of bits so far up to date."""
    for k in range(len(bits)):
        a = first[k]
        second[k] = min(second[k], max(a, bits[k]))
        first[k] = min(a, bits[k])


@numba.njit(cache=True, nogil=True, inline="always")
def _mean(first, second, out):  # type: ignore[no-untyped-def]
    """Cost from the two lowest numbers of bits."""
    for k in range(len(out)):
        a, b = np.uint16(first[k]), np.uint16(second[k])
        both = np.uint16(4) * (a + b)
        alone = np.uint16(8) * a + np.uint16(8)
        cost = both if b < NO_BITS else alone
        out[k] = np.uint8(cost if a < NO_BITS else np.uint16(OUTSIDE))


@numba.njit(cache=True, nogil=True, inline="always")
def _along(cost, previous, now, lowest, total, P1, P2):  # type: ignore[no-untyped-def]
    """One step of a path (Hirschmüller, SGM, IEEE TPAMI 2008, eq. 13); adds to `total`.

    `previous` and `now` have a `FAR` plane before the first and one after the last, so that the
    loop is free of branches. `lowest` is the least of `previous`; returns the least of `now`.
    """
    jump = np.int16(lowest + P2)
    least = FAR
    for k in range(len(cost)):
        beside = np.int16(min(previous[k], previous[k + 2]) + P1)
        best = min(min(previous[k + 1], jump), beside)
        path = np.int16(np.int16(cost[k]) + np.int16(best - lowest))
        now[k + 1] = path
        total[k] = np.int16(total[k] + path)
        least = min(least, path)
    return least


@numba.njit(cache=True, nogil=True)
def aggregate(cost, grey, P1, P2_low, P2_high):  # type: ignore[no-untyped-def]
    """Sum of four path costs (h, w, d) int16; a jump costs less across an edge of the picture."""
    h, w, d = cost.shape
    total = np.zeros((h, w, d), np.int16)
    line = np.full((2, d + 2), FAR, np.int16)
    for v in range(h):
        for direction in range(2):
            line[:, 1 : d + 1] = 0
            low = np.int16(0)
            for s in range(w):
                u = s if direction == 0 else w - 1 - s
                before = u - 1 if direction == 0 else u + 1
                P2 = P2_high
                if s > 0 and abs(np.int16(grey[v, u]) - np.int16(grey[v, before])) > 8:
                    P2 = P2_low
                was, now = line[s & 1], line[1 - (s & 1)]
                low = _along(cost[v, u], was, now, low, total[v, u], P1, P2)
    rows = np.full((2, w, d + 2), FAR, np.int16)
    lowest = np.zeros(w, np.int16)
    for direction in range(2):
        rows[:, :, 1 : d + 1] = 0
        lowest[:] = 0
        for s in range(h):
            v = s if direction == 0 else h - 1 - s
            before = v - 1 if direction == 0 else v + 1
            for u in range(w):
                P2 = P2_high
                if s > 0 and abs(np.int16(grey[v, u]) - np.int16(grey[before, u])) > 8:
                    P2 = P2_low
                was, now = rows[s & 1, u], rows[1 - (s & 1), u]
                lowest[u] = _along(cost[v, u], was, now, lowest[u], total[v, u], P1, P2)
    return total


@numba.njit(cache=True, nogil=True, inline="always")
def _least(values, begin, end):  # type: ignore[no-untyped-def]
    least = np.int16(32767)
    for k in range(begin, end):
        least = min(least, values[k])
    return least


@numba.njit(cache=True, nogil=True)
def best_planes(total, cost):  # type: ignore[no-untyped-def]
    """Per pixel the best plane with its fraction (parabola), its distinctness and its own cost.

    Distinctness is 1 − best / second best, the second more than two planes away. The plane is NaN
    where the best one is the first or last, or lies outside every neighbour.
    """
    h, w, d = total.shape
    plane = np.full((h, w), np.nan, np.float32)
    distinct = np.zeros((h, w), np.float32)
    own = np.full((h, w), 255.0, np.float32)
    for v in range(h):
        for u in range(w):
            s = total[v, u]
            least = _least(s, 0, d)
            k = 0
            while s[k] != least:
                k += 1
            if k == 0 or k == d - 1 or cost[v, u, k] == OUTSIDE:
                continue
            second = min(_least(s, 0, k - 2), _least(s, k + 3, d))
            left, middle, right = float(s[k - 1]), float(s[k]), float(s[k + 1])
            bend = left - 2.0 * middle + right
            shift = 0.5 * (left - right) / bend if bend > 0 else 0.0
            plane[v, u] = k + shift
            distinct[v, u] = 1.0 - middle / max(second, 1)
            own[v, u] = cost[v, u, k]
    return plane, distinct, own


@numba.njit(cache=True, nogil=True, fastmath={"contract", "arcp"})
def agreement(inverse_depth, others, H, b, z_row, tolerance):  # type: ignore[no-untyped-def]
    """How many of the other inverse-depth maps agree with, and contradict, each pixel (h, w) int8.

    A contradiction is a surface seen through: the other map sees clearly farther along that ray.
    """
    h, w = inverse_depth.shape
    agree = np.zeros((h, w), np.int8)
    against = np.zeros((h, w), np.int8)
    for i in range(len(others)):
        for v in range(h):
            for u in range(w):
                rho = inverse_depth[v, u]
                if not rho > 0:
                    continue
                z = H[i, 2, 0] * u + H[i, 2, 1] * v + H[i, 2, 2] + rho * b[i, 2]
                if z <= 1e-6:
                    continue
                x = (H[i, 0, 0] * u + H[i, 0, 1] * v + H[i, 0, 2] + rho * b[i, 0]) / z + 0.5
                y = (H[i, 1, 0] * u + H[i, 1, 1] * v + H[i, 1, 2] + rho * b[i, 1]) / z + 0.5
                if x < 0 or y < 0 or x >= w or y >= h:
                    continue
                seen = others[i, int(y), int(x)]
                if not seen > 0:
                    continue
                ratio = seen * z / rho * z_row
                if abs(ratio - 1.0) < tolerance:
                    agree[v, u] += 1
                elif ratio < 1.0 - 3.0 * tolerance:
                    against[v, u] += 1
    return agree, against
