# SPDX-License-Identifier: Apache-2.0
"""The exchanges of the earlier services: names, types, and which of them outlive the broker."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Exchange:
    """One exchange as its consumers declare it."""

    name: str
    type: str
    durable: bool


@dataclass(frozen=True)
class Message:
    """What is published once: where to, and the bytes."""

    exchange: str
    routing_key: str
    body: bytes
    content_type: str


KEYFRAMES = Exchange("slam3r_keyframe_exchange", "topic", True)
POSES = Exchange("slam3r_pose_exchange", "fanout", False)
POINTS = Exchange("slam3r_pointcloud_exchange", "fanout", False)
MESH_STREAM = Exchange("mesh_stream_exchange", "fanout", True)
MESH_UPDATES = Exchange("mesh_update_exchange", "topic", True)
PROCESSED_FRAMES = Exchange("processed_frames_exchange", "fanout", False)
API_RESULTS = Exchange("api_results_exchange", "fanout", False)
SLAM_RESULTS = Exchange("slam_results_exchange", "fanout", False)

ALL = (
    KEYFRAMES,
    POSES,
    POINTS,
    MESH_STREAM,
    MESH_UPDATES,
    PROCESSED_FRAMES,
    API_RESULTS,
    SLAM_RESULTS,
)
