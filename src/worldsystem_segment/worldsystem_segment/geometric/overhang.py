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

from worldsystem_segment.geometric.instance_kernels import (
    looked_up,
    overhangs,
    widths_and_extents,
)
from worldsystem_segment.objects.normals import planes_of
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
    points, normals = planes_of(view.points_cam), planes_of(view.normals)
    up = up_cam.astype(np.float32)
    upper, lower, gap, column = overhangs(
        labels, points, normals, up, REACH_PX, np.float32(UPRIGHT)
    )
    if not len(upper):
        return labels
    width, extent = widths_and_extents(labels, points, count)
    keys, place = np.unique(upper * (count + 1) + lower, return_inverse=True)
    mean_gap = np.bincount(place, weights=gap) / np.bincount(place)
    a, b = np.divmod(keys, count + 1)
    w = labels.shape[1]
    under = np.bincount(np.unique(place * w + column) // w)  # columns, however many their pixels
    joined = under > MIN_SHARE * np.minimum(width[a], width[b])
    joined &= mean_gap < MAX_GAP * np.maximum(extent[a], extent[b])
    if not joined.any():
        return labels
    links = coo_array((joined[joined], (a[joined], b[joined])), shape=(count + 1, count + 1))
    _, group = connected_components(links, directed=False)
    dense = np.unique(group, return_inverse=True)[1]  # 0 stays alone and therefore first
    return np.asarray(looked_up(dense.astype(np.int32), labels))
