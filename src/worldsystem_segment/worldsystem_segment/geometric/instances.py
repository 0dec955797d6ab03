# SPDX-License-Identifier: Apache-2.0
"""Cutting what stands on the structure into instances, at depth jumps and concave creases.

Convex pieces hang together, concave creases part them: LCCP (Stein et al., CVPR 2014), here on the
pixel grid of an organised pointmap.
"""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Int32, UInt8

from worldsystem_segment.config import SegmentConfig
from worldsystem_segment.geometric.colour_split import around, split_by_colour
from worldsystem_segment.geometric.instance_kernels import areas, looked_up
from worldsystem_segment.geometric.overhang import join_overhangs
from worldsystem_segment.geometric.pixel_kernels import grown, uncut
from worldsystem_segment.objects.normals import planes_of
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
    seeds = cv2.morphologyEx(_uncut(view, pool, config), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    labels = _large_components(seeds, max(6, min_area_px // 3))
    labels = _regrown(labels, pool, view, config.jump)
    if up_cam is not None:
        labels = join_overhangs(labels, view, up_cam)
    labels = split_by_colour(labels, view.rgb, min_area_px)
    return _renumbered(labels, min_area_px)


def _uncut(
    view: View, pool: Bool[np.ndarray, "h w"], config: SegmentConfig
) -> UInt8[np.ndarray, "h w"]:
    """Pixels of `pool` where depth does not jump and the surface does not fold inwards."""
    jump, crease = config.jump, np.cos(np.deg2rad(config.crease_deg))
    limits = np.array([np.exp(jump), np.exp(0.6 * jump), crease], np.float32)
    reaches = (JUMP_REACH_PX, CREASE_REACH_PX, INWARDS_PX)
    points, normals = planes_of(view.points_cam), planes_of(view.normals)
    offset = np.float32(SURFACE_OFFSET)
    return np.asarray(uncut(points, normals, view.valid, pool, limits, reaches, offset))


def _large_components(seeds: np.ndarray, min_area_px: int) -> Int32[np.ndarray, "h w"]:
    _, labels = cv2.connectedComponents(seeds, connectivity=4)
    return _renumbered(np.asarray(labels, np.int32), min_area_px)


def _regrown(
    labels: Int32[np.ndarray, "h w"], pool: Bool[np.ndarray, "h w"], view: View, jump: float
) -> Int32[np.ndarray, "h w"]:
    # pixels lost to the cuts go to the nearest instance, unless it lies at another depth
    if not labels.any():
        return labels
    part = around(labels, int(REGROW_PX) + 1)
    seeds = np.ascontiguousarray(labels[part])
    distance, nearest = cv2.distanceTransformWithLabels(
        (seeds == 0).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    reach, apart = np.float32(REGROW_PX), np.float32(2.0 * jump)
    depth, there = np.ascontiguousarray(view.depth[part]), np.ascontiguousarray(pool[part])
    result = labels.copy()
    result[part] = grown(seeds, there, depth, nearest, distance, reach, apart)
    return result


def _renumbered(labels: Int32[np.ndarray, "h w"], min_area_px: int) -> Int32[np.ndarray, "h w"]:
    # the large ones from 1 on, in their order
    keep = areas(labels, int(labels.max()) + 1) >= min_area_px
    keep[0] = False
    return np.asarray(looked_up(np.where(keep, np.cumsum(keep), 0).astype(np.int32), labels))


def seen_extent(points: Float32[np.ndarray, "n 3"]) -> float:
    """Diagonal of the axis-aligned box around the middle 96 % of the points."""
    sample = np.sort(points, axis=0)
    trim = len(sample) // 50
    return float(np.linalg.norm(sample[len(sample) - 1 - trim] - sample[trim]))
