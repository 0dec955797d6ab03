# SPDX-License-Identifier: Apache-2.0
"""Cutting what stands on the structure into instances, at depth jumps and concave creases.

Convex pieces hang together, concave creases part them: LCCP (Stein et al., CVPR 2014), here on the
pixel grid of an organised pointmap.
"""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Int32

from worldsystem_segment.config import SegmentConfig
from worldsystem_segment.geometric.normals import dot
from worldsystem_segment.geometric.view import View

JUMP_REACH_PX = 2
CREASE_REACH_PX = 4
REGROW_PX = 5.0


def cut_instances(
    view: View, pool: Bool[np.ndarray, "h w"], config: SegmentConfig
) -> Int32[np.ndarray, "h w"]:
    """Number the instances among the `pool` pixels from 1; 0 is everything else."""
    min_area_px = max(8, int(config.min_area_fraction * pool.size))
    jumps = depth_jumps(view, config.jump)
    cut = jumps | concave_creases(view, config.crease_deg)
    seeds = (pool & ~cut).astype(np.uint8)
    seeds = cv2.morphologyEx(seeds, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    labels = _large_components(seeds, max(6, min_area_px // 3))
    labels = _regrown(labels, pool, view, config.jump)
    return _renumbered(labels, min_area_px)


def depth_jumps(view: View, jump: float) -> Bool[np.ndarray, "h w"]:
    """Pixels between which and a near neighbour depth steps by more than `jump`, or is unknown."""
    log = np.log(np.where(view.valid, view.depth, 1.0)).astype(np.float32)
    cut = np.zeros(log.shape, bool)
    for axis in (0, 1):
        a, mid, b = _shifted(axis, JUMP_REACH_PX)
        step = np.abs(log[b] - log[a]) > jump
        step &= view.valid[a] & view.valid[b]
        cut[mid] |= step
        a, _, b = _shifted(axis, 1)
        step = np.abs(log[b] - log[a]) > 0.6 * jump
        step &= view.valid[a] & view.valid[b]
        cut[a] |= step
    return cut


def concave_creases(view: View, crease_deg: float) -> Bool[np.ndarray, "h w"]:
    """Pixels where the surface folds inwards by more than `crease_deg`."""
    limit = np.float32(np.cos(np.deg2rad(crease_deg)))
    cut = np.zeros(view.valid.shape, bool)
    for axis in (0, 1):
        a, mid, b = _shifted(axis, CREASE_REACH_PX)
        with np.errstate(invalid="ignore"):
            turn = dot(view.normals[a], view.normals[b])
            way = view.points_cam[b] - view.points_cam[a]
            fold = dot(view.normals[b] - view.normals[a], way)
            cut[mid] |= (turn < limit) & (fold < 0)
    return cut


Slices = tuple[slice, slice]


def _shifted(axis: int, reach: int) -> tuple[Slices, Slices, Slices]:
    # index pairs `reach` apart along one axis, and the pixel between them
    half = reach // 2
    parts = (slice(None, -reach), slice(half, half - reach or None), slice(reach, None))
    whole = slice(None)
    first, mid, last = ((p, whole) if axis == 0 else (whole, p) for p in parts)
    return first, mid, last


def _large_components(seeds: np.ndarray, min_area_px: int) -> Int32[np.ndarray, "h w"]:
    _, labels, stats, _ = cv2.connectedComponentsWithStats(seeds, connectivity=4)
    keep = stats[:, cv2.CC_STAT_AREA] >= min_area_px
    keep[0] = False
    table = np.where(keep, np.cumsum(keep), 0).astype(np.int32)
    return np.asarray(table[labels], dtype=np.int32)


def _regrown(
    labels: Int32[np.ndarray, "h w"], pool: Bool[np.ndarray, "h w"], view: View, jump: float
) -> Int32[np.ndarray, "h w"]:
    # pixels lost to the cuts go to the nearest instance, unless it lies at another depth
    if not labels.any():
        return labels
    empty = (labels == 0).astype(np.uint8)
    distance, nearest = cv2.distanceTransformWithLabels(
        empty, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    rows, columns = np.nonzero(labels)
    seed_label = np.zeros(nearest.max() + 1, np.int32)
    seed_depth = np.ones(nearest.max() + 1, np.float32)
    seed_label[nearest[rows, columns]] = labels[rows, columns]
    seed_depth[nearest[rows, columns]] = view.depth[rows, columns]
    with np.errstate(invalid="ignore"):
        close = np.abs(view.depth / seed_depth[nearest] - 1.0) < 2.0 * jump
    grow = (labels == 0) & pool & (distance < REGROW_PX) & close
    return np.where(grow, seed_label[nearest], labels).astype(np.int32)


def _renumbered(labels: Int32[np.ndarray, "h w"], min_area_px: int) -> Int32[np.ndarray, "h w"]:
    areas = np.bincount(labels.ravel())
    keep = areas >= min_area_px
    keep[0] = False
    table = np.where(keep, np.cumsum(keep), 0).astype(np.int32)
    return np.asarray(table[labels], dtype=np.int32)


def seen_extent(points: Float32[np.ndarray, "n 3"]) -> float:
    """Diagonal of the axis-aligned box around the middle 96 % of the points."""
    low, high = np.percentile(points, (2.0, 98.0), axis=0)
    return float(np.linalg.norm(high - low))
