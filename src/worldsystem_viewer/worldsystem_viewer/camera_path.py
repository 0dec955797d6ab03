# SPDX-License-Identifier: Apache-2.0
"""The camera's path for drawing: positions that hang on keyframes, in arrays that grow."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float32, Float64

from worldsystem_core.geometry.se3 import inverse
from worldsystem_core.hung_poses import NOTHING
from worldsystem_core.reconstruction import Pose, RemovedKeyframes, TrackingState
from worldsystem_core.thinning import rows_that_stay
from worldsystem_core.trajectory import StampedPoses

_CAPACITY = 10_000
"""Centres; more are no finer line, and 11 minutes at 15 a second are kept whole."""
_RETOLD_PER_S = 5_000
"""Centres a second that corrections make a page get again: a long path shows them later."""


class CameraPath:
    """Camera centres in arrival order; a corrected keyframe takes its centres along.

    At most `capacity` centres are held: of a longer path the older half grows coarser evenly. Half
    as many more may lie before the first of them. `epoch` grows when centres already handed out are
    to be told again.
    """

    def __init__(self, capacity: int = _CAPACITY) -> None:
        self._local = np.zeros((capacity, 3), np.float64)
        self._anchor = np.full(capacity, NOTHING, np.int64)
        self._baked = np.zeros((capacity, 3), np.float32)
        self._stamps_ns = np.zeros(capacity, np.int64)
        self._length = 0
        self._before = np.zeros((0, 3), np.float32)
        self._before_ns = np.zeros(0, np.int64)
        self._keyframes: dict[int, np.ndarray] = {}
        self._sizes: dict[int, float] = {}
        self._hangs = False
        self._is_corrected = False
        self._told_s = -math.inf
        self.epoch = 0

    def __len__(self) -> int:
        return len(self._before) + self._length

    def add_keyframe(self, id: int, world_from_cam: Float64[np.ndarray, "4 4"]) -> None:
        """Poses that name keyframe `id` hang on it from now on, the first also those before it.

        Of one that is told again the size counts anew: what hangs on it stays as it has grown.
        """
        first, self._hangs = not self._hangs, True
        self._keyframes[id] = world_from_cam
        grown = self._sizes.pop(id, 1.0)
        if grown != 1.0:
            self._local[: self._length][self._anchor[: self._length] == id] *= grown
        if first:
            keyframe_from_world = inverse(world_from_cam)
            loose = np.flatnonzero(self._anchor[: self._length] == NOTHING)
            self._local[loose] = (
                self._local[loose] @ keyframe_from_world[:3, :3].T + keyframe_from_world[:3, 3]
            )
            self._anchor[loose] = id

    def add(self, pose: Pose) -> None:
        """Append a tracked pose; others, and poses that are not finite, are left out."""
        centre = pose.world_from_cam[:3, 3]
        if pose.state is not TrackingState.TRACKED or not np.isfinite(centre).all():
            return
        if self._length == len(self._baked):
            self._thin_out()
        at, anchor = self._length, self._anchor_of(pose)
        if anchor == NOTHING:
            self._local[at] = centre
        else:
            keyframe_from_world = inverse(self._keyframes[anchor])
            local = keyframe_from_world[:3, :3] @ centre + keyframe_from_world[:3, 3]
            self._local[at] = local / self._sizes.get(anchor, 1.0)
        self._anchor[at] = anchor
        self._baked[at] = centre
        self._stamps_ns[at] = pose.stamp_ns
        self._length += 1

    def _anchor_of(self, pose: Pose) -> int:
        """The keyframe that the pose names; of one that names none, as those from other processes,
        the newest."""
        if pose.keyframe_id in self._keyframes:
            return pose.keyframe_id
        return max(self._keyframes, default=NOTHING)

    def put_before(self, poses: StampedPoses) -> None:
        """Of the whole path, take what lies before the first centre that was added here, in the
        place of what was taken so earlier. It follows no keyframe."""
        first_ns = self._stamps_ns[0] if self._length else np.iinfo(np.int64).max
        earlier = np.flatnonzero(poses.stamps_ns < first_ns)
        step = max(1, math.ceil(len(earlier) / (len(self._baked) // 2)))
        chosen = earlier[::-step][::-1]
        centres = poses.positions[chosen].astype(np.float32)
        if len(centres) != len(self._before):
            self.epoch += 1
        elif not np.array_equal(centres, self._before):
            self._is_corrected = True
        self._before, self._before_ns = centres, poses.stamps_ns[chosen]

    def move(
        self,
        world_from_cam: dict[int, Float64[np.ndarray, "4 4"]],
        point_scale: dict[int, float] | None = None,
    ) -> None:
        """Keyframes were corrected, in place and size: their centres follow."""
        self._keyframes.update(world_from_cam)
        self._sizes.update(point_scale or {})
        anchors = self._anchor[: self._length]
        rows = np.flatnonzero(np.isin(anchors, list(world_from_cam)))
        known, which = np.unique(anchors[rows], return_inverse=True)
        ids = known.tolist()
        poses = np.array([world_from_cam[key] for key in ids]).reshape(-1, 4, 4)[which]
        sizes = np.array([self._sizes.get(key, 1.0) for key in ids])[which, None]
        turned = np.einsum("nij,nj->ni", poses[:, :3, :3], self._local[rows] * sizes)
        self._baked[rows] = turned + poses[:, :3, 3]
        self._is_corrected = True

    def remove(self, removed: RemovedKeyframes) -> None:
        """Centres stay where they are, and go along with the successor of theirs from now on. They
        go when no keyframe is left: what comes is another world."""
        held_any = bool(self._keyframes)
        for keyframe_id, successor in removed.successors.items():
            pose = self._keyframes.setdefault(successor.id, successor.world_from_cam)
            size = self._sizes.setdefault(successor.id, successor.point_scale)
            hanging = np.flatnonzero(self._anchor[: self._length] == keyframe_id)
            centres = self._baked[hanging].astype(np.float64)
            self._local[hanging] = (centres - pose[:3, 3]) @ pose[:3, :3] / size
            self._anchor[hanging] = successor.id
        for keyframe_id in removed.ids:
            self._keyframes.pop(keyframe_id, None)
            self._sizes.pop(keyframe_id, None)
        if held_any and not self._keyframes:
            self._begin_anew()

    def show_corrections(self, now_s: float) -> None:
        """Have corrected centres told again, the more seldom the more of them there are."""
        if self._is_corrected and now_s - self._told_s >= len(self) / _RETOLD_PER_S:
            self._is_corrected, self._told_s = False, now_s
            self.epoch += 1

    def positions(self, start: int = 0) -> Float32[np.ndarray, "n 3"]:
        """A copy of the centres from number `start` on [world units]."""
        own = max(start - len(self._before), 0)
        return np.concatenate([self._before[start:], self._baked[own : self._length]])

    def positions_until(self, stamp_ns: int) -> Float32[np.ndarray, "n 3"]:
        """A copy of the centres up to a capture time [world units]."""
        stamps_ns = np.concatenate([self._before_ns, self._stamps_ns[: self._length]])
        return self.positions()[stamps_ns <= stamp_ns]

    def _begin_anew(self) -> None:
        self._length = 0
        self._before, self._before_ns = self._before[:0], self._before_ns[:0]
        self._hangs = False
        self.epoch += 1

    def _thin_out(self) -> None:
        stay = rows_that_stay(self._stamps_ns[: self._length])
        for array in (self._local, self._anchor, self._baked, self._stamps_ns):
            array[: len(stay)] = array[stay]
        self._length = len(stay)
        self.epoch += 1
