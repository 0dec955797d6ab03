# SPDX-License-Identifier: Apache-2.0
"""A synthetic room that grows block by block, with a camera flying through it."""

from __future__ import annotations

import numpy as np

from worldsystem_core.frames import Camera
from worldsystem_core.objects import MapObject, MapObjects, Track, TrackFrame, TrackState
from worldsystem_core.reconstruction import Keyframe, Pose, TrackingState
from worldsystem_core.surface import MeshBlock, MeshDelta

BLOCK = 0.5
CELLS = 12
ROOM_BLOCKS = 12


def height(x: np.ndarray, z: np.ndarray) -> np.ndarray:
    """The hilly ground, y down, [world units]."""
    hills = 0.45 * np.sin(1.3 * x) * np.cos(0.9 * z) + 0.12 * np.sin(3.1 * x + 1.7 * z)
    mound = 1.1 * np.exp(-((x - 3.2) ** 2 + (z - 2.6) ** 2) / 0.9)
    return 1.0 - hills - mound


def ground_block(i: int, k: int, version: int = 1) -> MeshBlock:
    """The piece of ground over block column (i, k)."""
    line = np.linspace(0.0, BLOCK, CELLS + 1, dtype=np.float32)
    x, z = np.meshgrid(i * BLOCK + line, k * BLOCK + line, indexing="ij")
    y = height(x, z)
    vertices = np.stack([x, y, z], axis=-1).reshape(-1, 3).astype(np.float32)
    return MeshBlock(
        index=(i, 0, k),
        version=version,
        vertices=vertices,
        colours=_ground_colours(x, y, z),
        faces=_grid_faces(CELLS + 1, CELLS + 1),
    )


def _ground_colours(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    high = np.clip((1.35 - y) / 1.6, 0.0, 1.0)[..., None]
    low_rgb, high_rgb = np.array([74, 122, 78]), np.array([206, 184, 150])
    grain = 10.0 * np.sin(17 * x + 5 * np.sin(13 * z))[..., None]
    rgb = low_rgb * (1 - high) + high_rgb * high + grain
    return np.clip(rgb, 0, 255).astype(np.uint8).reshape(-1, 3)


def _grid_faces(rows: int, columns: int) -> np.ndarray:
    corner = (np.arange(rows - 1)[:, None] * columns + np.arange(columns - 1)).reshape(-1)
    upper = np.stack([corner, corner + 1, corner + columns], axis=1)
    lower = np.stack([corner + 1, corner + columns + 1, corner + columns], axis=1)
    return np.concatenate([upper, lower]).astype(np.int32)


def delta(blocks: list[MeshBlock], sequence: int, removed: tuple = ()) -> MeshDelta:
    """A delta that follows directly on the one before it."""
    return MeshDelta(
        stamp_ns=sequence,
        sequence=sequence,
        base_sequence=sequence - 1,
        block_size=BLOCK,
        blocks=tuple(blocks),
        removed=removed,
        total_vertices=sum(len(block.vertices) for block in blocks),
        total_faces=sum(len(block.faces) for block in blocks),
        keyframe_count=sequence,
        capture_ns=sequence,
    )


def growing_ground(rows: int = ROOM_BLOCKS) -> list[MeshDelta]:
    """One delta for each row of blocks."""
    return [
        delta([ground_block(i, k) for i in range(ROOM_BLOCKS)], sequence=k + 1) for k in range(rows)
    ]


def camera_pose(at: float) -> np.ndarray:
    """`world_from_cam` at 0 ≤ `at` ≤ 1 of a curved flight over the ground, looking ahead."""
    pose = np.eye(4)
    angle = 0.5 * np.sin(5 * at)
    pose[:3, :3] = [
        [np.cos(angle), 0, np.sin(angle)],
        [0, 1, 0],
        [-np.sin(angle), 0, np.cos(angle)],
    ]
    pose[:3, 3] = [1.5 + 2.5 * np.sin(2.4 * at), -0.5 - 0.4 * at, 0.2 + 5 * at]
    return pose


def pose_event(
    frame_id: int, at: float, stamp_ns: int | None = None, keyframe_id: int = -1
) -> Pose:
    return Pose(
        frame_id=frame_id,
        stamp_ns=frame_id * 33_000_000 if stamp_ns is None else stamp_ns,
        world_from_cam=camera_pose(at),
        confidence=0.9,
        state=TrackingState.TRACKED,
        keyframe_id=keyframe_id,
    )


def keyframe(id: int, at: float) -> Keyframe:
    """A keyframe that sees a tilted plane; its first row is unknown."""
    camera = Camera.from_horizontal_fov(64, 48, 1.1)
    v, u = np.mgrid[:48, :64].astype(np.float32)
    z = 1.5 + 0.01 * v
    points = np.stack([(u - camera.cx) / camera.fx * z, (v - camera.cy) / camera.fy * z, z], -1)
    points[0] = np.nan
    confidence = np.ones((48, 64), np.float32)
    confidence[0] = 0
    return Keyframe(
        id=id,
        frame_id=id,
        stamp_ns=id * 33_000_000,
        world_from_cam=camera_pose(at),
        camera=camera,
        pointmap=points.astype(np.float32),
        confidence=confidence,
        rgb=picture(0.0, 64, 48),
    )


def picture(at: float, width: int = 640, height: int = 360) -> np.ndarray:
    """A moving gradient with a bright disc, uint8 RGB."""
    v, u = np.mgrid[:height, :width].astype(np.float32)
    ground = np.clip((v / height - 0.45) * 4, 0, 1)[..., None]
    sky = np.array([150, 190, 235]) * (0.7 + 0.3 * (v / height))[..., None]
    field = np.array([96, 132, 88]) + 20 * np.sin(u / 9 + 30 * at + v / 7)[..., None]
    rgb = sky * (1 - ground) + field * ground
    centre = (width * (0.3 + 0.4 * at), height * 0.55)
    disc = np.hypot(u - centre[0], v - centre[1]) < height * 0.13
    rgb[disc] = [214, 120, 64]
    return np.clip(rgb, 0, 255).astype(np.uint8)


def track_frame(at: float, width: int = 640, height: int = 360) -> TrackFrame:
    """The disc of `picture`."""
    x, y, r = int(width * (0.3 + 0.4 * at)), int(height * 0.55), int(height * 0.14)
    labels = np.zeros((height, width), np.uint16)
    labels[y - r : y + r, x - r : x + r] = 7
    track = Track(
        id=7,
        label="ball",
        score=0.91,
        box_px=(x - r, y - r, x + r, y + r),
        area_px=4 * r * r,
        age_frames=3,
        state=TrackState.CONFIRMED,
    )
    return TrackFrame(frame_id=1, keyframe_id=1, stamp_ns=1, tracks=(track,), labels=labels)


def map_objects() -> MapObjects:
    """Two boxes that stand on the ground."""
    found = []
    for object_id, label, x, z, edge in ((7, "mound", 3.2, 2.6, 1.6), (12, "crate", 1.0, 4.2, 0.6)):
        pose = np.eye(4)
        pose[:3, 3] = [x, float(height(np.array(x), np.array(z))) + 0.2, z]
        found.append(
            MapObject(
                id=object_id,
                label=label,
                score=0.8,
                world_from_box=pose,
                size=np.array([edge, 1.0, edge]),
                point_count=100,
                last_seen_ns=1,
            )
        )
    return MapObjects(stamp_ns=1, objects=tuple(found))
