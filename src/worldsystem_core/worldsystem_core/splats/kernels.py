# SPDX-License-Identifier: Apache-2.0
"""Compiled loops over splats: what a keyframe says of them, whether they show anything new, and
which colours draw the picture.

They run without the interpreter's lock. Twins in plain numpy: `test/splats/plain_splats.py`.
"""
# mypy: ignore-errors

from __future__ import annotations

import numpy as np
from numba import njit

from worldsystem_core.splats.projection import MOST_ALPHA
from worldsystem_core.splats.voxel_kernels import key_at, place_of

SEEN_THROUGH = 0.92
AGREES = 0.05


@njit(cache=True, nogil=True)
def judge(means, rotation, translation, intrinsics, nearest, depth, most, doubts):
    """Count `doubts` on points, which `rotation` (its scale included) and `translation` take to the
    camera, up to `most`, and return how many have so many: see `sight.cast_doubt`."""
    fx, fy, cx, cy = intrinsics
    height, width = depth.shape
    count = 0
    for i in range(len(means)):
        a, b, c = means[i]
        z = rotation[2, 0] * a + rotation[2, 1] * b + rotation[2, 2] * c + translation[2]
        if z > 1e-6:
            x = rotation[0, 0] * a + rotation[0, 1] * b + rotation[0, 2] * c + translation[0]
            y = rotation[1, 0] * a + rotation[1, 1] * b + rotation[1, 2] * c + translation[1]
            u, v = fx * x / z + cx, fy * y / z + cy
            if -0.5 < u < width - 0.5 and -0.5 < v < height - 0.5:
                column = min(max(int(np.rint(u)), 0), width - 1)
                row = min(max(int(np.rint(v)), 0), height - 1)
                if abs(z - depth[row, column]) < AGREES * z:
                    doubts[i] = 0
                elif z < SEEN_THROUGH * nearest[row, column] and doubts[i] < most:
                    doubts[i] += 1
        if doubts[i] >= most:
            count += 1
    return count


@njit(cache=True, nogil=True)
def show_nothing_new(
    means, rotation, translation, levels, voxel, shares, held, own, finer, covered
):
    """Which points, moved along their rays by one of `shares`, lie in a voxel of which splats
    cover more than half of the face; `rotation` has the scale in it."""
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
            at = place_of(held, key)
            if held[at] == key and own[at] + finer[at] > 0.5 * size * size:
                covered[i] = True
                break


@njit(cache=True, nogil=True, fastmath=True)
def share_samples(depth, opacity, needed, falloff, shares):
    """How much the 3 × 3 discs around a pixel show of themselves at each of its four samples.

    `depth` and `opacity` have a margin of one pixel all around, `shares` (h, w, 4, 9) has not; of
    pixels that are not `needed` it is left as it is.
    """
    order, near, far = np.arange(9), np.empty(9, np.float32), np.empty(9, np.float32)
    solid, through = np.empty(9, np.float32), np.empty(4, np.float32)
    for row in range(needed.shape[0]):
        for column in range(needed.shape[1]):
            if not needed[row, column]:
                continue
            for i in range(3):
                for j in range(3):
                    near[3 * i + j] = depth[row + i, column + j]
                    solid[3 * i + j] = opacity[row + i, column + j]
            through[:] = 1
            for i in range(9):  # sorted in, nearest first; the order is mostly that of the last
                k, at = order[i], i
                z = near[k]
                while at > 0 and (far[at - 1] > z or (far[at - 1] == z and order[at - 1] > k)):
                    far[at], order[at] = far[at - 1], order[at - 1]
                    at -= 1
                far[at], order[at] = z, k
            for at in range(9):
                k = order[at]
                for sample in range(4):
                    alpha = min(np.float32(MOST_ALPHA), falloff[sample, k] * solid[k])
                    shares[row, column, sample, k] = through[sample] * alpha
                    through[sample] *= np.float32(1) - alpha


@njit(cache=True, nogil=True, fastmath=True)
def correct_colours(shares, needed, wanted, step, closed, colours):
    """Move each disc's colour by the mean of what is wrong where it shows, times `step`.

    `wanted` (2h, 2w, 3) and `colours` (h+2, w+2, 3, with a margin) are in [0, 255]. Samples that
    are covered by less than `closed` are wanted so much darker.
    """
    wrong = np.zeros_like(colours)
    shown = np.zeros(colours.shape[:2], np.float32)
    for row in range(needed.shape[0]):
        for column in range(needed.shape[1]):
            if not needed[row, column]:
                continue
            for sample in range(4):
                covered = red = green = blue = np.float32(0)
                for k in range(9):
                    share = shares[row, column, sample, k]
                    r, c = row + k // 3, column + k % 3
                    covered += share
                    red += share * colours[r, c, 0]
                    green += share * colours[r, c, 1]
                    blue += share * colours[r, c, 2]
                dim = min(np.float32(1), covered / closed)
                r, c = 2 * row + sample // 2, 2 * column + sample % 2
                red = dim * np.float32(wanted[r, c, 0]) - red
                green = dim * np.float32(wanted[r, c, 1]) - green
                blue = dim * np.float32(wanted[r, c, 2]) - blue
                for k in range(9):
                    share = shares[row, column, sample, k]
                    r, c = row + k // 3, column + k % 3
                    shown[r, c] += share
                    wrong[r, c, 0] += share * red
                    wrong[r, c, 1] += share * green
                    wrong[r, c, 2] += share * blue
    for row in range(colours.shape[0]):
        for column in range(colours.shape[1]):
            gain = step / max(shown[row, column], np.float32(0.05))
            for k in range(3):
                colour = colours[row, column, k] + gain * wrong[row, column, k]
                colours[row, column, k] = min(np.float32(255), max(np.float32(0), colour))


@njit(cache=True, nogil=True)
def clamp_to_corners(rgb, large):
    """Keep each sample of `large` between the four pixels of `rgb` around it."""
    height, width = rgb.shape[:2]
    for row in range(2 * height):
        top, bottom = max((row + 1) // 2 - 1, 0), min((row + 1) // 2, height - 1)
        for column in range(2 * width):
            left, right = max((column + 1) // 2 - 1, 0), min((column + 1) // 2, width - 1)
            for k in range(3):
                a, b = rgb[top, left, k], rgb[top, right, k]
                c, d = rgb[bottom, left, k], rgb[bottom, right, k]
                least, most = min(min(a, b), min(c, d)), max(max(a, b), max(c, d))
                large[row, column, k] = min(max(large[row, column, k], least), most)
