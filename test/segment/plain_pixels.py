# SPDX-License-Identifier: Apache-2.0
"""The slow and obvious twins of the compiled loops over pixels: whole pictures at once."""

from __future__ import annotations

import cv2
import numpy as np


def usable_points(pointmap, confidence, least):
    ahead = np.isfinite(pointmap).all(axis=-1) & (pointmap[..., 2] > 0)
    return ahead & (confidence >= least)


def bilateral(log, valid, reach, range_sigma, space_sigma):
    """OpenCV's, with what is unknown far away."""
    far = np.where(valid, log, log[valid].max() + 2.0).astype(np.float32)
    return cv2.bilateralFilter(far, 2 * reach + 1, range_sigma, space_sigma)


def thinned(rgb, mask, pointmap, stride):
    some = (slice(None, None, stride), slice(None, None, stride))
    return rgb[some], mask[some], pointmap[some][..., 2]


def vectors_at(planes, pixels):
    return planes.reshape(3, -1)[:, pixels].T


def on_rays(pointmap, stride, depth):
    raw = pointmap[::stride, ::stride]
    stretch = depth / raw[..., 2]
    return np.stack([raw[..., 0] * stretch, raw[..., 1] * stretch, depth])


def normals_of_slopes(inverse, slope_u, slope_v, valid, lens):
    fx, fy, cx, cy = lens
    v, u = np.mgrid[: inverse.shape[0], : inverse.shape[1]]
    z = inverse - (u - cx) * slope_u - (v - cy) * slope_v
    normals = -np.stack([fx * slope_u, fy * slope_v, z])
    return np.where(valid, normals / np.linalg.norm(normals, axis=0), np.nan)


def draw(small, stride, usable, ids):
    numbers = small.repeat(stride, axis=0).repeat(stride, axis=1)
    numbers = np.where(usable, numbers[: usable.shape[0], : usable.shape[1]], 0)
    return ids[numbers], [_place(numbers == index) for index in range(1, len(ids))]


def _place(mask):
    rows, columns = np.nonzero(mask)
    if not len(rows):
        return None
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1, len(rows)


def uncut(points, normals, valid, pool, limits, reaches, offset):
    cut = np.zeros(valid.shape, bool)
    for axis in (0, 1):
        for reach, limit in ((reaches[0], limits[0]), (1, limits[1])):
            a, mid, b = _shifted(axis, reach)
            ratio = np.maximum(points[2][b] / points[2][a], points[2][a] / points[2][b])
            step = (ratio > limit) & valid[a] & valid[b]
            step[step] = ~_same_surface(points, normals, np.argwhere(step), axis,
                                        (reach, reaches[2], offset))  # fmt: skip
            cut[mid] |= step
        a, mid, b = _shifted(axis, reaches[1])
        way = points[:, *b] - points[:, *a]
        turn = (normals[:, *a] * normals[:, *b]).sum(axis=0)
        fold = ((normals[:, *b] - normals[:, *a]) * way).sum(axis=0)
        cut[mid] |= (turn < limits[2]) & (fold < 0)
    return pool & ~cut


def _shifted(axis, reach):
    """Index pairs `reach` apart along one axis, and the pixel between them."""
    half = reach // 2
    parts = (slice(None, -reach), slice(half, half - reach or None), slice(reach, None))
    return [(p, slice(None)) if axis == 0 else (slice(None), p) for p in parts]


def _same_surface(points, normals, first, axis, reaches):
    reach, inwards, offset = reaches
    second, before, after = first.copy(), first.copy(), first.copy()
    second[:, axis] += reach
    before[:, axis] = np.maximum(first[:, axis] - inwards, 0)
    after[:, axis] = np.minimum(second[:, axis] + inwards, points.shape[1 + axis] - 1)
    way = points[:, *second.T] - points[:, *first.T]
    off = [np.abs((normals[:, *place.T] * way).sum(axis=0)) for place in (before, after)]
    return np.minimum(*off) < offset * points[2][tuple(first.T)]


def grown(labels, pool, depth, nearest, distance, most_px, most):
    at = {nearest[v, u]: (labels[v, u], depth[v, u]) for v, u in np.argwhere(labels)}
    seed_label, seed_depth = np.vectorize(lambda n: at[n], otypes=[np.int32, np.float32])(nearest)
    close = np.abs(depth / seed_depth - 1) < most
    grow = (labels == 0) & pool & (distance < most_px) & close
    return np.where(grow, seed_label, labels)


def four_channels(vectors, which, stride):
    kept = np.where(which, vectors, np.nan)[:, ::stride, ::stride]
    return np.stack([*kept, np.full(kept.shape[1:], np.nan)], axis=-1)


def seen_at(points, there_from_here, lens, size):
    x, y, z = np.tensordot(there_from_here[:, :3], points, 1) + there_from_here[:, 3, None, None]
    u, v = lens[0] * x / z + lens[2], lens[1] * y / z + lens[3]
    inside = (z > 0) & (u > 1) & (v > 1) & (u < size[0] - 2) & (v < size[1] - 2)
    return np.where(inside[..., None], np.stack([u, v], axis=-1), -1), inside


def tints(lab, middle, dark):
    light = lab[..., 0] * (100 / 255)
    chroma = (lab[..., 1:].astype(float) - 128) * (middle / np.maximum(light, dark))[..., None]
    return np.concatenate([light[..., None], chroma], axis=-1)


def of_one_colour(labels, tint, edge, light_edge):
    cut = np.zeros(labels.shape, bool)
    cut[1:] |= labels[1:] != labels[:-1]
    cut[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    for axis in (0, 1):
        a, mid, b = _shifted(axis, 2)
        step = np.abs(tint[b] - tint[a])
        cut[mid] |= (step[..., 1] + step[..., 2] > edge) | (step[..., 0] > light_edge)
    return (labels > 0) & ~cut
