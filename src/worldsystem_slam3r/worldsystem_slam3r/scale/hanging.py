# SPDX-License-Identifier: Apache-2.0
"""Measurements hung on keyframes, so that they follow every correction of the map.

A measurement's stamp lies between two pictures; where the camera was then is kept in the frame and
unit of the keyframe that the later one hangs on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float64

from worldsystem_core.geometry.sim3 import Sim3
from worldsystem_core.hung_poses import NOTHING

WorldOf = Callable[[int], Sim3 | None]
LONGEST_GAP_NS = 700_000_000
"""Between two poses, unless that is how far they usually lie apart."""
GAP_INTERVALS, MOST_GAP_NS, INTERVALS = 1.5, 2_000_000_000, 30
"""So many usual intervals (the median of the newest ones) are no gap up to 2 s: between poses of a
video of one picture a second, and half a second late, a place is told by what lies around it."""
LEAST_INTERVALS = 3
POSES = 600
WAITING = 3000
KEPT = 6000


@dataclass(frozen=True, eq=False)
class PositionSample:
    """A measured position in `map` [m]."""

    stamp_ns: int
    position_m: Float64[np.ndarray, "3"]
    covariance: Float64[np.ndarray, "3 3"]


@dataclass(frozen=True, eq=False)
class HeightSample:
    """A measured height over an unknown zero [m]."""

    stamp_ns: int
    height_m: float
    sigma_m: float


Sample = PositionSample | HeightSample


@dataclass(frozen=True, eq=False)
class Hung:
    """A sample with the camera's place (and velocity per second) in keyframe `keyframe_id`."""

    sample: Sample
    keyframe_id: int
    place: Float64[np.ndarray, "3"]
    velocity: Float64[np.ndarray, "3"]


class HangingSamples:
    """Pairs samples with poses as both come in, in any order within `POSES` pictures.

    Bounded: when full, every second hung sample goes. `missed` counts samples for which the camera
    had no pose.
    """

    def __init__(self, world_of: WorldOf) -> None:
        self._world_of_keyframe = world_of
        self._poses: deque[tuple[int, int, np.ndarray]] = deque(maxlen=POSES)
        self._waiting: deque[Sample] = deque(maxlen=WAITING)
        self.hung: list[Hung] = []
        self.missed = 0

    def _world_of(self, keyframe_id: int) -> Sim3 | None:
        return Sim3.identity() if keyframe_id == NOTHING else self._world_of_keyframe(keyframe_id)

    def pose(self, stamp_ns: int, keyframe_id: int, position: Float64[np.ndarray, "3"]) -> None:
        """Where the camera was in the world as it is now."""
        world = self._world_of(keyframe_id)
        if world is None or (self._poses and stamp_ns <= self._poses[-1][0]):
            return
        self._poses.append((stamp_ns, keyframe_id, world.inverse().apply(position)))
        self._hang()

    def keyframe(self, keyframe_id: int, stamp_ns: int) -> None:
        """Keyframes come late: what was measured since its picture hangs on it from now on."""
        own = self._world_of(keyframe_id)
        if own is None:
            return
        own_from_world = own.inverse()
        for row, (pose_ns, key, place) in enumerate(self._poses):
            if pose_ns < stamp_ns and key != NOTHING:
                continue
            world = self._world_of(key)
            if world is not None:
                moved = own_from_world.apply(world.apply(place))
                self._poses[row] = (pose_ns, keyframe_id, moved)
        for row, item in enumerate(self.hung):
            if item.sample.stamp_ns >= stamp_ns or item.keyframe_id == NOTHING:
                self.hung[row] = self._rehung(item, keyframe_id, own)

    def _rehung(self, item: Hung, keyframe_id: int, own: Sim3) -> Hung:
        world = self._world_of(item.keyframe_id)
        if world is None:
            return item
        own_from_old = own.inverse() @ world
        velocity = own_from_old.scale * own_from_old.rotation @ item.velocity
        return Hung(item.sample, keyframe_id, own_from_old.apply(item.place), velocity)

    def sample(self, sample: Sample) -> None:
        """A measurement came in; it waits for the poses around it."""
        if len(self._waiting) == WAITING:
            self.missed += 1
        self._waiting.append(sample)

    def measured_in(self, new_from_old: Sim3) -> None:
        """Positions are told in another frame from now on: those that are here follow.

        Their covariances stay: they are about the measured place's own east, north and up.
        """
        self._waiting = deque((_moved(s, new_from_old) for s in self._waiting), maxlen=WAITING)
        self.hung = [replace(item, sample=_moved(item.sample, new_from_old)) for item in self.hung]

    def drop_waiting(self) -> None:
        """What waits for its poses is let go, and counts as missed."""
        self.missed += len(self._waiting)
        self._waiting.clear()

    def _hang(self) -> None:
        newest, oldest = self._poses[-1][0], self._poses[0][0]
        longest_ns = self._longest_gap_ns() if self._waiting else LONGEST_GAP_NS
        for _ in range(len(self._waiting)):
            sample = self._waiting.popleft()
            if sample.stamp_ns > newest:
                self._waiting.append(sample)
            elif sample.stamp_ns < oldest or not self._hang_one(sample, longest_ns):
                self.missed += 1
        if len(self.hung) > KEPT:
            self.hung = self.hung[::2]

    def _longest_gap_ns(self) -> float:
        """From one pose to the next, as far as the camera was followed all along."""
        newest = range(max(0, len(self._poses) - INTERVALS - 1), len(self._poses))
        intervals = np.diff([self._poses[row][0] for row in newest])
        if len(intervals) < LEAST_INTERVALS:
            return LONGEST_GAP_NS
        usual = GAP_INTERVALS * float(np.median(intervals))
        return min(max(LONGEST_GAP_NS, usual), MOST_GAP_NS)

    def _hang_one(self, sample: Sample, longest_ns: float) -> bool:
        newest_first = range(len(self._poses) - 1, 0, -1)
        later = next((i for i in newest_first if self._poses[i - 1][0] <= sample.stamp_ns), 0)
        if not later:
            return False
        before, after = self._poses[later - 1], self._poses[later]
        gap_ns = after[0] - before[0]
        world, world_before = self._world_of(after[1]), self._world_of(before[1])
        if gap_ns > longest_ns or world is None or world_before is None:
            return False
        start = world.inverse().apply(world_before.apply(before[2]))
        share = (sample.stamp_ns - before[0]) / gap_ns
        place = start + share * (after[2] - start)
        self.hung.append(Hung(sample, after[1], place, (after[2] - start) * 1e9 / gap_ns))
        return True

    def release_keyframes(self, ids: set[int]) -> None:
        """Keyframes are withdrawn: what hangs on them hangs on nothing until the next one comes.

        Until then it stays where it is in the world.
        """
        for row, (stamp_ns, key, place) in enumerate(self._poses):
            world = self._world_of(key)
            if key in ids and world is not None:
                self._poses[row] = (stamp_ns, NOTHING, world.apply(place))
        for row, item in enumerate(self.hung):
            if item.keyframe_id in ids:
                self.hung[row] = self._rehung(item, NOTHING, Sim3.identity())

    def hang_on(self, keyframe_id: int, other: int) -> None:
        """What hangs on a keyframe hangs on `other` from now on, where it is."""
        old, own = self._world_of(keyframe_id), self._world_of(other)
        if old is None or own is None:
            return
        for row, (stamp_ns, key, place) in enumerate(self._poses):
            if key == keyframe_id:
                self._poses[row] = (stamp_ns, other, own.inverse().apply(old.apply(place)))
        for row, item in enumerate(self.hung):
            if item.keyframe_id == keyframe_id:
                self.hung[row] = self._rehung(item, other, own)

    def placed(
        self, kind: type[Sample], of: set[int] | None = None, *, last: int = 0
    ) -> list[tuple[Hung, Sim3]]:
        """The hung samples of one kind whose keyframe is known, with its `world_from_keyframe`.

        With `of` those on these keyframes only; with `last` of the last so many only.
        """
        found = []
        for item in self.hung[-last:]:
            world = self._world_of(item.keyframe_id)
            counts = of is None or item.keyframe_id in of
            if world is not None and counts and isinstance(item.sample, kind):
                found.append((item, world))
        return found


def _moved(sample: Sample, new_from_old: Sim3) -> Sample:
    if not isinstance(sample, PositionSample):
        return sample
    return replace(sample, position_m=new_from_old.apply(sample.position_m))
