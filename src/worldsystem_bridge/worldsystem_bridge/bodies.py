# SPDX-License-Identifier: Apache-2.0
"""Bodies of the messages, as the earlier services wrote them.

Matrices are nested lists, row-major, `world_from_cam`. `timestamp` is seconds since the epoch,
`timestamp_ns` nanoseconds. What those services left open is chosen here and told in
docs/migration.md.
"""

from __future__ import annotations

import json
from typing import Any

import msgpack
import numpy as np

from worldsystem_bridge import exchanges
from worldsystem_bridge.exchanges import Exchange, Message
from worldsystem_core.objects import MapObject, TrackFrame
from worldsystem_core.reconstruction import Keyframe, Pose

Array = np.ndarray[Any, np.dtype[Any]]  # points, poses and masks: shapes beside each function
MSGPACK = "application/msgpack"
JSON = "application/json"


def keyframe_message(
    event: str, keyframe_id: int, pose: Array, points: Array, *, timestamp_ns: int, shm_key: str
) -> Message:
    """`keyframe.new` or `keyframe.update` with its world `points` (n, 3); `shm_key` may be ''."""
    body = {
        "type": f"keyframe.{event}",
        "keyframe_id": keyframe_id,
        "timestamp_ns": timestamp_ns,
        "pose_matrix": pose.tolist(),
        "shm_key": shm_key,
        "point_count": len(points),
        "bbox": bounds(points).tolist(),
    }
    return _msgpack(exchanges.KEYFRAMES, f"keyframe.{event}", body)


def removed_message(keyframe_id: int, timestamp_ns: int) -> Message:
    """`keyframe.remove`: the keyframe's points are no part of the map any more."""
    body = {
        "type": "keyframe.remove",
        "keyframe_id": keyframe_id,
        "timestamp_ns": timestamp_ns,
        "pose_matrix": np.eye(4).tolist(),
        "shm_key": "",
        "point_count": 0,
        "bbox": bounds(np.zeros((0, 3))).tolist(),
    }
    return _msgpack(exchanges.KEYFRAMES, "keyframe.remove", body)


def pose_message(pose: Pose) -> Message:
    """The pose of one tracked frame."""
    body = {"timestamp_ns": pose.stamp_ns, "pose_matrix": pose.world_from_cam.tolist()}
    return _msgpack(exchanges.POSES, "", body)


def points_message(keyframe_id: int, timestamp_ns: int, points: Array, colours: Array) -> Message:
    """A keyframe's world `points` (n, 3) and `colours` (n, 3) as packed bytes."""
    body = {
        "keyframe_id": keyframe_id,
        "timestamp_ns": timestamp_ns,
        "point_count": len(points),
        "points": points.astype("<f4").tobytes(),
        "colors": colours.astype(np.uint8).tobytes(),
    }
    return _msgpack(exchanges.POINTS, "", body)


def slam_result_message(pose: Pose, *, is_keyframe: bool) -> Message:
    """One frame's pose, and whether it became a keyframe."""
    body = {
        "frame_number": pose.frame_id,
        "timestamp": _seconds(pose.stamp_ns),
        "pose": pose.world_from_cam.tolist(),
        "is_keyframe": is_keyframe,
    }
    return _json(exchanges.SLAM_RESULTS, body)


def processed_frame_message(tracks: TrackFrame) -> Message:
    """The objects seen in one frame, not those that are hidden or have just left the view;
    `mask_shape` is [height, width] of the label image."""
    shape = list(tracks.labels.shape)
    body = {
        "frame_number": tracks.frame_id,
        "timestamp": _seconds(tracks.stamp_ns),
        "objects": [
            {"id": track.id, "mask_shape": shape, "area": track.area_px}
            for track in tracks.tracks
            if track.area_px
        ],
    }
    return _json(exchanges.PROCESSED_FRAMES, body)


def object_message(item: MapObject) -> Message:
    """What is known of one object of the map."""
    body = {
        "object_id": item.id,
        "timestamp": _seconds(item.last_seen_ns),
        "results": {
            "label": item.label,
            "score": item.score,
            "world_from_box": item.world_from_box.tolist(),
            "size": item.size.tolist(),
            "point_count": item.point_count,
        },
    }
    return _json(exchanges.API_RESULTS, body)


def world_points(
    keyframe: Keyframe, world_from_cam: Array, factor: float = 1.0
) -> tuple[Array, Array]:
    """Known points of `keyframe` in the world (n, 3) float32, and their colours (n, 3) uint8.

    `factor` is the size of its points now over their size when they were made.
    """
    known = np.isfinite(keyframe.pointmap[..., 2])
    points = factor * keyframe.pointmap[known].astype(np.float64)
    points = points @ world_from_cam[:3, :3].T + world_from_cam[:3, 3]
    return points.astype(np.float32), keyframe.rgb[known]


def bounds(points: Array) -> Array:
    """[min xyz, max xyz] as (2, 3); zeros where there are no points."""
    if not len(points):
        return np.zeros((2, 3))
    return np.stack([points.min(axis=0), points.max(axis=0)]).astype(np.float64)


def _seconds(stamp_ns: int) -> float:
    return stamp_ns / 1e9


def _msgpack(exchange: Exchange, key: str, body: dict[str, object]) -> Message:
    return Message(exchange.name, key, bytes(msgpack.packb(body)), MSGPACK)


def _json(exchange: Exchange, body: dict[str, object]) -> Message:
    return Message(exchange.name, "", json.dumps(body, allow_nan=False).encode(), JSON)
