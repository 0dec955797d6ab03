# SPDX-License-Identifier: Apache-2.0
"""The cloud of all key frames, with a bound that no video exceeds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, UInt8

from worldsystem_core.geometry.se3 import transform
from worldsystem_core.reconstruction import Keyframe


@dataclass(frozen=True, eq=False)
class CloudPoints:
    """n coloured points in the world [world units]."""

    points: Float32[np.ndarray, "n 3"]
    rgb: UInt8[np.ndarray, "n 3"]


@dataclass(eq=False)
class _Block:
    world_from_cam: Float64[np.ndarray, "4 4"]
    points_cam: Float32[np.ndarray, "n 3"]
    rgb: UInt8[np.ndarray, "n 3"]


MOVABLE_KEYFRAMES = 1000
"""Key frames whose points can still be moved; those before them are settled together."""
_SETTLED = -1


class BoundedCloud:
    """At most `most` points, an even random sample of all that were ever put in.

    When it is full every block is halved, and later key frames give as much less. Points are kept
    by key frame, so that the newest of these can still be moved or taken out.
    """

    def __init__(self, most: int, *, seed: int = 0) -> None:
        self._most = most
        self._rng = np.random.default_rng(seed)
        self._blocks: dict[int, _Block] = {}
        self._share = 1.0
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, keyframe: Keyframe) -> None:
        """Put in the known points of a key frame, in the place of the one with its id."""
        self.remove((keyframe.id,))
        known = np.isfinite(keyframe.pointmap[..., 2])
        points, rgb = keyframe.pointmap[known], keyframe.rgb[known]
        block = _Block(keyframe.world_from_cam.copy(), points, rgb)
        self._thin(block, self._share)
        while self._count + len(block.points_cam) > self._most:
            self._share /= 2.0
            for other in (*self._blocks.values(), block):
                self._thin(other, 0.5)
            self._blocks = {key: b for key, b in self._blocks.items() if len(b.points_cam)}
            self._count = sum(len(other.points_cam) for other in self._blocks.values())
        if len(block.points_cam):
            self._blocks[keyframe.id] = block
            self._count += len(block.points_cam)
        if len(self._blocks) > 2 * MOVABLE_KEYFRAMES:
            self._settle()

    def move(self, world_from_cam: dict[int, Float64[np.ndarray, "4 4"]]) -> None:
        """Correct the poses of key frames; unknown ids are passed over."""
        for key, pose in world_from_cam.items():
            if key in self._blocks:
                self._blocks[key].world_from_cam = pose.copy()

    def remove(self, ids: tuple[int, ...]) -> None:
        """Take key frames out; unknown ids are passed over."""
        for key in ids:
            block = self._blocks.pop(key, None)
            self._count -= 0 if block is None else len(block.points_cam)

    def points(self) -> CloudPoints:
        """All points as they stand in the world now."""
        placed = [transform(b.world_from_cam, b.points_cam) for b in self._blocks.values()]
        colours = [block.rgb for block in self._blocks.values()]
        return CloudPoints(
            np.concatenate([np.empty((0, 3), np.float32), *placed]),
            np.concatenate([np.empty((0, 3), np.uint8), *colours]),
        )

    def _settle(self) -> None:
        """Join the older half of the blocks into one: a block costs more than its few points."""
        joined = list(self._blocks)[:-MOVABLE_KEYFRAMES]
        if _SETTLED in self._blocks and _SETTLED not in joined:
            joined.append(_SETTLED)
        blocks = [self._blocks.pop(key) for key in joined]
        points = [transform(block.world_from_cam, block.points_cam) for block in blocks]
        rgb = np.concatenate([block.rgb for block in blocks])
        self._blocks = {_SETTLED: _Block(np.eye(4), np.concatenate(points), rgb)} | self._blocks

    def _thin(self, block: _Block, share: float) -> None:
        if share < 1.0:
            kept = self._rng.random(len(block.points_cam)) < share
            block.points_cam, block.rgb = block.points_cam[kept], block.rgb[kept]
