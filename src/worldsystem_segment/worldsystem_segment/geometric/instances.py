# SPDX-License-Identifier: Apache-2.0
"""Cutting what stands on the structure into instances, at depth jumps and concave creases.

Convex pieces hang together, concave creases part them: LCCP (Stein et al., CVPR 2014), here on the
pixel grid of an organised pointmap.
"""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Int32, Int64

from worldsystem_segment.config import SegmentConfig
from worldsystem_segment.geometric.colour_split import split_by_colour
from worldsystem_segment.geometric.overhang import join_overhangs
from worldsystem_segment.objects.normals import dot
from worldsystem_segment.objects.view import View

JUMP_REACH_PX = 2
CREASE_REACH_PX = 4
REGROW_PX = 5.0
INWARDS_PX = 3
SURFACE_OFFSET = 0.012  # of depth


def cut_instances(
    view: View,
    pool: Bool[np.ndarray, "h w"],
    up_cam: Float32[np.ndarray, "3"] | None,
    config: SegmentConfig,
) -> Int32[np.ndarray, "h w"]:
    """Number the instances among the `pool` pixels from 1; 0 is everything else."""
    min_area_px = max(8, int(config.min_area_fraction * pool.size))
    jumps = depth_jumps(view, config.jump)
    cut = jumps | concave_creases(view, config.crease_deg)
    seeds = (pool & ~cut).astype(np.uint8)
    seeds = cv2.morphologyEx(seeds, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    labels = _large_components(seeds, max(6, min_area_px // 3))
    labels = _regrown(labels, pool, view, config.jump)
    if up_cam is not None:
        labels = join_overhangs(labels, view, up_cam)
    labels = split_by_colour(labels, view.rgb, min_area_px)
    return _renumbered(labels, min_area_px)


def depth_jumps(view: View, jump: float) -> Bool[np.ndarray, "h w"]:
    """Pixels between which and a near neighbour depth steps by more than `jump`, or is unknown."""
    log = np.log(np.where(view.valid, view.depth, 1.0)).astype(np.float32)
    cut = np.zeros(log.shape, bool)
    for axis in (0, 1):
        for reach, limit in ((JUMP_REACH_PX, jump), (1, 0.6 * jump)):
            a, mid, b = _shifted(axis, reach)
            step = np.abs(log[b] - log[a]) > limit
            step &= view.valid[a] & view.valid[b]
            step[step] = ~_same_surface(view, np.argwhere(step), axis, reach)
            cut[mid] |= step
    return cut


def _same_surface(
    view: View, first: Int64[np.ndarray, "n 2"], axis: int, reach: int
) -> Bool[np.ndarray, "n"]:
    # a steep view of one surface steps in depth too: then one point lies on the other's plane,
    # whose normal is taken a little inwards, where the step does not bend it
    size = view.valid.shape[axis] - 1
    second, before, after = first.copy(), first.copy(), first.copy()
    second[:, axis] += reach
    before[:, axis] = np.maximum(first[:, axis] - INWARDS_PX, 0)
    after[:, axis] = np.minimum(second[:, axis] + INWARDS_PX, size)
    a, b = tuple(first.T), tuple(second.T)
    way = view.points_cam[b] - view.points_cam[a]
    off = np.minimum(
        np.abs(dot(view.normals[tuple(before.T)], way)),
        np.abs(dot(view.normals[tuple(after.T)], way)),
    )
    return np.asarray(off < SURFACE_OFFSET * view.depth[a])


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
    sample = np.sort(points[:: max(1, len(points) // 300)], axis=0)
    trim = len(sample) // 50
    return float(np.linalg.norm(sample[len(sample) - 1 - trim] - sample[trim]))
