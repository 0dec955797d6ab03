# SPDX-License-Identifier: Apache-2.0
"""Core types as messages of the page's protocol."""

from __future__ import annotations

import numpy as np

from worldsystem_core.objects import MapObjects, TrackFrame
from worldsystem_core.reconstruction import Keyframe, Pose
from worldsystem_viewer.protocol import (
    KeyframesUpdate,
    ObjectsUpdate,
    PointsUpdate,
    PoseUpdate,
    TracksUpdate,
)

_PREVIEW_POINTS = 6_000


def pose_message(pose: Pose) -> PoseUpdate:
    """One camera pose."""
    return PoseUpdate(
        frame_id=pose.frame_id,
        stamp_ns=pose.stamp_ns,
        state=pose.state.name.lower(),
        scale=pose.scale.name.lower(),
        confidence=float(pose.confidence),
        world_from_cam=pose.world_from_cam.astype(np.float32),
    )


def keyframes_message(
    poses: dict[int, np.ndarray], newest: Keyframe | None, limit: int = 2_000
) -> KeyframesUpdate:
    """The `limit` newest keyframe poses."""
    shown = list(poses.items())[-limit:]
    camera = newest.camera if newest else None
    return KeyframesUpdate(
        width=camera.width if camera else 0,
        height=camera.height if camera else 0,
        fx=float(camera.fx) if camera else 0.0,
        fy=float(camera.fy) if camera else 0.0,
        id=np.array([keyframe_id for keyframe_id, _ in shown], np.int32),
        world_from_cam=np.array([pose for _, pose in shown], np.float32).reshape(-1, 4, 4),
    )


def points_message(keyframe: Keyframe) -> PointsUpdate:
    """Every n-th confident point of `keyframe`, in the world frame."""
    step = max(1, int(np.sqrt(keyframe.confidence.size / _PREVIEW_POINTS)))
    points = keyframe.pointmap[::step, ::step].reshape(-1, 3)
    colours = keyframe.rgb[::step, ::step].reshape(-1, 3)
    confident = keyframe.confidence[::step, ::step].reshape(-1) > 0
    kept = confident & np.isfinite(points).all(axis=1)
    pose = keyframe.world_from_cam
    world = points[kept] @ pose[:3, :3].T + pose[:3, 3]
    return PointsUpdate(
        keyframe_id=keyframe.id, points=world.astype(np.float32), colours=colours[kept]
    )


def tracks_message(frame: TrackFrame) -> TracksUpdate:
    """The tracks of one frame."""
    tracks = frame.tracks
    height, width = frame.labels.shape
    return TracksUpdate(
        stamp_ns=frame.stamp_ns,
        width=width,
        height=height,
        label=[track.label for track in tracks],
        id=np.array([track.id for track in tracks], np.int32),
        score=np.array([track.score for track in tracks], np.float32),
        state=np.array([track.state.value for track in tracks], np.uint8),
        box_px=np.array([track.box_px for track in tracks], np.int32).reshape(-1, 4),
    )


def objects_message(objects: MapObjects) -> ObjectsUpdate:
    """The objects of the map."""
    found = objects.objects
    return ObjectsUpdate(
        label=[item.label for item in found],
        id=np.array([item.id for item in found], np.int32),
        score=np.array([item.score for item in found], np.float32),
        world_from_box=np.array([i.world_from_box for i in found], np.float32).reshape(-1, 4, 4),
        size=np.array([item.size for item in found], np.float32).reshape(-1, 3),
    )
