# SPDX-License-Identifier: Apache-2.0
"""What the back-end's records become for the outside: keyframes, corrections, poses not known."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64

from worldsystem_core.geometry.pinhole import pointmap_from_depth
from worldsystem_core.geometry.se3 import inverse, rotation_angle_rad
from worldsystem_core.reconstruction import Event, Keyframe, MovedKeyframes, Pose, TrackingState
from worldsystem_slam3r.geometric.bootstrap import Held
from worldsystem_slam3r.geometric.dense import DepthMap
from worldsystem_slam3r.geometric.lookback import Passed
from worldsystem_slam3r.geometric.map_store import KeyframeRecord, Map, median_depth

MOVED_DEPTHS = 0.003
MOVED_RAD = np.deg2rad(0.2)


def told_keyframe(record: KeyframeRecord, depth: DepthMap) -> Keyframe:
    """The keyframe of a record whose depth has come in."""
    camera = record.kept_view().dense_camera
    return Keyframe(
        id=record.id,
        frame_id=record.frame_id,
        stamp_ns=record.stamp_ns,
        world_from_cam=record.world_from_cam,
        camera=camera,
        pointmap=pointmap_from_depth(depth.depth, camera),
        confidence=depth.confidence,
        rgb=record.rgb,
    )


def moved_keyframes(world: Map, *, force: bool) -> list[Event]:
    """The keyframes that refinement has moved noticeably (`force`: at all) since last told."""
    moved = {}
    for record in world.keyframes.values():
        if record.told is None:
            continue
        now = record.world_from_cam
        depth = median_depth(record, world.seen_points(record))
        shift = float(np.linalg.norm(now[:3, 3] - record.told[:3, 3]))
        turn = rotation_angle_rad(now[:3, :3].T @ record.told[:3, :3])
        limit = 0.1 if force else 1.0
        if shift > limit * MOVED_DEPTHS * depth or turn > limit * MOVED_RAD:
            moved[record.id] = record.told = now
    return [MovedKeyframes(moved)] if moved else []


def unknown_pose(
    item: Held | Passed,
    state: TrackingState = TrackingState.INITIALISING,
    cam_from_world: Float64[np.ndarray, "4 4"] | None = None,
) -> Pose:
    """A frame without a pose; the last known one stands in for it."""
    pose = np.eye(4) if cam_from_world is None else inverse(cam_from_world)
    return Pose(
        frame_id=item.frame_id,
        stamp_ns=item.stamp_ns,
        world_from_cam=pose,
        confidence=0.0,
        state=state,
    )
