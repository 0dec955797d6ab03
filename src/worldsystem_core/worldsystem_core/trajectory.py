# SPDX-License-Identifier: Apache-2.0
"""The camera's path: poses that hang on keyframes and follow their corrections; TUM files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float64, Int64

from worldsystem_core.geometry.rotation import (
    matrix_from_quaternion_xyzw,
    quaternion_xyzw_from_matrix,
)
from worldsystem_core.geometry.sim3 import Sim3
from worldsystem_core.hung_poses import NOTHING, HungPoses
from worldsystem_core.reconstruction import (
    Event,
    Keyframe,
    MovedKeyframes,
    NewKeyframe,
    Pose,
    RemovedKeyframes,
    ScaleState,
    Successor,
    TrackingState,
)
from worldsystem_core.stamp_text import nanoseconds_told
from worldsystem_core.whole_file import write_whole


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
    """Collects a back-end's events; a pose hangs on its keyframe and moves and grows with it.

    Of a path of more than `most_poses` what is long ago is kept coarsely (`HungPoses`); 0: all.
    """

    def __init__(self, most_poses: int = 0) -> None:
        self._place_of: dict[int, Sim3] = {NOTHING: Sim3.identity()}
        self._stamp_of: dict[int, int] = {}
        self._orphans = False
        self._scale = ScaleState.SCENE
        self._poses = HungPoses(most_poses)

    def add(self, event: Event) -> None:
        """Take one event; poses that are not tracked are left out of the path."""
        if isinstance(event, NewKeyframe):
            self._add_keyframe(event.keyframe)
        elif isinstance(event, MovedKeyframes):
            for key, pose in event.world_from_cam.items():
                known = self._place_of.get(key)
                size = event.point_scale.get(key, 1.0 if known is None else known.scale)
                self._place_of[key] = Sim3.from_pose(pose, size)
            self._scale = event.scale or self._scale
        elif isinstance(event, RemovedKeyframes):
            for key, successor in event.successors.items():
                self._hang_on_successor(key, successor)
            gone = [key for key in event.wrong if self._stamp_of.pop(key, None) is not None]
            self._orphans |= bool(gone)
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

        Poses from before the first keyframe of their sub-map hang on that. So do poses whose
        keyframe was withdrawn on the next one. A keyframe from an earlier session takes no pose
        from a later one.
        """
        first = not self._stamp_of
        self._scale = keyframe.scale
        if keyframe.id in self._stamp_of:  # told again, in the unit of now
            grown = Sim3(self._place_of[keyframe.id].scale, np.eye(3), np.zeros(3))
            hanging = self._poses.anchors == keyframe.id
            self._poses.hang(hanging, keyframe.id, {keyframe.id: grown})
        self._place_of[keyframe.id] = Sim3.from_pose(keyframe.world_from_cam)
        self._stamp_of[keyframe.id] = keyframe.stamp_ns
        orphans, self._orphans = self._orphans, False
        stamps, anchors = self._poses.stamps_ns, self._poses.anchors
        start = 0 if first or orphans else self._poses.first_since(keyframe.stamp_ns)
        takes = np.zeros(len(stamps), bool)
        for anchor in np.unique(anchors[start:]).tolist():
            since = self._stamp_of.get(anchor)
            own = anchors[start:] == anchor
            if not first and since is not None:
                own &= (since <= keyframe.stamp_ns) & (keyframe.stamp_ns <= stamps[start:])
            if first or since is not None or anchor > NOTHING:
                takes[start:] |= own
        takes |= anchors == _loose_in(keyframe.submap)
        self._hang(takes, keyframe.id)

    def _hang_on_successor(self, id: int, successor: Successor) -> None:
        """Poses go along with the keyframe that stands in for theirs."""
        if self._stamp_of.pop(id, None) is None:
            return
        self._place_of.setdefault(successor.id, successor.world_from_points)
        self._hang(self._poses.anchors == id, successor.id)
        del self._place_of[id]

    def _hang(self, which: Bool[np.ndarray, "n"], anchor: int) -> None:
        anchor_from_world = self._place_of[anchor].inverse()
        olds = np.unique(self._poses.anchors[which]).tolist()
        places = {old: anchor_from_world @ self._place_of[old] for old in olds if old != anchor}
        self._poses.hang(which, anchor, places)

    def _add_pose(self, pose: Pose) -> None:
        anchor = pose.keyframe_id
        if anchor == NOTHING or anchor not in self._place_of:
            anchor = _loose_in(pose.submap)
            self._place_of.setdefault(anchor, Sim3.identity())
        local = self._place_of[anchor].inverse().apply_pose(pose.world_from_cam)
        self._poses.append(pose.stamp_ns, anchor, local)

    def __len__(self) -> int:
        return len(self._poses)

    def poses(self) -> StampedPoses:
        """The path as it stands now, with every keyframe correction applied."""
        return StampedPoses(*self._poses.in_world(self._place_of), self._scale)


def _loose_in(submap: int) -> int:
    """What a pose hangs on, in the world itself, until a keyframe of its sub-map comes."""
    return NOTHING - submap


def write_tum(path: Path, poses: StampedPoses) -> None:
    """Write `timestamp tx ty tz qx qy qz qw`, seconds with nine decimals, one pose a line.

    The file is there when it is whole: raises `OSError`, and leaves what was there, where it fails.
    """
    lines = ["# timestamp[s] tx ty tz qx qy qz qw (world_from_cam, x right y down z forward)"]
    quaternions = quaternion_xyzw_from_matrix(poses.world_from_cam[:, :3, :3])
    stamps = poses.stamps_ns.tolist()
    for stamp, pose, quaternion in zip(stamps, poses.world_from_cam, quaternions, strict=True):
        numbers = (*pose[:3, 3], *quaternion)
        text = " ".join(f"{number:.9g}" for number in numbers)
        lines.append(f"{stamp // 10**9}.{stamp % 10**9:09d} {text}")
    write_whole(path, ("\n".join(lines) + "\n").encode())


def read_tum(path: Path) -> StampedPoses:
    """Read a TUM trajectory; comment lines are skipped, stamps keep their nanoseconds.

    Raises ValueError for a line that is no pose.
    """
    stamps: list[int] = []
    poses: list[np.ndarray] = []
    for line in path.read_text().splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        words = line.split()
        if len(words) < 8:
            raise ValueError(f"'{line[:60]}' has {len(words)} words, a pose has 8")
        numbers = np.array([float(word) for word in words[1:8]])
        pose = np.eye(4)
        pose[:3, 3] = numbers[:3]
        pose[:3, :3] = matrix_from_quaternion_xyzw(numbers[3:])
        stamps.append(nanoseconds_told(words[0]))
        poses.append(pose)
    return StampedPoses(
        np.array(stamps, dtype=np.int64), np.array(poses, dtype=np.float64).reshape(-1, 4, 4)
    )
