# SPDX-License-Identifier: Apache-2.0
"""Compiled inner loops that sharpen plane-sweep depth between its planes."""

from __future__ import annotations

import numba
import numpy as np

MAX_RESIDUAL = 12.0
"""Mean absolute grey difference above which a neighbour's patch shows something else."""


@numba.njit(cache=True, nogil=True, fastmath={"contract", "arcp"})
def refine(reference, neighbours, H, b, inverse_depth, step):  # type: ignore[no-untyped-def]
    """Gauss–Newton on the grey difference of 4×4 patches, along the inverse depth of each pixel.

    `reference` (2h, 2w) and `neighbours` (n, 2h, 2w) are float32 pictures of the tracked size; a
    dense pixel (u, v) at inverse depth ρ lies at `H[i] @ (u, v, 1) + ρ b[i]` in neighbour i. Patch
    means and contrasts are equalised. Returns the refined inverse depth, which stays within one
    `step` of the given one, and its information (h, w): 1 / variance, up to a factor.
    """
    h, w = inverse_depth.shape
    out = inverse_depth.copy()
    information = np.zeros((h, w), np.float32)
    patch, moved, slope = (
        np.empty(16, np.float32),
        np.empty(16, np.float32),
        np.empty(16, np.float32),
    )
    for v in range(2, h - 2):
        for u in range(2, w - 2):
            start = inverse_depth[v, u]
            if not start > 0:
                continue
            mean, contrast = _reference_patch(reference, u, v, patch)
            if contrast < 1.0:
                continue
            rho = start
            total = np.float32(0.0)
            for _ in range(2):
                top, total = np.float32(0.0), np.float32(0.0)
                for i in range(len(neighbours)):
                    if not _warped_patch(neighbours[i], H[i], b[i], u, v, rho, moved, slope):
                        continue
                    jr, jj = _equations(patch, mean, contrast, moved, slope)
                    top += jr
                    total += jj
                if total <= 0:
                    break
                change = -top / total
                rho += min(max(change, -step), step)
            if total > 0 and abs(rho - start) < step and rho > 0:
                out[v, u] = rho
                information[v, u] = total * step * step
    return out, information


@numba.njit(cache=True, nogil=True, inline="always")
def _reference_patch(reference, u, v, patch):  # type: ignore[no-untyped-def]
    mean = np.float32(0.0)
    k = 0
    for y in range(2 * v - 1, 2 * v + 3):
        for x in range(2 * u - 1, 2 * u + 3):
            patch[k] = reference[y, x]
            mean += patch[k]
            k += 1
    mean /= np.float32(16.0)
    spread = np.float32(0.0)
    for k in range(16):
        patch[k] -= mean
        spread += patch[k] * patch[k]
    return mean, np.sqrt(spread / np.float32(16.0))


@numba.njit(cache=True, nogil=True, inline="always", fastmath={"contract", "arcp"})
def _warped_patch(picture, H, b, u, v, rho, moved, slope):  # type: ignore[no-untyped-def]
    """Grey values of the patch in a neighbour and their change with ρ; False when outside."""
    uf, vf = np.float32(u), np.float32(v)
    X = H[0, 0] * uf + H[0, 1] * vf + H[0, 2] + rho * b[0]
    Y = H[1, 0] * uf + H[1, 1] * vf + H[1, 2] + rho * b[1]
    Z = H[2, 0] * uf + H[2, 1] * vf + H[2, 2] + rho * b[2]
    if not np.float32(1e-6) < Z:
        return False
    iz = np.float32(1.0) / Z
    x0, y0 = X * iz, Y * iz
    rows, columns = picture.shape
    if x0 < 4 or y0 < 4 or x0 > columns - 6 or y0 > rows - 6:
        return False
    dx, dy = (b[0] - x0 * b[2]) * iz, (b[1] - y0 * b[2]) * iz
    half = np.float32(0.5)  # one step of the tracked picture is half a dense pixel
    ax, ay = half * (H[0, 0] - x0 * H[2, 0]) * iz, half * (H[1, 0] - y0 * H[2, 0]) * iz
    cx, cy = half * (H[0, 1] - x0 * H[2, 1]) * iz, half * (H[1, 1] - y0 * H[2, 1]) * iz
    if abs(ax) + abs(cx) + abs(ay) + abs(cy) > 4:
        return False
    k = 0
    for j in range(4):
        oj = np.float32(j) - np.float32(1.5)
        for i in range(4):
            oi = np.float32(i) - np.float32(1.5)
            x = min(max(x0 + ax * oi + cx * oj, np.float32(0.0)), np.float32(columns - 2))
            y = min(max(y0 + ay * oi + cy * oj, np.float32(0.0)), np.float32(rows - 2))
            xi, yi = np.int32(x), np.int32(y)
            fx, fy = x - np.float32(xi), y - np.float32(yi)
            p00, p01 = picture[yi, xi], picture[yi, xi + 1]
            p10, p11 = picture[yi + 1, xi], picture[yi + 1, xi + 1]
            top, bottom = p00 + fx * (p01 - p00), p10 + fx * (p11 - p10)
            moved[k] = top + fy * (bottom - top)
            gx = (p01 - p00) + fy * ((p11 - p10) - (p01 - p00))
            slope[k] = gx * dx + (bottom - top) * dy
            k += 1
    return True


@numba.njit(cache=True, nogil=True, inline="always", fastmath={"contract", "arcp"})
def _equations(patch, mean, contrast, moved, slope):  # type: ignore[no-untyped-def]
    """Jᵀr and JᵀJ of one neighbour, means and contrast removed; (0, 0) when it does not match."""
    moved_mean, slope_mean = np.float32(0.0), np.float32(0.0)
    for k in range(16):
        moved_mean += moved[k]
        slope_mean += slope[k]
    moved_mean /= np.float32(16.0)
    slope_mean /= np.float32(16.0)
    spread = np.float32(0.0)
    for k in range(16):
        spread += (moved[k] - moved_mean) ** 2
    gain = contrast / max(np.sqrt(spread / np.float32(16.0)), np.float32(1.0))
    gain = min(max(gain, np.float32(0.7)), np.float32(1.4))
    jr, jj, off = np.float32(0.0), np.float32(0.0), np.float32(0.0)
    for k in range(16):
        r = gain * (moved[k] - moved_mean) - patch[k]
        s = gain * (slope[k] - slope_mean)
        jr += s * r
        jj += s * s
        off += abs(r)
    off /= np.float32(16.0)
    if off > np.float32(MAX_RESIDUAL) or off > contrast:
        return np.float32(0.0), np.float32(0.0)
    weight = np.float32(1.0) / (np.float32(4.0) + off * off)
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
