# SPDX-License-Identifier: Apache-2.0
"""What viewers are shown in benchmarks and pictures: the simulator's demo flight, moment by moment.

Depth is the simulator's with the errors of a network; tracks and boxes are its truth, so that what
is seen depends on nothing but the viewer and the mesher.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from mesh_room import keyframe, learned_noise

from worldsystem_core.frames import Camera
from worldsystem_core.objects import MapObject, MapObjects, Track, TrackFrame, TrackState
from worldsystem_core.reconstruction import Keyframe, Pose, ScaleState, TrackingState
from worldsystem_core.surface import MeshDelta
from worldsystem_mesh.config import MeshConfig
from worldsystem_mesh.mesher import Mesher
from worldsystem_sim.config import SimConfig
from worldsystem_sim.flight import flight
from worldsystem_sim.render import RenderedView, Renderer
from worldsystem_sim.scene import Scene, build_scene

PICTURE = (640, 360)
KEYFRAMES_PER_S = 2.0
LEFT_OUT = ("ground", "window", "door")
SMALLEST_PX = 60
POSES_PER_KEYFRAME = 5


@dataclass(frozen=True, kw_only=True, eq=False)
class Moment:
    """What the stages tell between two keyframes."""

    at_s: float
    rgb: np.ndarray
    poses: tuple[Pose, ...]
    keyframe: Keyframe
    tracks: TrackFrame
    objects: MapObjects
    delta: MeshDelta | None


def film(duration_s: float, *, voxel: float = 0.1, metric: bool = True) -> Iterator[Moment]:
    """The moments of the demo flight, in order; `stamp_ns` counts from its start."""
    config = SimConfig()
    scene = build_scene(config.seed)
    camera = Camera.from_horizontal_fov(*PICTURE, np.radians(config.fov_deg))
    renderer, way = Renderer(scene, camera), flight(config.flight, config.seed, duration_s, scene)
    boxes, mesher, seen = instance_boxes(scene), Mesher(MeshConfig(voxel=voxel)), set[int]()
    times_s = np.arange(0.0, duration_s, 1.0 / KEYFRAMES_PER_S)
    scale = ScaleState.METRIC if metric else ScaleState.SCENE
    for number, (at_s, pose) in enumerate(zip(times_s, way.poses(times_s), strict=True)):
        view = renderer.render(pose)
        frame = _keyframe(number, pose, view, camera)
        tracks = tracks_of(view.ids, scene, frame)
        seen |= {track.id for track in tracks.tracks}
        mesher.integrate(frame)
        between_s = at_s + np.arange(1 - POSES_PER_KEYFRAME, 1) / (
            KEYFRAMES_PER_S * POSES_PER_KEYFRAME
        )
        yield Moment(
            at_s=float(at_s),
            rgb=view.rgb,
            poses=tuple(
                _pose(number, moment_s, between, scale)
                for moment_s, between in zip(between_s, way.poses(between_s), strict=True)
                if moment_s >= 0
            ),
            keyframe=frame,
            tracks=tracks,
            objects=MapObjects(
                stamp_ns=frame.stamp_ns,
                objects=tuple(boxes[i] for i in sorted(seen) if i in boxes),
                scale=scale,
            ),
            delta=mesher.extract(frame.stamp_ns),
        )
    mesher.close()


def _keyframe(number: int, pose: np.ndarray, view: RenderedView, camera: Camera) -> Keyframe:
    small = camera.resized(PICTURE[0] // 2, PICTURE[1] // 2)
    depth_m = np.where(np.isfinite(view.depth_m), view.depth_m, np.float32(np.nan))[::2, ::2]
    depth_m[depth_m > 45.0] = np.nan
    rgb = cv2.resize(view.rgb, (small.width, small.height), interpolation=cv2.INTER_AREA)
    made = keyframe(number, pose, learned_noise(depth_m.copy(), number), rgb, small)
    object.__setattr__(made, "stamp_ns", int(1e9 * number / KEYFRAMES_PER_S))
    return made


def _pose(number: int, at_s: float, world_from_cam: np.ndarray, scale: ScaleState) -> Pose:
    return Pose(
        frame_id=round(30 * at_s),
        stamp_ns=round(1e9 * at_s),
        world_from_cam=world_from_cam,
        confidence=0.95,
        state=TrackingState.TRACKED,
        keyframe_id=max(number - 1, 0),
        scale=scale,
    )


def whole_of(scene: Scene) -> dict[int, int]:
    """Instance id → the id of the thing that it is part of, ground and the like left out."""
    return {
        each.id: each.part_of or each.id
        for each in scene.instances
        if scene.class_names[each.part_of or each.id] not in LEFT_OUT
    }


def tracks_of(ids: np.ndarray, scene: Scene, frame: Keyframe) -> TrackFrame:
    """Every thing of which enough is seen."""
    table = np.zeros(int(ids.max()) + 1, np.uint16)
    for part, whole in whole_of(scene).items():
        if part < len(table):
            table[part] = whole
    labels, found = table[ids], []
    for number in np.unique(labels[labels > 0]).tolist():
        rows, columns = np.nonzero(labels == number)
        if len(rows) < SMALLEST_PX:
            labels[labels == number] = 0
            continue
        low, high = (columns.min(), rows.min()), (columns.max() + 1, rows.max() + 1)
        found.append(
            Track(
                id=number,
                label=scene.class_names[number].replace("_", " "),
                score=0.9,
                box_px=(int(low[0]), int(low[1]), int(high[0]), int(high[1])),
                area_px=len(rows),
                age_frames=1,
                state=TrackState.CONFIRMED,
            )
        )
    return TrackFrame(
        frame_id=frame.frame_id,
        keyframe_id=frame.id,
        stamp_ns=frame.stamp_ns,
        tracks=tuple(found),
        labels=labels,
    )


def instance_boxes(scene: Scene) -> dict[int, MapObject]:
    """The upright box around every thing, by id."""
    whole, corners = whole_of(scene), scene.triangles.corners_m
    owner = np.array([whole.get(int(i), 0) for i in scene.triangles.instance])
    found = {}
    for number in np.unique(owner[owner > 0]).tolist():
        points = corners[owner == number].reshape(-1, 3)
        pose, size = _upright_box(points)
        found[number] = MapObject(
            id=number,
            label=scene.class_names[number].replace("_", " "),
            score=0.9,
            world_from_box=pose,
            size=size,
            point_count=len(points),
            last_seen_ns=0,
        )
    return found


def _upright_box(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    (centre, (width, depth), angle) = cv2.minAreaRect(points[:, :2].astype(np.float32))
    turn = np.radians(angle)
    pose = np.eye(4)
    pose[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    low, high = points[:, 2].min(), points[:, 2].max()
    pose[:3, 3] = [*centre, 0.5 * (low + high)]
    return pose, np.array([width, depth, high - low])
