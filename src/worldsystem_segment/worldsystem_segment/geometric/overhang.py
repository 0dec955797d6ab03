# SPDX-License-Identifier: Apache-2.0
"""Joining what an overhang parts: eaves and the wall below, a crown and its trunk, a table top.

A piece that closely overhangs the upright side of another belongs to it. What stands *on* another
does not: there the lower surface looks up.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32, Int32
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from worldsystem_segment.objects.normals import along, dot
from worldsystem_segment.objects.view import View

REACH_PX = (1, 3, 5, 8)
MIN_SHARE = 0.5  # of the narrower piece's width that lies under the other
MAX_GAP = 0.15  # of the larger piece's extent
UPRIGHT = 0.6  # cosine: the lower surface must not look up more than this


def join_overhangs(
    labels: Int32[np.ndarray, "h w"], view: View, up_cam: Float32[np.ndarray, "3"]
) -> Int32[np.ndarray, "h w"]:
    """Merge instances of which one overhangs the other; numbers stay dense from 1."""
    count = int(labels.max())
    if count < 2:
        return labels
    upper, lower, gap = _pairs(labels, view, up_cam)
    if not len(upper):
        return labels
    width, extent = _widths_and_extents(labels, view, count)
    keys, place = np.unique(upper * (count + 1) + lower, return_inverse=True)
    touching = np.bincount(place)
    mean_gap = np.bincount(place, weights=gap) / touching
    a, b = np.divmod(keys, count + 1)
    joined = touching > MIN_SHARE * np.minimum(width[a], width[b])
    joined &= mean_gap < MAX_GAP * np.maximum(extent[a], extent[b])
    links = coo_array((joined[joined], (a[joined], b[joined])), shape=(count + 1, count + 1))
    _, group = connected_components(links, directed=False)
    dense = np.unique(group, return_inverse=True)[1]  # 0 stays alone and therefore first
    return np.asarray(dense[labels], dtype=np.int32)


def _pairs(
    labels: Int32[np.ndarray, "h w"], view: View, up_cam: Float32[np.ndarray, "3"]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Per picture column: labels of a piece and of the piece it overhangs, and their distance."""
    tilt = along(view.normals, up_cam)
    found = []
    taken = np.zeros(labels.shape, bool)
    for reach in REACH_PX:
        above, below = labels[:-reach], labels[reach:]
        meets = (above > 0) & (below > 0) & (above != below) & ~taken[reach:]
        rows, columns = np.nonzero(meets)
        under = rows + reach
        way = view.points_cam[rows, columns] - view.points_cam[under, columns]
        over = (way @ up_cam > 0) & (tilt[under, columns] < UPRIGHT)
        over &= way[:, 2] < 0.02 * view.depth[under, columns]
        rows, columns, under, way = rows[over], columns[over], under[over], way[over]
        taken[under, columns] = True
        found.append((labels[rows, columns], labels[under, columns], np.sqrt(dot(way, way))))
    first, second, gap = (np.concatenate(part) for part in zip(*found, strict=True))
    return first.astype(np.int64), second.astype(np.int64), gap


def _widths_and_extents(
    labels: Int32[np.ndarray, "h w"], view: View, count: int
) -> tuple[np.ndarray, np.ndarray]:
    # width in picture columns, extent as the longest side of the bounds
    cells = labels + (count + 1) * np.arange(labels.shape[1])
    seen = np.bincount(cells.ravel(), minlength=(count + 1) * labels.shape[1]) > 0
    width = seen.reshape(labels.shape[1], count + 1).sum(axis=0)
    pixels = np.flatnonzero(labels)
    pixels = pixels[np.argsort(labels.ravel()[pixels], kind="stable")]
    points = view.points_at(pixels)
    starts = np.searchsorted(labels.ravel()[pixels], np.arange(1, count + 1))
    low, high = np.minimum.reduceat(points, starts), np.maximum.reduceat(points, starts)
    return width, np.append(0.0, (high - low).max(axis=1))
