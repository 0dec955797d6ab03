# SPDX-License-Identifier: Apache-2.0
"""A back-end that knows the truth of the filmed room and spoils it: drift, loss, gauges."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from filmed_room import PERIOD_NS, camera, render
from scipy.spatial.transform import Rotation

from worldsystem_core.frames import Camera, Frame
from worldsystem_core.geometry.pinhole import pointmap_from_depth
from worldsystem_core.geometry.se3 import inverse, look_at, pose_from
from worldsystem_core.geometry.sim3 import Sim3
from worldsystem_core.reconstruction import (
    Event,
    Keyframe,
    NewKeyframe,
    Pose,
    TrackingState,
)

CAMERA = camera(256, 144)
PATCH_PX = 16


def ring_poses(count: int, turns: float = 1.0) -> list[np.ndarray]:
    """A way round the room's middle, looking outwards; it ends where it began for whole turns."""
    poses = []
    for angle in 2 * np.pi * turns * np.arange(count) / max(count - 1, 1):
        outwards = np.array([np.sin(angle), 0.0, np.cos(angle)])
        poses.append(look_at(outwards, outwards * 3.0, np.array([0.0, -1.0, 0.0])))
    return poses


@dataclass(frozen=True, eq=False)
class Film:
    """Pictures with the truth of each."""

    frames: list[Frame]
    depths: list[np.ndarray]
    poses: list[np.ndarray]


def film(poses: list[np.ndarray], first_id: int = 0, period_ns: int = PERIOD_NS) -> Film:
    """The room filmed from `poses`."""
    shots = [render(pose, CAMERA) for pose in poses]
    frames = [
        Frame(id=first_id + i, stamp_ns=(first_id + i) * period_ns, rgb=rgb, camera=CAMERA)
        for i, (rgb, _) in enumerate(shots)
    ]
    return Film(frames, [depth for _, depth in shots], poses)


@dataclass(eq=False)
class DriftingBackend:
    """Every frame is a keyframe; the world is the first camera's frame in units of `unit`.

    Each step turns by `turn_rad` too much and grows by `growth`. Frames in `lost` are lost. Of the
    depth a share `known` is told, in patches that lie elsewhere each time. `lens` is the one that
    it says it goes by.
    """

    films: list[Film]
    turn_rad: float = 0.0
    growth: float = 1.0
    unit: float = 1.0
    lost: set[int] = field(default_factory=set)
    known: float = 1.0
    lens: Camera | None = None
    restarts: int = 0

    def __post_init__(self) -> None:
        self._truth = {
            frame.id: (depth, pose)
            for each in self.films
            for frame, depth, pose in zip(each.frames, each.depths, each.poses, strict=True)
        }
        self._next = 0
        self.waiting: list[Event] = []
        self._begin()

    def skip_ids(self, next_id: int) -> None:
        """Go on with keyframe ids from here."""
        self._next = next_id

    def _begin(self) -> None:
        self._place: Sim3 | None = None
        self._before: np.ndarray | None = None

    def restart(self) -> list[Event]:
        self.restarts += 1
        self.unit *= 1.7
        self._begin()
        return []

    def feed(self, frame: Frame) -> list[Event]:
        events, self.waiting = self.waiting, []
        return events + self._of(frame)

    def _of(self, frame: Frame) -> list[Event]:
        depth, truth = self._truth[frame.id]
        if frame.id in self.lost:
            return [self._pose(frame, np.eye(4), TrackingState.LOST)]
        world = self._advance(truth)
        points = pointmap_from_depth(depth * world.scale, CAMERA)
        keyframe = Keyframe(
            id=self._next,
            frame_id=frame.id,
            stamp_ns=frame.stamp_ns,
            world_from_cam=world.pose,
            camera=CAMERA,
            pointmap=points,
            confidence=self._confidence(frame.id, depth.shape),
            rgb=frame.rgb,
        )
        self._next += 1
        return [NewKeyframe(keyframe), self._pose(frame, world.pose, TrackingState.TRACKED)]

    def _confidence(self, seed: int, shape: tuple[int, int]) -> np.ndarray:
        h, w = shape
        patches = np.random.default_rng(seed).random((h // PATCH_PX, w // PATCH_PX)) < self.known
        return np.kron(patches, np.ones((PATCH_PX, PATCH_PX))).astype(np.float32)

    def _advance(self, truth: np.ndarray) -> Sim3:
        """The drifted place: the true step from the last frame, a little too much of it."""
        if self._place is None or self._before is None:
            self._place = Sim3(self.unit, np.eye(3), np.zeros(3))
        else:
            step = Sim3.from_pose(inverse(self._before) @ truth, self.growth)
            extra = Rotation.from_rotvec([0.0, self.turn_rad, 0.0]).as_matrix()
            self._place = self._place @ step @ Sim3(1.0, extra, np.zeros(3))
        self._before = truth
        return self._place

    def _pose(self, frame: Frame, pose: np.ndarray, state: TrackingState) -> Pose:
        return Pose(
            frame_id=frame.id,
            stamp_ns=frame.stamp_ns,
            world_from_cam=pose,
            confidence=float(state is TrackingState.TRACKED),
            state=state,
            keyframe_id=self._next - 1,
        )

    def finish(self) -> list[Event]:
        return []


def elsewhere(seen: Film, first_id: int) -> Film:
    """The same pictures, taken in another room that looks alike, 40 units away."""
    shift = pose_from(np.eye(3), np.array([40.0, 0.0, 0.0]))
    frames = [
        replace(frame, id=first_id + i, stamp_ns=(first_id + i) * PERIOD_NS)
        for i, frame in enumerate(seen.frames)
    ]
    return Film(frames, seen.depths, [shift @ pose for pose in seen.poses])
