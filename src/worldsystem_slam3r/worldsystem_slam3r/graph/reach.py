# SPDX-License-Identifier: Apache-2.0
"""Whether the camera can be where a single picture seems to have been taken.

Two rooms may look alike, and a lost camera is in the one that it could get to.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from worldsystem_core.geometry.se3 import rotation_angle_rad
from worldsystem_core.reconstruction import Pose
from worldsystem_slam3r.graph.atlas import Atlas, Kept
from worldsystem_slam3r.graph.loops import LoopFinder

RECENT_S, RECENT_POSES = 1.0, 120
"""The speed before a loss is that of the last second, or between the last two poses."""
FASTER = 2.0
"""A lost camera may go so many times as fast as before."""
DEPTHS_PER_S = 1.0
"""So many times the distance of what it sees it may go a second in any case: it may have stood."""
FORGOTTEN_S = 5.0
"""So long after the last tracked pose it may be anywhere."""
AGREE_DEPTHS, AGREE_RAD, AGREE_RAD_PER_S = 0.15, 0.2, 2.0


@dataclass(frozen=True, eq=False)
class _Tracked:
    """Where the camera was, in the frame and unit of keyframe `keyframe_id`."""

    stamp_ns: int
    keyframe_id: int
    place: Float64[np.ndarray, "3"]


class Reach:
    """Follows the tracked camera, and says how far it can have got since."""

    def __init__(self, atlas: Atlas, finder: LoopFinder) -> None:
        self._atlas = atlas
        self._finder = finder
        self._tracked: deque[_Tracked] = deque(maxlen=RECENT_POSES)

    def tracked(self, told: Pose) -> None:
        """The back-end follows the camera; one that hangs on no keyframe yet says nothing here."""
        kept = self._atlas.keyframes.get(told.keyframe_id)
        if kept is None:
            return
        place = kept.world.inverse().apply(told.world_from_cam[:3, 3])
        self._tracked.append(_Tracked(told.stamp_ns, kept.id, place))
        while len(self._tracked) > 2 and _after_s(self._tracked[0], told) > RECENT_S:
            self._tracked.popleft()

    def allows(self, found: Pose) -> bool:
        """Whether the camera can be where `found`, beside its keyframe, says.

        All may be true long after it was tracked, and between parts of the map of which one lies
        where it was guessed.
        """
        keyframes = self._atlas.keyframes
        recent = [each for each in self._tracked if each.keyframe_id in keyframes]
        if not recent or not 0.0 <= _after_s(recent[-1], found) < FORGOTTEN_S:
            return True
        last, beside = keyframes[recent[-1].keyframe_id], keyframes[found.keyframe_id]
        old, new = sorted((last, beside), key=lambda kept: kept.id)
        if not self._finder.same_part(old, new):
            return True
        places = np.array([keyframes[e.keyframe_id].world.apply(e.place) for e in recent])
        speed = max(FASTER * _speed(recent, places), DEPTHS_PER_S * _depth(last))
        reach = speed * _after_s(recent[-1], found) + self._finder.drift_between(old, new)
        return float(np.linalg.norm(found.world_from_cam[:3, 3] - places[-1])) <= reach

    def joins(self, before: Pose, after: Pose) -> bool:
        """Whether one camera can have taken two pictures that were located by themselves."""
        passed_s = (after.stamp_ns - before.stamp_ns) / 1e9
        beside = self._atlas.keyframes.get(after.keyframe_id)
        if beside is None or not 0.0 <= passed_s < FORGOTTEN_S:
            return False
        a, b = before.world_from_cam, after.world_from_cam
        reach = (AGREE_DEPTHS + DEPTHS_PER_S * passed_s) * _depth(beside)
        turn_rad = AGREE_RAD + AGREE_RAD_PER_S * passed_s
        near = float(np.linalg.norm(b[:3, 3] - a[:3, 3])) <= reach
        return near and rotation_angle_rad(a[:3, :3].T @ b[:3, :3]) <= turn_rad


def _after_s(before: _Tracked, pose: Pose) -> float:
    return (pose.stamp_ns - before.stamp_ns) / 1e9


def _depth(kept: Kept) -> float:
    return kept.depth * kept.world.scale


def _speed(recent: list[_Tracked], places: Float64[np.ndarray, "n 3"]) -> float:
    """Length of the way over its time [world units per second]; 0 of a single place."""
    passed_s = (recent[-1].stamp_ns - recent[0].stamp_ns) / 1e9
    way = float(np.linalg.norm(np.diff(places, axis=0), axis=1).sum())
    return way / passed_s if passed_s > 0 else 0.0
