# SPDX-License-Identifier: Apache-2.0
"""Keyframes on their way to a dense depth: those that wait, are swept, and are told."""

from __future__ import annotations

import time
from collections.abc import Iterable

from worldsystem_core.hung_poses import NOTHING
from worldsystem_core.reconstruction import NewKeyframe
from worldsystem_slam3r.config import Slam3rConfig
from worldsystem_slam3r.geometric.densify import DenseStage, dense_task
from worldsystem_slam3r.geometric.map_store import Map
from worldsystem_slam3r.geometric.telling import told_keyframe

SUBMITTED_AT_ONCE = 2
"""Keyframes swept per new one when many wait: fewer than the queue holds."""


class DepthQueue:
    """The keyframes of one map in order; `newest_told` is the newest that was told.

    A keyframe that its map no longer holds is passed over. The owner closes it.
    """

    def __init__(self, config: Slam3rConfig) -> None:
        self.newest_told = NOTHING
        self._config = config
        self._waiting: list[int] = []
        self._dense = DenseStage(
            config.depth_planes, synchronous=config.synchronous, prompt=config.prompt_depth
        )

    @property
    def dropped(self) -> int:
        """Keyframes that never got dense depth because the worker was behind."""
        return self._dense.dropped

    def begin_anew(self, keys: Iterable[int] = ()) -> None:
        """None of the map's keyframes was told; these wait for their depth."""
        self._waiting, self.newest_told = list(keys), NOTHING

    def add(self, key: int) -> None:
        """One more waits."""
        self._waiting.append(key)

    def submit_some(self, world: Map) -> None:
        """Sweep the oldest waiting keyframes, a few at a time; the newest waits for one after it,
        unless depth shall be prompt."""
        ready = self._waiting if self._config.prompt_depth else self._waiting[:-1]
        due = ready[: SUBMITTED_AT_ONCE + self._config.prompt_depth]
        for key in due:
            self._submit(world, key)
        self._waiting = self._waiting[len(due) :]

    def submit_waiting(self, world: Map, wait_s: float = 0.0) -> None:
        """Sweep the keyframes that wait: those there is room for, or all, once there is."""
        due = self._waiting[: None if wait_s else self._dense.room]
        end_s = time.monotonic() + wait_s
        for key in due:
            self._submit(world, key, max(0.0, end_s - time.monotonic()))
        self._waiting = self._waiting[len(due) :]
        if self._config.synchronous:
            self._dense.drain()

    def told(self, world: Map | None) -> list[NewKeyframe]:
        """The keyframes whose depth has come in since the last call."""
        events = []
        for key, depth in self._dense.results():
            if world is not None and key in world.keyframes:
                record = world.keyframes[key]
                record.depth = depth
                events.append(NewKeyframe(told_keyframe(record, depth)))
                record.told = record.world_from_cam
                self.newest_told = max(self.newest_told, key)
        return events

    def drain(self) -> None:
        """Wait for the depth of those that were submitted, a few seconds at most."""
        self._dense.drain()

    def close(self) -> None:
        """Finish what was submitted and join the worker."""
        self._dense.close()

    def _submit(self, world: Map, key: int, wait_s: float = 0.0) -> None:
        if key in world.keyframes:
            record = world.keyframes[key]
            task = dense_task(world, record, self._config.depth_neighbours)
            self._dense.submit(task, wait_s)
