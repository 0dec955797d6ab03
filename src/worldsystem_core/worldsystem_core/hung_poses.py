# SPDX-License-Identifier: Apache-2.0
"""Many poses, each kept in the frame of what it hangs on, in arrays that grow."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from worldsystem_core.geometry.sim3 import Sim3
from worldsystem_core.thinning import rows_that_stay

NOTHING = -1
"""What a pose hangs on that is kept in the world itself."""
_ROW = np.dtype([("stamp_ns", np.int64), ("anchor", np.int64), ("pose", np.float32, (3, 4))])
"""64 bytes: an hour at 15 a second is 3.5 MB. Near its anchor a place needs no more digits."""
_FIRST_ROOM = 256
_FEWEST = 4


class HungPoses:
    """n poses in the order in which they came; `anchor_from_cam` is in the anchor's own unit.

    At most `most` are kept (0: all): of a longer path the older half grows coarser evenly.
    """

    def __init__(self, most: int = 0) -> None:
        if most and most < _FEWEST:
            raise ValueError(f"a path of at most {most} poses is none: keep {_FEWEST} or more")
        self._most = most
        self._rows = np.empty(_FIRST_ROOM, _ROW)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def stamps_ns(self) -> Int64[np.ndarray, "n"]:
        return self._rows["stamp_ns"][: self._count]

    @property
    def anchors(self) -> Int64[np.ndarray, "n"]:
        return self._rows["anchor"][: self._count]

    @property
    def anchor_from_cam(self) -> Float32[np.ndarray, "n 3 4"]:
        return self._rows["pose"][: self._count]

    def append(
        self, stamp_ns: int, anchor: int, anchor_from_cam: Float64[np.ndarray, "4 4"]
    ) -> None:
        """Add the newest pose, in the unit of keyframe `anchor` (of the world, for `NOTHING`)."""
        if self._most and self._count >= self._most:
            self._thin_out()
        if self._count == len(self._rows):
            self._rows = np.concatenate([self._rows, np.empty_like(self._rows)])
        self._rows[self._count] = (stamp_ns, anchor, anchor_from_cam[:3])
        self._count += 1

    def _thin_out(self) -> None:
        kept = self._rows[rows_that_stay(self.stamps_ns)]
        self._count = len(kept)
        self._rows[: self._count] = kept

    def first_since(self, stamp_ns: int) -> int:
        """The row from which on all stamps are at least this one."""
        earlier = np.flatnonzero(self.stamps_ns < stamp_ns)
        return int(earlier[-1]) + 1 if len(earlier) else 0

    def hang(self, which: Bool[np.ndarray, "n"], anchor: int, own_from: Mapping[int, Sim3]) -> None:
        """Hang poses on another `anchor`, where they are: `own_from` says how those lie in it that
        they hang on now."""
        for old, anchor_from_old in own_from.items():
            rows = np.flatnonzero(which & (self.anchors == old))
            pose = self.anchor_from_cam[rows]
            pose[..., 3] = anchor_from_old.apply(pose[..., 3])
            pose[..., :3] = anchor_from_old.rotation @ pose[..., :3]
            self.anchor_from_cam[rows] = pose
            self.anchors[rows] = anchor

    def in_world(
        self, world_from_anchor: Mapping[int, Sim3]
    ) -> tuple[Int64[np.ndarray, "n"], Float64[np.ndarray, "n 4 4"]]:
        """Stamps and poses in the world, in time order."""
        known, rows = np.unique(self.anchors, return_inverse=True)
        places = [world_from_anchor[anchor] for anchor in known.tolist()]
        local = np.tile(np.eye(4), (len(self), 1, 1))
        local[:, :3] = self.anchor_from_cam
        local[:, :3, 3] *= np.array([place.scale for place in places])[rows, None]
        world = np.array([place.pose for place in places]).reshape(-1, 4, 4)[rows] @ local
        order = np.argsort(self.stamps_ns, kind="stable")
        return self.stamps_ns[order], world[order]
