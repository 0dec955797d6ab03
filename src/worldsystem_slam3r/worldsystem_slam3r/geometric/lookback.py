# SPDX-License-Identifier: Apache-2.0
"""Frames that were passed over before the start succeeded, located backwards in time afterwards."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, UInt8

from worldsystem_core.geometry.se3 import inverse, transform
from worldsystem_slam3r.geometric.map_store import KeyframeRecord, Map
from worldsystem_slam3r.geometric.matching import start_from_matches
from worldsystem_slam3r.geometric.pose import find_pose
from worldsystem_slam3r.geometric.tracking import follow

MOST_FRAMES = 45
"""Frames whose pictures are kept for it: 10 MB of a 640×360 video."""
MIN_TRACKS = 30
MIN_SHARE = 0.6
MOST_MISSES = 2
MOST_MATCHED = 12
"""Frames that may be looked for by descriptors, which takes a tenth of a second each."""


@dataclass(frozen=True, eq=False)
class Passed:
    """A frame without a pose and its picture."""

    frame_id: int
    stamp_ns: int
    grey: UInt8[np.ndarray, "hh ww"]


def located_before(
    world: Map, first: KeyframeRecord, passed: list[Passed]
) -> dict[int, Float64[np.ndarray, "4 4"]]:
    """`cam_from_world` by frame id of those `passed` frames that see the `first` keyframe's points.

    From the newest backwards: each is looked for where the frame after it was, then by descriptors,
    until two in a row are not found.
    """
    sight = _Sight.of(world, first)
    found: dict[int, np.ndarray] = {}
    poses = [first.cam_from_world]
    misses, matched = 0, 0
    for frame in reversed(passed):
        pose = sight.pose(frame.grey, sight.projected(_predicted(poses)))
        if pose is None and matched < MOST_MATCHED:
            matched += 1
            start = start_from_matches(first.grey, frame.grey, sight.px)
            pose = None if start is None else sight.pose(frame.grey, start)
        if pose is None:
            misses += 1
            if misses >= MOST_MISSES:
                break
            continue
        misses = 0
        found[frame.frame_id] = pose
        poses = [poses[-1], pose]
    return found


def _predicted(poses: list[np.ndarray]) -> np.ndarray:
    """Constant velocity, backwards."""
    if len(poses) < 2:
        return poses[-1]
    return np.asarray(poses[-1] @ inverse(poses[-2]) @ poses[-1])


@dataclass(frozen=True, eq=False)
class _Sight:
    """The known points of a keyframe: where they are, and where it sees them."""

    grey: np.ndarray
    points: np.ndarray
    px: np.ndarray
    K4: np.ndarray

    @staticmethod
    def of(world: Map, record: KeyframeRecord) -> _Sight:
        positions = world.positions(record.ids)
        known = np.isfinite(positions[:, 0])
        return _Sight(record.grey, positions[known], record.px[known].astype(np.float32), world.K4)

    def projected(self, cam_from_world: np.ndarray) -> np.ndarray:
        """Where another camera should see them [px]."""
        cam = transform(cam_from_world, self.points)
        z = np.maximum(cam[:, 2:], 1e-3)
        return np.asarray(cam[:, :2] / z * self.K4[:2] + self.K4[2:], np.float32)

    def pose(self, grey: np.ndarray, start_px: np.ndarray) -> np.ndarray | None:
        """The pose of a picture in which they lie near `start_px`; None where too few agree."""
        px, held = follow(self.grey, grey, self.px, start_px)
        if held.sum() < MIN_TRACKS:
            return None
        fit = find_pose(self.points[held], px[held].astype(np.float64), self.K4)
        if fit is None or fit.inlier_count < max(MIN_TRACKS, MIN_SHARE * held.sum()):
            return None
        return fit.cam_from_world
