# SPDX-License-Identifier: Apache-2.0
"""The camera's path: poses that hang on keyframes and follow their corrections; TUM files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int64

from worldsystem_core.geometry.rotation import (
    matrix_from_quaternion_xyzw,
    quaternion_xyzw_from_matrix,
)
from worldsystem_core.geometry.se3 import inverse
from worldsystem_core.reconstruction import (
    Event,
    Keyframe,
    MovedKeyframes,
    NewKeyframe,
    Pose,
    RemovedKeyframes,
    ScaleState,
    TrackingState,
)


@dataclass(frozen=True, eq=False)
class StampedPoses:
    """n camera poses in time order; `scale` says what a unit of length is."""

    stamps_ns: Int64[np.ndarray, "n"]
    world_from_cam: Float64[np.ndarray, "n 4 4"]
    scale: ScaleState = ScaleState.SCENE

    def __len__(self) -> int:
        return len(self.stamps_ns)

    @property
    def positions(self) -> Float64[np.ndarray, "n 3"]:
        """Camera centres [world units]."""
        return self.world_from_cam[:, :3, 3]

    @property
    def path_length(self) -> float:
        """Sum of the distances between successive camera centres [world units]."""
        return float(np.linalg.norm(np.diff(self.positions, axis=0), axis=1).sum())


class Trajectory:
    """Collects a back-end's events; a pose hangs on its keyframe and moves and grows with it."""

    def __init__(self) -> None:
        self._world_from_keyframe: dict[int, np.ndarray] = {}
        self._point_scale: dict[int, float] = {}
        self._stamp_of: dict[int, int] = {}
        self._orphans = False
        self._scale = ScaleState.SCENE
        self._poses: list[tuple[int, int, np.ndarray]] = []

    def add(self, event: Event) -> None:
        """Take one event; poses that are not tracked are left out of the path."""
        if isinstance(event, NewKeyframe):
            self._add_keyframe(event.keyframe)
        elif isinstance(event, MovedKeyframes):
            self._world_from_keyframe.update(event.world_from_cam)
            self._point_scale.update(event.point_scale)
            self._scale = event.scale or self._scale
        elif isinstance(event, RemovedKeyframes):
            for keyframe_id in event.ids:
                self._remove_keyframe(keyframe_id)
        elif isinstance(event, Pose) and event.state is TrackingState.TRACKED:
            self._add_pose(event)

    @property
    def scale(self) -> ScaleState:
        """What a unit of length is now."""
        return self._scale

    @property
    def keyframe_ids(self) -> tuple[int, ...]:
        """Keyframes that were told and not withdrawn, in the order in which they were told."""
        return tuple(self._stamp_of)

    def _add_keyframe(self, keyframe: Keyframe) -> None:
        """Keyframes come late: poses since its picture hang on it from now on.

        Poses from before the first keyframe hang on that. So do poses whose keyframe was withdrawn
        on the next one. A keyframe from an earlier session takes no pose from a later one.
        """
        first = not self._stamp_of
        self._scale = keyframe.scale
        self._world_from_keyframe[keyframe.id] = keyframe.world_from_cam
        self._stamp_of[keyframe.id] = keyframe.stamp_ns
        orphans, self._orphans = self._orphans, False
        for row in range(len(self._poses) - 1, -1, -1):
            stamp_ns, anchor, pose = self._poses[row]
            if stamp_ns < keyframe.stamp_ns and not first and not orphans:
                break
            hangs_since = self._stamp_of.get(anchor)
            late = hangs_since is not None and hangs_since <= keyframe.stamp_ns <= stamp_ns
            if first or late or (hangs_since is None and anchor >= 0):
                world_from_cam = pose if anchor < 0 else self._placed(anchor, pose)
                self._poses[row] = self._hung(stamp_ns, keyframe.id, world_from_cam)

    def _remove_keyframe(self, keyframe_id: int) -> None:
        """Poses stay where they are until the next keyframe."""
        self._orphans |= self._stamp_of.pop(keyframe_id, None) is not None

    def _add_pose(self, pose: Pose) -> None:
        if pose.keyframe_id in self._world_from_keyframe:
            self._poses.append(self._hung(pose.stamp_ns, pose.keyframe_id, pose.world_from_cam))
        else:
            self._poses.append((pose.stamp_ns, -1, pose.world_from_cam))

    def _hung(
        self, stamp_ns: int, anchor: int, world_from_cam: np.ndarray
    ) -> tuple[int, int, np.ndarray]:
        keyframe_from_cam = inverse(self._world_from_keyframe[anchor]) @ world_from_cam
        keyframe_from_cam[:3, 3] /= self._point_scale.get(anchor, 1.0)
        return stamp_ns, anchor, keyframe_from_cam

    def __len__(self) -> int:
        return len(self._poses)

    def poses(self) -> StampedPoses:
        """The path as it stands now, with every keyframe correction applied."""
        ordered = sorted(self._poses, key=lambda entry: entry[0])
        stamps = np.array([stamp for stamp, _, _ in ordered], dtype=np.int64)
        local = np.array([pose for _, _, pose in ordered], dtype=np.float64).reshape(-1, 4, 4)
        anchors = np.array([anchor for _, anchor, _ in ordered], dtype=np.int64)
        known, rows = np.unique(anchors, return_inverse=True)
        frames = [np.eye(4) if a < 0 else self._world_from_keyframe[a] for a in known.tolist()]
        scales = np.array([self._point_scale.get(a, 1.0) for a in known.tolist()])
        local[:, :3, 3] *= scales[rows, None]
        world = np.array(frames).reshape(-1, 4, 4)[rows]
        return StampedPoses(stamps, world @ local, self._scale)

    def _placed(self, anchor: int, keyframe_from_cam: np.ndarray) -> np.ndarray:
        world = self._world_from_keyframe[anchor]
        pose: np.ndarray = world @ keyframe_from_cam
        extra = self._point_scale.get(anchor, 1.0) - 1.0
        pose[:3, 3] += extra * world[:3, :3] @ keyframe_from_cam[:3, 3]
        return pose


def write_tum(path: Path, poses: StampedPoses) -> None:
    """Write `timestamp tx ty tz qx qy qz qw`, seconds with nine decimals, one pose a line."""
    lines = ["# timestamp[s] tx ty tz qx qy qz qw (world_from_cam, x right y down z forward)"]
    quaternions = quaternion_xyzw_from_matrix(poses.world_from_cam[:, :3, :3])
    stamps = poses.stamps_ns.tolist()
    for stamp, pose, quaternion in zip(stamps, poses.world_from_cam, quaternions, strict=True):
        numbers = (*pose[:3, 3], *quaternion)
        text = " ".join(f"{number:.9g}" for number in numbers)
        lines.append(f"{stamp // 10**9}.{stamp % 10**9:09d} {text}")
    path.write_text("\n".join(lines) + "\n")


def read_tum(path: Path) -> StampedPoses:
    """Read a TUM trajectory; comment lines are skipped, stamps keep their nanoseconds."""
    stamps: list[int] = []
    poses: list[np.ndarray] = []
    for line in path.read_text().splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        words = line.split()
        numbers = np.array([float(word) for word in words[1:8]])
        pose = np.eye(4)
        pose[:3, 3] = numbers[:3]
        pose[:3, :3] = matrix_from_quaternion_xyzw(numbers[3:])
        stamps.append(_nanoseconds(words[0]))
        poses.append(pose)
    return StampedPoses(
        np.array(stamps, dtype=np.int64), np.array(poses, dtype=np.float64).reshape(-1, 4, 4)
    )


def _nanoseconds(seconds: str) -> int:
    whole, _, fraction = seconds.partition(".")
    return int(whole) * 10**9 + int((fraction + "0" * 9)[:9])
