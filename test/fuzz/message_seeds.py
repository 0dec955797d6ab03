# SPDX-License-Identifier: Apache-2.0
"""An empty message of every topic, and small ones with something in them."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from message_laws import READABLE
from rclpy.serialization import serialize_message

sys.path.insert(0, str(Path(__file__).parents[1] / "mesh"))

from block_lab import block_of, delta, sphere

from worldsystem_core.frames import Camera, EncodedFrame, Frame
from worldsystem_core.geometry.sim3 import Sim3
from worldsystem_core.mesh_stream.streamed import MeshEncoding, streamed
from worldsystem_core.objects import MapObject, MapObjects, Track, TrackFrame, TrackState
from worldsystem_core.reconstruction import Keyframe, MovedKeyframes, NewKeyframe, ScaleState
from worldsystem_core.ros import topics
from worldsystem_core.splats.delta import SplatDelta, SplatOperation
from worldsystem_core.surface import MeshDelta
from worldsystem_core.telemetry import GpsFix
from worldsystem_core.trajectory import StampedPoses

_NS = 1_764_000_000_123_456_789


def messages() -> dict[str, bytes]:
    """By topic."""
    empty = {
        topic.name.strip("/").replace("/", "_"): _of(
            topic, serialize_message(topic.adapter.ros_type())
        )
        for topic in READABLE
    }
    filled = {
        "picture": (topics.IMAGE, Frame(id=1, stamp_ns=_NS, rgb=np.zeros((3, 4, 3), np.uint8))),
        "keyframe": (topics.KEYFRAME, NewKeyframe(_keyframe())),
        "moved": (topics.KEYFRAME, MovedKeyframes({3: np.eye(4)}, {3: 1.5}, ScaleState.METRIC)),
        "unit": (
            topics.VIDEO,
            EncodedFrame(id=1, stamp_ns=_NS, arrival_ns=_NS, data=b"\0\0\1\x65\x88", is_key=True),
        ),
        "path": (topics.PATH, StampedPoses(np.array([_NS]), np.eye(4)[None], ScaleState.METRIC)),
        "raw_blocks": (topics.MESH, _surface()),
        "splats": (topics.SPLATS, _splats()),
        "tracks": (topics.TRACKS, _tracks()),
        "objects": (topics.OBJECTS, _objects()),
        "fix": (topics.GPS, GpsFix(stamp_ns=_NS, latitude_deg=1, longitude_deg=2, altitude_m=3)),
    }
    filled |= {
        f"stream_{how.name.lower()}": (topics.MESH_STREAM, streamed(_surface(), how))
        for how in MeshEncoding
    }
    made = {name: _of(topic, topic.adapter.dump(item)[0]) for name, (topic, item) in filled.items()}
    return empty | made


def _of(topic: topics.Topic, cdr: bytes) -> bytes:
    return bytes([READABLE.index(topic)]) + cdr


def _surface() -> MeshDelta:
    block = block_of(sphere(2.0), (0, 0, 0))
    assert block is not None
    return delta([block], 4, removed=((7, 8, 9),))


def _keyframe() -> Keyframe:
    return Keyframe(
        id=7,
        frame_id=9,
        stamp_ns=_NS,
        world_from_cam=np.eye(4),
        camera=Camera(width=2, height=2, fx=5.0, fy=5.5, cx=2.5, cy=1.5),
        pointmap=np.ones((2, 2, 3), np.float32),
        confidence=np.ones((2, 2), np.float32),
        rgb=np.zeros((2, 2, 3), np.uint8),
    )


def _splats() -> SplatDelta:
    return SplatDelta(
        stamp_ns=_NS,
        sequence=1,
        chunk=2,
        operation=SplatOperation.PUT,
        world_from_chunk=Sim3.from_pose(np.eye(4)),
        words=np.arange(8, dtype=np.uint32).reshape(2, 4),
        total=2,
    )


def _tracks() -> TrackFrame:
    labels = np.zeros((5, 7), np.uint16)
    labels[1:3, 2:5] = 3
    track = Track(
        id=3,
        label="red box",
        score=0.5,
        box_px=(0, 1, 2, 3),
        area_px=6,
        age_frames=4,
        state=TrackState.CONFIRMED,
        candidates=(("box", 0.5), ("ball", 0.25)),
    )
    return TrackFrame(frame_id=1, keyframe_id=2, stamp_ns=_NS, tracks=(track,), labels=labels)


def _objects() -> MapObjects:
    thing = MapObject(
        id=1,
        label="box",
        score=1.0,
        world_from_box=np.eye(4),
        size=np.ones(3),
        point_count=10,
        last_seen_ns=_NS,
    )
    return MapObjects(stamp_ns=_NS, objects=(thing,))


SEEDS = {"messages": messages}
