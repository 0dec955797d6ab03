# SPDX-License-Identifier: Apache-2.0
"""The way back after a loss: descriptors against recent keyframes, then their points once more."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float64, Int64, UInt8

from worldsystem_core.geometry.se3 import inverse, transform
from worldsystem_slam3r.geometric.map_store import KeyframeRecord, Map
from worldsystem_slam3r.geometric.matching import Features, matches
from worldsystem_slam3r.geometric.pose import find_pose, refine_pose
from worldsystem_slam3r.geometric.tracking import Tracks, follow

KEYFRAMES = 6
MIN_TRACKS = 25
REVISITED = 8
MAX_GROWTH = 1.4
"""Change of distance over which a point still looks the same."""
MAX_OFF_PX = 5.0
"""Largest distance of a point from where the pose puts it."""


@dataclass(frozen=True, eq=False)
class Relocalised:
    """A pose found again and the map's tracks that were found in the picture."""

    cam_from_world: Float64[np.ndarray, "4 4"]
    tracks: Tracks


def relocalise(world: Map, grey: UInt8[np.ndarray, "h w"]) -> Relocalised | None:
    """Find the pose of `grey` from recent keyframes that have depth (SIFT, P3P); else None."""
    seen = Features.of_half(grey)
    with_depth = [r for r in world.latest(KEYFRAMES + 2) if r.depth is not None]
    for record in reversed(with_depth[-KEYFRAMES:]):
        fit = _pose_against(world, record, seen)
        if fit is None:
            continue
        tracks = _tracks_of(world, record, grey, fit)
        if len(tracks) < MIN_TRACKS:
            continue
        positions = world.positions(tracks.ids)
        refined = refine_pose(fit, positions, tracks.px.astype(np.float64), world.K4)
        if refined.inlier_count >= MIN_TRACKS:
            return Relocalised(refined.cam_from_world, tracks.chosen(refined.inliers))
    return None


def revisit(
    world: Map,
    grey: UInt8[np.ndarray, "h w"],
    cam_from_world: Float64[np.ndarray, "4 4"],
    followed: Int64[np.ndarray, "n"],
) -> Tracks:
    """Points of recent keyframes, not among those `followed`, found again in a located picture.

    Each is looked for, as the newest keyframe that saw it shows it, where the pose puts it.
    """
    seen, parts = followed, [Tracks.none()]
    for record in reversed(world.latest(REVISITED)):
        wanted = ~np.isin(record.ids, seen)
        tracks = _tracks_of(world, record, grey, cam_from_world, wanted)
        seen = np.concatenate([seen, record.ids])
        parts.append(tracks)
    return Tracks(np.concatenate([p.ids for p in parts]), np.concatenate([p.px for p in parts]))


def _pose_against(world: Map, record: KeyframeRecord, seen: Features) -> np.ndarray | None:
    """Pose from matches with the points that the keyframe's dense depth gives its corners."""
    px, target = matches(record.described(), seen)
    if len(px) < MIN_TRACKS or record.depth is None:
        return None
    depth = record.depth.depth
    v = np.clip((px[:, 1] / 2).astype(int), 0, depth.shape[0] - 1)
    u = np.clip((px[:, 0] / 2).astype(int), 0, depth.shape[1] - 1)
    z = depth[v, u].astype(np.float64)
    known = np.isfinite(z)
    cam = np.column_stack([(px - world.K4[2:]) / world.K4[:2] * z[:, None], z])[known]
    cv2.setRNGSeed(0)
    fit = find_pose(transform(inverse(record.cam_from_world), cam), target[known], world.K4)
    return None if fit is None else fit.cam_from_world


def _tracks_of(
    world: Map,
    record: KeyframeRecord,
    grey: np.ndarray,
    cam_from_world: np.ndarray,
    wanted: np.ndarray | None = None,
) -> Tracks:
    """The keyframe's points found in `grey` near where the pose puts them."""
    positions = world.positions(record.ids)
    cam = transform(cam_from_world, positions)
    with np.errstate(invalid="ignore", divide="ignore"):
        start = cam[:, :2] / cam[:, 2:] * world.K4[:2] + world.K4[2:]
        h, w = grey.shape
        use = (cam[:, 2] > 1e-6) & (start > 4).all(axis=1) & (start < [w - 5, h - 5]).all(axis=1)
        near = cam[:, 2] / transform(record.cam_from_world, positions)[:, 2]
    use &= (near > 1 / MAX_GROWTH) & (near < MAX_GROWTH)
    if wanted is not None:
        use &= wanted
    if not use.any():
        return Tracks.none()
    source = record.px[use].astype(np.float32)
    px, held = follow(record.grey, grey, source, start[use].astype(np.float32))
    held &= np.linalg.norm(px - start[use], axis=1) < MAX_OFF_PX
    return Tracks(record.ids[use][held], px[held])
