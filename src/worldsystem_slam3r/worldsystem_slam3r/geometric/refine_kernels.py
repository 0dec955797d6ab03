# SPDX-License-Identifier: Apache-2.0
"""Compiled inner loops that sharpen plane-sweep depth between its planes."""

from __future__ import annotations

import numba
import numpy as np

MAX_RESIDUAL = 12.0
"""Mean absolute grey difference above which a neighbour's patch shows something else."""
SETTLED = np.float32(0.1)
"""A first correction of less than this part of a step needs no second one."""
F = np.float32
FAST = {"contract", "arcp", "reassoc", "nsz"}
"""Liberties of rounding; NaN stays NaN."""


@numba.njit(cache=True, nogil=True, fastmath=FAST)
def refine(reference, neighbours, H, b, inverse_depth, step):  # type: ignore[no-untyped-def]
    """Gauss–Newton on the grey difference of 4×4 patches, along the inverse depth of each pixel.

    `reference` (2h, 2w) and `neighbours` (n, 2h, 2w) are float32 pictures of the tracked size; a
    dense pixel (u, v) at inverse depth ρ lies at `H[i] @ (u, v, 1) + ρ b[i]` in neighbour i. Patch
    means and contrasts are equalised. Returns the refined inverse depth, which stays within one
    `step` of the given one, and its information (h, w): 1 / variance, up to a factor.
    """
    h, w = inverse_depth.shape
    n, rows, columns = neighbours.shape
    pixels = neighbours.reshape(n * rows * columns)
    out = inverse_depth.copy()
    information = np.zeros((h, w), np.float32)
    patch, moved, slope = np.empty(16, F), np.empty(16, F), np.empty(16, F)
    right, down = _offsets()
    at, fx, fy = np.empty(16, np.uint32), np.empty(16, F), np.empty(16, F)
    scratch = at, fx, fy, np.empty((4, 16), F), right, down
    for v in range(2, h - 2):
        for u in range(2, w - 2):
            start = inverse_depth[v, u]
            if not start > 0:
                continue
            contrast = _reference_patch(reference, u, v, patch)
            if contrast < F(1.0):
                continue
            rho = start
            total = F(0.0)
            for _ in range(2):
                top, total = F(0.0), F(0.0)
                for i in range(n):
                    begin = i * rows * columns
                    if _warped_patch(
                        pixels, begin, rows, columns, H[i], b[i], u, v, rho, scratch, moved, slope
                    ):
                        jr, jj = _equations(patch, contrast, moved, slope)
                        top += jr
                        total += jj
                if total <= 0:
                    break
                change = min(max(-top / total, -step), step)
                rho += change
                if abs(change) < SETTLED * step:
                    break
            if total > 0 and abs(rho - start) < step and rho > 0:
                out[v, u] = rho
                information[v, u] = total * step * step
    return out, information


@numba.njit(cache=True, nogil=True)
def _offsets():  # type: ignore[no-untyped-def]
    """Where the patch's 16 places are from its middle: right, down [pixels]."""
    right, down = np.empty(16, F), np.empty(16, F)
    for k in range(16):
        right[k], down[k] = F(k & 3) - F(1.5), F(k >> 2) - F(1.5)
    return right, down


@numba.njit(cache=True, nogil=True, inline="always", fastmath=FAST)
def _reference_patch(reference, u, v, patch):  # type: ignore[no-untyped-def]
    """Fill `patch` with grey values less their mean; returns their standard deviation."""
    mean = F(0.0)
    for j in range(4):
        for i in range(4):
            grey = reference[2 * v - 1 + j, 2 * u - 1 + i]
            patch[4 * j + i] = grey
            mean += grey
    mean /= F(16.0)
    spread = F(0.0)
    for k in range(16):
        patch[k] -= mean
        spread += patch[k] * patch[k]
    return np.sqrt(spread / F(16.0))


@numba.njit(cache=True, nogil=True, inline="always", fastmath=FAST)
def _warped_patch(  # type: ignore[no-untyped-def]
    pixels, begin, rows, columns, H, b, u, v, rho, scratch, moved, slope
):
    """Grey values of the patch in a neighbour and their change with ρ; False when outside.

    The neighbour's picture begins at `begin` of all `pixels`.
    """
    uf, vf = F(u), F(v)
    X = H[0, 0] * uf + H[0, 1] * vf + H[0, 2] + rho * b[0]
    Y = H[1, 0] * uf + H[1, 1] * vf + H[1, 2] + rho * b[1]
    Z = H[2, 0] * uf + H[2, 1] * vf + H[2, 2] + rho * b[2]
    if not F(1e-6) < Z:
        return False
    iz = F(1.0) / Z
    x0, y0 = X * iz, Y * iz
    if x0 < 4 or y0 < 4 or x0 > columns - 6 or y0 > rows - 6:
        return False
    dx, dy = (b[0] - x0 * b[2]) * iz, (b[1] - y0 * b[2]) * iz
    half = F(0.5)  # one step of the tracked picture is half a dense pixel
    ax, ay = half * (H[0, 0] - x0 * H[2, 0]) * iz, half * (H[1, 0] - y0 * H[2, 0]) * iz
    cx, cy = half * (H[0, 1] - x0 * H[2, 1]) * iz, half * (H[1, 1] - y0 * H[2, 1]) * iz
    if abs(ax) + abs(cx) + abs(ay) + abs(cy) > 4:
        return False
    at, fx, fy, corners, right, down = scratch
    _places(x0, y0, (ax, ay, cx, cy), right, down, rows, columns, begin, at, fx, fy)
    _corners(pixels, columns, at, corners)
    _between(corners, fx, fy, dx, dy, moved, slope)
    return True


@numba.njit(cache=True, nogil=True, inline="always", fastmath=FAST)
def _places(  # type: ignore[no-untyped-def]
    x0, y0, across, right, down, rows, columns, begin, at, fx, fy
):
    """The pixel up left of each of the patch's places, and how far beyond it the place is."""
    most_x, most_y = F(columns - 2), F(rows - 2)
    base, pitch = np.int32(begin), np.int32(columns)
    ax, ay, cx, cy = across
    for k in range(16):
        x = min(max(x0 + ax * right[k] + cx * down[k], F(0.0)), most_x)
        y = min(max(y0 + ay * right[k] + cy * down[k], F(0.0)), most_y)
        xi, yi = np.int32(x), np.int32(y)
        fx[k], fy[k] = x - F(xi), y - F(yi)
        at[k] = np.uint32(base + yi * pitch + xi)


@numba.njit(cache=True, nogil=True, inline="always")
def _corners(pixels, columns, at, corners):  # type: ignore[no-untyped-def]
    """The four grey values around each place, in a loop of its own: the others vectorise then."""
    one = np.uint64(1)
    for k in range(16):
        above = np.uint64(at[k])
        below = above + np.uint64(columns)
        corners[0, k], corners[1, k] = pixels[above], pixels[above + one]
        corners[2, k], corners[3, k] = pixels[below], pixels[below + one]


@numba.njit(cache=True, nogil=True, inline="always", fastmath=FAST)
def _between(corners, fx, fy, dx, dy, moved, slope):  # type: ignore[no-untyped-def]
    """Bilinear grey values, and how they change with ρ when a place moves by (dx, dy)."""
    for k in range(16):
        above, below = corners[1, k] - corners[0, k], corners[3, k] - corners[2, k]
        upper, lower = corners[0, k] + fx[k] * above, corners[2, k] + fx[k] * below
        moved[k] = upper + fy[k] * (lower - upper)
        slope[k] = (above + fy[k] * (below - above)) * dx + (lower - upper) * dy


@numba.njit(cache=True, nogil=True, inline="always", fastmath=FAST)
def _equations(patch, contrast, moved, slope):  # type: ignore[no-untyped-def]
    """Jᵀr and JᵀJ of one neighbour, means and contrast removed; (0, 0) when it does not match."""
    moved_mean, slope_mean = F(0.0), F(0.0)
    for k in range(16):
        moved_mean += moved[k]
        slope_mean += slope[k]
    moved_mean /= F(16.0)
    slope_mean /= F(16.0)
    spread = F(0.0)
    for k in range(16):
        off_mean = moved[k] - moved_mean
        spread += off_mean * off_mean
    gain = contrast / max(np.sqrt(spread / F(16.0)), F(1.0))
    gain = min(max(gain, F(0.7)), F(1.4))
    jr, jj, off = F(0.0), F(0.0), F(0.0)
    for k in range(16):
        r = gain * (moved[k] - moved_mean) - patch[k]
        s = gain * (slope[k] - slope_mean)
        jr += s * r
        jj += s * s
        off += abs(r)
    off /= F(16.0)
    if off > F(MAX_RESIDUAL) or off > contrast:
        return F(0.0), F(0.0)
    weight = F(1.0) / (F(4.0) + off * off)
    return weight * jr, weight * jj


@numba.njit(cache=True, nogil=True)
def smooth(inverse_depth, information, step):  # type: ignore[no-untyped-def]
    """Mean of the 5×5 neighbours on the same surface, weighted by their information.

    A neighbour is on the same surface within one and a half `step`; the window is used in pairs
    of opposite pixels, so that a slanted surface stays where it is.
    """
    h, w = inverse_depth.shape
    out = inverse_depth.copy()
    for v in range(2, h - 2):
        for u in range(2, w - 2):
            rho = inverse_depth[v, u]
            if not rho > 0:
                continue
            weight = information[v, u] + np.float32(1e-3)
            total = weight * rho
            for dv in range(3):
                for du in range(-2, 3):
                    if dv == 0 and du <= 0:
                        continue
                    a, b = inverse_depth[v + dv, u + du], inverse_depth[v - dv, u - du]
                    if not (abs(a - rho) < 1.5 * step and abs(b - rho) < 1.5 * step):
                        continue
                    pair = min(information[v + dv, u + du], information[v - dv, u - du])
                    pair += np.float32(1e-3)
                    total += pair * (a + b)
                    weight += np.float32(2.0) * pair
            out[v, u] = total / weight
    return out
