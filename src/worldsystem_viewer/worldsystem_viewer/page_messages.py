# SPDX-License-Identifier: Apache-2.0
"""Core types as messages of the page's protocol."""

from __future__ import annotations

import numpy as np

from worldsystem_core.objects import MapObjects, TrackFrame
from worldsystem_core.reconstruction import Pose
from worldsystem_viewer.protocol import (
    ObjectsUpdate,
    PoseUpdate,
    TracksUpdate,
)


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
        points=np.array([item.point_count for item in found], np.uint32),
        last_seen_s=np.array([item.last_seen_ns / 1e9 for item in found], np.float64),
    )
