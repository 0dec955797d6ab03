# SPDX-License-Identifier: Apache-2.0
"""The cloud of all keyframes, with a bound that no video exceeds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, UInt8

from worldsystem_core.cloud import PointCloud
from worldsystem_core.geometry.se3 import inverse, transform
from worldsystem_core.pages import in_own_pages
from worldsystem_core.reconstruction import (
    Event,
    Keyframe,
    MovedKeyframes,
    NewKeyframe,
    RemovedKeyframes,
    ScaleState,
)


@dataclass(eq=False)
class _Block:
    world_from_cam: Float64[np.ndarray, "4 4"]
    points_cam: Float32[np.ndarray, "n 3"]
    rgb: UInt8[np.ndarray, "n 3"]
    size: float = 1.0
    """Factor on `points_cam`, which are kept as they were first told."""

    def placed(self) -> Float32[np.ndarray, "n 3"]:
        """The points in the world."""
        world_from_points = self.world_from_cam.copy()
        world_from_points[:3, :3] *= self.size
        return transform(world_from_points, self.points_cam)


MOVABLE_KEYFRAMES = 1000
"""Keyframes whose points can still be moved; those before them are settled together."""
_SETTLED = -1


class BoundedCloud:
    """At most `most` points, an even random sample of all that were ever put in.

    When it is full every block is halved, and later keyframes give as much less. Points are kept
    by keyframe, so that the newest of these can still be moved or taken out. `version` grows with
    every change.
    """

    def __init__(self, most: int, *, seed: int = 0) -> None:
        self.version = 0
        self._most = most
        self._rng = np.random.default_rng(seed)
        self._blocks: dict[int, _Block] = {}
        self._settled: set[int] = set()
        self._share = 1.0
        self._count = 0
        self._scale = ScaleState.SCENE

    def __len__(self) -> int:
        return self._count

    def apply(self, event: Event) -> None:
        """Follow what a back-end says of its keyframes; poses of frames are passed over."""
        if isinstance(event, NewKeyframe):
            self.add(event.keyframe)
        elif isinstance(event, MovedKeyframes):
            self.move(event)
        elif isinstance(event, RemovedKeyframes):
            self.remove(event.ids)

    def add(self, keyframe: Keyframe) -> None:
        """Put in the known points of a keyframe, in the place of the one with its id; one that has
        settled is there already."""
        self.remove((keyframe.id,))
        self._scale = keyframe.scale
        if keyframe.id in self._settled:
            return
        block = self._sampled(keyframe)
        while self._count + len(block.points_cam) > self._most:
            self._halve(block)
        if len(block.points_cam):
            self._blocks[keyframe.id] = block
            self._count += len(block.points_cam)
            self.version += 1
        if len(self._blocks) > 2 * MOVABLE_KEYFRAMES:
            self._settle()

    def move(self, change: MovedKeyframes) -> None:
        """Correct poses and sizes of keyframes; unknown ids are passed over.

        Where the root itself changed, points that were settled go along with the keyframes: with
        the one that went least, since where all are told anew most have hardly moved.
        """
        steps: list[Float64[np.ndarray, "4 4"]] = []
        goes_along = change.scale is not None and _SETTLED in self._blocks
        for key, pose in change.world_from_cam.items():
            if key in self._blocks:
                block = self._blocks[key]
                size = change.point_scale.get(key, block.size)
                if goes_along:
                    steps.append(_similarity(block, pose, size))
                block.world_from_cam, block.size = pose.copy(), size
                self.version += 1
        if change.scale is not None:
            self._scale = change.scale
            if goes_along and steps:
                settled = self._blocks[_SETTLED]
                settled.points_cam = transform(min(steps, key=_length), settled.points_cam)

    def remove(self, ids: tuple[int, ...]) -> None:
        """Take keyframes out; unknown ids are passed over."""
        for key in ids:
            block = self._blocks.pop(key, None)
            if block is not None:
                self._count -= len(block.points_cam)
                self.version += 1

    def points(self, stamp_ns: int = 0) -> PointCloud:
        """All points as they stand in the world now."""
        points = np.empty((self._count, 3), np.float32)
        rgb = np.empty((self._count, 3), np.uint8)
        start = 0
        for block in self._blocks.values():
            end = start + len(block.points_cam)
            points[start:end] = block.placed()
            rgb[start:end] = block.rgb
            start = end
        return PointCloud(stamp_ns, points, rgb, self._scale)

    def _sampled(self, keyframe: Keyframe) -> _Block:
        """As large a share of the keyframe's known points as the earlier ones have kept."""
        known = np.isfinite(keyframe.pointmap[..., 2])
        if self._share < 1.0:
            known &= self._rng.random(known.shape, np.float32) < self._share
        points, rgb = in_own_pages(keyframe.pointmap[known], keyframe.rgb[known])
        return _Block(keyframe.world_from_cam.copy(), points, rgb)

    def _halve(self, newest: _Block) -> None:
        self._share /= 2.0
        for block in (*self._blocks.values(), newest):
            kept = self._rng.random(len(block.points_cam), np.float32) < 0.5
            block.points_cam, block.rgb = in_own_pages(block.points_cam[kept], block.rgb[kept])
        self._blocks = {key: block for key, block in self._blocks.items() if len(block.points_cam)}
        self._count = sum(len(block.points_cam) for block in self._blocks.values())

    def _settle(self) -> None:
        """Join the older half of the blocks into one: a block costs more than its few points."""
        joined = list(self._blocks)[:-MOVABLE_KEYFRAMES]
        if _SETTLED in self._blocks and _SETTLED not in joined:
            joined.append(_SETTLED)
        self._settled.update(key for key in joined if key != _SETTLED)
        blocks = [self._blocks.pop(key) for key in joined]
        points = [block.placed() for block in blocks]
        rgb = np.concatenate([block.rgb for block in blocks])
        self._blocks = {_SETTLED: _Block(np.eye(4), np.concatenate(points), rgb)} | self._blocks


def _length(step: Float64[np.ndarray, "4 4"]) -> float:
    return float(np.linalg.norm(step - np.eye(4)))


def _similarity(
    block: _Block, pose: Float64[np.ndarray, "4 4"], size: float
) -> Float64[np.ndarray, "4 4"]:
    """What takes the block's points from where they are to where they belong."""
    world_from_old = pose @ inverse(block.world_from_cam)
    factor = size / block.size
    world_from_old[:3, :3] *= factor
    world_from_old[:3, 3] = pose[:3, 3] - world_from_old[:3, :3] @ block.world_from_cam[:3, 3]
    return np.asarray(world_from_old)
