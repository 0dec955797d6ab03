# SPDX-License-Identifier: Apache-2.0
"""A sub-map of which it is not known yet where it lies: its events wait until it does."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64

from worldsystem_core.geometry.se3 import inverse
from worldsystem_core.geometry.sim3 import Sim3
from worldsystem_core.reconstruction import (
    Event,
    MovedKeyframes,
    NewKeyframe,
    Pose,
    RemovedKeyframes,
    TrackingState,
)


class HeldSubmap:
    """The events of one sub-map in their order, the keyframes as they were last refined.

    `begun_at` is `world_from_cam` where the camera was seen before it began, or else first since.
    """

    def __init__(self, number: int, begun_at: Float64[np.ndarray, "4 4"]) -> None:
        self.number = number
        self.begun_at = begun_at
        self._events: list[Event] = []

    @property
    def keyframes(self) -> int:
        """Keyframes that wait, each with its dense points in memory."""
        return sum(isinstance(event, NewKeyframe) for event in self._events)

    @property
    def poses(self) -> int:
        """Poses that wait."""
        return len(self._events) - self.keyframes

    def add(self, event: Event) -> None:
        """Hold one more; a correction is worked into what is held already by the atlas."""
        if isinstance(event, RemovedKeyframes):
            gone = set(event.ids)
            self._events = [
                held
                for held in self._events
                if not (isinstance(held, NewKeyframe) and held.keyframe.id in gone)
            ]
        elif not isinstance(event, MovedKeyframes):
            self._events.append(event)

    def release(self) -> list[Event]:
        """Everything, in order; nothing is left."""
        events, self._events = self._events, []
        return events

    def first_pose(self) -> Float64[np.ndarray, "4 4"] | None:
        """`submap_from_cam` of the first pose that was tracked."""
        for event in self._events:
            if isinstance(event, Pose) and event.state is TrackingState.TRACKED:
                return event.world_from_cam
        return None

    def dead_reckoned(self, unit: float) -> Sim3:
        """`world_from_submap` if it began at `begun_at`, with a unit of `unit`."""
        first = self.first_pose()
        begin = np.eye(4) if first is None else first
        return Sim3.from_pose(self.begun_at, unit) @ Sim3.from_pose(inverse(begin))
