# SPDX-License-Identifier: Apache-2.0
"""The surface points of one object: one a voxel, each with votes, each hung on a keyframe.

A point is kept in the frame of the keyframe that first saw it and moves when that moves. A sighting
of its voxel votes for it; a sighting of what lies behind it votes against it.
"""

from __future__ import annotations

from collections.abc import Mapping, Set

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from worldsystem_core.geometry.se3 import inverse, transform
from worldsystem_segment.objects.voxels import is_in, voxel_keys

MAX_VOTES = 30
SOLID_VOTES = 2
MIN_SOLID_SHARE = 0.4


class TrackPoints:
    """At most `limit` points, no two new ones in one voxel of `edge` [scene units]."""

    def __init__(self, edge: float, limit: int) -> None:
        self._edge = edge
        self._limit = limit
        self.changes = 0  # grows with each change, for what is worked out from the points
        self._cam = np.zeros((0, 3), np.float32)
        self._anchor = np.zeros(0, np.int64)
        self._anchors: frozenset[int] | None = None  # until somebody asks
        self.world = np.zeros((0, 3), np.float32)
        self.votes = np.zeros(0, np.int16)
        self._key = np.zeros(0, np.int64)
        self.keys = np.zeros(0, np.int64)  # sorted, unique
        self.low = np.zeros(3, np.float32)
        self.high = np.zeros(3, np.float32)

    def __len__(self) -> int:
        return len(self.world)

    @property
    def anchors(self) -> frozenset[int]:
        """The keyframes that points hang on."""
        if self._anchors is None:
            self._anchors = frozenset(np.unique(self._anchor).tolist())
        return self._anchors

    @property
    def solid(self) -> Float32[np.ndarray, "n 3"]:
        """Points that more than one view has seen, or all while those are the fewer."""
        sure = self.votes >= SOLID_VOTES
        return self.world[sure] if sure.sum() > MIN_SOLID_SHARE * len(sure) else self.world

    def clear(self) -> None:
        """Forget all points."""
        self._keep(np.zeros(len(self), bool))

    def add(
        self,
        keyframe_id: int,
        cam: Float32[np.ndarray, "n 3"],
        world: Float32[np.ndarray, "n 3"],
        keys: Int64[np.ndarray, "n"],
    ) -> int:
        """Vote for known voxels, take one point of each new one; returns how many had no room.

        Where there is no room, points that only one view has seen make way.
        """
        seen, first = keys, np.arange(len(keys))
        if not (keys[1:] > keys[:-1]).all():
            seen, first = np.unique(keys, return_index=True)
        known = is_in(self._key, seen)
        self.votes[known] = np.minimum(self.votes[known] + 1, MAX_VOTES)
        fresh = first[~is_in(seen, self.keys)]
        lost = len(self) + len(fresh) - self._limit
        if lost > 0:
            self._keep(~self._weakest(lost))
            room = max(0, self._limit - len(self))
            if len(fresh) > room:
                fresh = fresh[np.linspace(0, len(fresh) - 1, room).astype(int)]
        self._cam = np.concatenate([self._cam, cam[fresh]])
        self._anchor = np.concatenate([self._anchor, np.full(len(fresh), keyframe_id)])
        self.votes = np.concatenate([self.votes, np.ones(len(fresh), np.int16)])
        self._key = np.concatenate([self._key, keys[fresh]])
        self.world = np.concatenate([self.world, world[fresh]])
        self._refresh()
        return max(0, lost)

    def doubt(self, which: Bool[np.ndarray, "n"]) -> None:
        """Take a vote from each of these points; those without votes go."""
        self.votes[which] -= 1
        self.changes += 1
        if (self.votes <= 0).any():
            self._keep(self.votes > 0)

    def give_up(self, keys: Int64[np.ndarray, "m"]) -> None:
        """Forget what lies in these (sorted) voxels: they are another thing's."""
        self._keep(~is_in(self._key, keys))

    def take_over(self, other: TrackPoints) -> None:
        """Take another thing's points: both were one. The weakest go beyond the limit."""
        fresh = ~is_in(other._key, self.keys)
        self._cam = np.concatenate([self._cam, other._cam[fresh]])
        self._anchor = np.concatenate([self._anchor, other._anchor[fresh]])
        self.votes = np.concatenate([self.votes, other.votes[fresh]])
        self._key = np.concatenate([self._key, other._key[fresh]])
        self.world = np.concatenate([self.world, other.world[fresh]])
        if len(self) > self._limit:
            strongest = np.argsort(-self.votes, kind="stable")[: self._limit]
            self._keep(np.isin(np.arange(len(self)), strongest))
        else:
            self._refresh()

    def withdraw(self, keyframe_ids: set[int]) -> None:
        """Forget the points that hang on these keyframes."""
        self._keep(~np.isin(self._anchor, list(keyframe_ids)))

    def hang_on(
        self, id: int, other: int, world_from_cam: Float64[np.ndarray, "4 4"], size: float
    ) -> None:
        """Hang the points of keyframe `id` on `other`, which lies and has grown so."""
        own = self._anchor == id
        cam = transform(inverse(world_from_cam), self.world[own])
        self._cam[own] = cam / np.float32(size)
        self._anchor[own] = other
        self._anchors = None

    def place(
        self,
        moved: Set[int],
        poses: Mapping[int, Float64[np.ndarray, "4 4"]],
        sizes: Mapping[int, float],
    ) -> None:
        """Put the points of these keyframes where those are now; `sizes` scale their points."""
        changed = np.zeros(len(self), bool)
        for keyframe_id in self.anchors & moved & poses.keys():
            own = self._anchor == keyframe_id
            size = np.float32(sizes.get(keyframe_id, 1.0))
            self.world[own] = transform(poses[keyframe_id], self._cam[own] * size)
            changed |= own
        self._key[changed] = voxel_keys(self.world[changed], self._edge)
        self._refresh()

    def arrays(self) -> dict[str, np.ndarray]:
        """What `restore` needs."""
        return {
            "cam": self._cam,
            "anchor": self._anchor,
            "world": self.world,
            "votes": self.votes,
        }

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Take the points of another session; a `ValueError` when arrays do not fit together."""
        cam, world = arrays["cam"].reshape(-1, 3), arrays["world"].reshape(-1, 3)
        if not len(cam) == len(world) == len(arrays["anchor"]) == len(arrays["votes"]):
            raise ValueError("points, anchors and votes differ in number")
        self._cam, self.world = cam.astype(np.float32), world.astype(np.float32)
        self._anchor = arrays["anchor"].astype(np.int64)
        self.votes = arrays["votes"].astype(np.int16)
        self._key = voxel_keys(self.world, self._edge)
        self._refresh()

    def _weakest(self, count: int) -> Bool[np.ndarray, "n"]:
        single = np.flatnonzero(self.votes < SOLID_VOTES)[:count]
        return np.isin(np.arange(len(self)), single)

    def _keep(self, which: Bool[np.ndarray, "n"]) -> None:
        if which.all():
            return
        self._cam, self._anchor = self._cam[which], self._anchor[which]
        self.votes, self._key, self.world = self.votes[which], self._key[which], self.world[which]
        self._refresh()

    def _refresh(self) -> None:
        self.changes += 1
        self._anchors = None
        self.keys = np.unique(self._key)
        if len(self.world):
            columns = self.world.T.copy()
            self.low, self.high = columns.min(axis=1), columns.max(axis=1)
