# SPDX-License-Identifier: Apache-2.0
"""Dense depth beside tracking: one worker thread with a bounded queue, or none when synchronous."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64

from worldsystem_core.handoff import Handoff
from worldsystem_core.priority import give_way, lower_thread_priority
from worldsystem_slam3r.geometric.dense import (
    DepthMap,
    Neighbour,
    Swept,
    View,
    judged,
    relative,
    sweep,
)
from worldsystem_slam3r.geometric.map_store import KeyframeRecord, Map, median_depth

log = logging.getLogger(__name__)

QUEUE = 8
BEHIND, BEHIND_PROMPT, NEIGHBOURS_BEHIND = 3, 1, 2
"""So many keyframes waiting is being behind, where depth shall be prompt sooner; they are then
matched to so few neighbours."""
NICENESS = 5
GIVEN_WAY_S = 0.1
"""How long a keyframe's depth waits for a tracker that is behind; the map must not wait long."""
PATIENCE_S = 0.25
"""How long a swept keyframe waits for the next one to confirm it."""
KEPT_SWEEPS = 16
IDEAL_ANGLE_RAD = 0.10
"""Angle between two keyframes' rays at which they measure depth best: precise, yet alike."""
LEAST_SEEN = 10
"""Points that both keyframes must see."""
TOLERATED_GROWTH = 0.15
"""Relative change of size between two keyframes that patches of fixed size still match across."""


@dataclass(frozen=True, eq=False)
class DenseTask:
    """All that one dense depth needs, by value: the map may change meanwhile."""

    keyframe_id: int
    reference: View
    neighbours: list[Neighbour]
    depth_range: tuple[float, float]


class _Judgement:
    """Sweeps keyframes one after another, and judges each when the one after it was swept too;
    a `prompt` one judges it at once, by those before it."""

    def __init__(self, planes: int, *, prompt: bool) -> None:
        self._planes = planes
        self._prompt = prompt
        self._swept: dict[int, Swept] = {}
        self._waiting: DenseTask | None = None

    @property
    def waits(self) -> bool:
        """Whether a swept keyframe waits for the next one."""
        return self._waiting is not None

    def take(self, task: DenseTask, most_neighbours: int) -> list[tuple[int, DepthMap]]:
        """Sweep `task` over its best neighbours; the depth of the keyframe before it, if one
        waited."""
        neighbours = task.neighbours[:most_neighbours]
        swept = sweep(task.reference, neighbours, task.depth_range, self._planes)
        self._swept[task.keyframe_id] = swept
        while len(self._swept) > KEPT_SWEEPS:
            del self._swept[next(iter(self._swept))]
        before = self.rest()
        self._waiting = task
        return before + self.rest() if self._prompt else before

    def rest(self) -> list[tuple[int, DepthMap]]:
        """The depth of the keyframe that waits, without waiting longer."""
        task, self._waiting = self._waiting, None
        if task is None:
            return []
        judges = [
            (neighbour, self._swept[neighbour.keyframe_id].inverse_depth)
            for neighbour in task.neighbours
            if neighbour.keyframe_id in self._swept
        ]
        swept = self._swept[task.keyframe_id]
        return [(task.keyframe_id, judged(task.reference, swept, judges))]


class DenseStage:
    """Computes depth maps in order; `results` are collected by the owner, who also closes it.

    When the worker falls behind, keyframes are matched to fewer neighbours, at half the cost; when
    that is not enough, the oldest waiting keyframe goes without depth and is counted.
    A keyframe's depth comes when the next one was swept, or after `PATIENCE_S` without one.
    """

    def __init__(self, planes: int, *, synchronous: bool, prompt: bool = False) -> None:
        self._judgement = _Judgement(planes, prompt=prompt)
        self._prompt = prompt
        self._done: deque[tuple[int, DepthMap]] = deque()
        self._queue: Handoff[DenseTask] = Handoff(QUEUE)
        self._thread: threading.Thread | None = None
        self._failure: Exception | None = None
        self._submitted = self._finished = 0
        if not synchronous:
            self._thread = threading.Thread(target=self._run, name="dense-depth", daemon=True)
            self._thread.start()

    @property
    def dropped(self) -> int:
        """Keyframes that went without depth because the worker was behind."""
        return self._queue.dropped

    @property
    def room(self) -> int:
        """How many keyframes can be submitted now without one being let go."""
        return sys.maxsize if self._thread is None else QUEUE - len(self._queue)

    def submit(self, task: DenseTask, wait_s: float = 0.0) -> None:
        """Compute `task` now (synchronous) or queue it, after `wait_s` at most in the place of the
        oldest."""
        self._submitted += 1
        if self._thread is None:
            self._done.extend(self._judgement.take(task, len(task.neighbours)))
        elif not self._queue.put_waiting(task, wait_s):
            self._queue.put(task)

    def results(self) -> list[tuple[int, DepthMap]]:
        """Depth maps finished since the last call; a failure of the worker is raised here."""
        if self._failure is not None:
            raise self._failure
        finished = []
        while self._done:
            finished.append(self._done.popleft())
        return finished

    def drain(self, timeout_s: float = 5.0) -> None:
        """Wait until all that was submitted has its depth, but no longer than `timeout_s`."""
        if self._thread is None:
            self._done.extend(self._judgement.rest())
            return
        end_s = time.monotonic() + timeout_s
        while self._thread.is_alive() and time.monotonic() < end_s:
            if self._finished + self.dropped >= self._submitted:
                return
            time.sleep(0.005)

    def close(self, timeout_s: float = 30.0) -> None:
        """Finish what is queued and join the worker."""
        self._queue.close()
        if self._thread is None:
            self._done.extend(self._judgement.rest())
            return
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            log.warning("dense depth did not finish within %.0f s", timeout_s)

    def _run(self) -> None:
        lower_thread_priority(NICENESS)
        try:
            while not (self._queue.closed and len(self._queue) == 0):
                patience_s = PATIENCE_S if self._judgement.waits else 0.5
                task = self._queue.get(timeout_s=patience_s)
                self._tell(self._judgement.rest() if task is None else self._take(task))
            self._tell(self._judgement.rest())
        except Exception as failure:  # the thread's edge: handed to the owner by results()
            self._failure = failure
            self._queue.close()

    def _take(self, task: DenseTask) -> list[tuple[int, DepthMap]]:
        give_way(GIVEN_WAY_S)
        behind = len(self._queue) >= (BEHIND_PROMPT if self._prompt else BEHIND)
        return self._judgement.take(task, NEIGHBOURS_BEHIND if behind else len(task.neighbours))

    def _tell(self, depths: list[tuple[int, DepthMap]]) -> None:
        self._done.extend(depths)
        self._finished += len(depths)


def dense_task(world: Map, record: KeyframeRecord, count: int) -> DenseTask:
    """Choose neighbours and depth range of `record` from what the map knows now."""
    points = world.seen_points(record)
    neighbours = [
        Neighbour(
            other.kept_view(), relative(record.world_from_cam, other.world_from_cam), other.id
        )
        for other in _neighbours(world, record, points, count)
    ]
    return DenseTask(record.id, record.kept_view(), neighbours, _depth_range(record, points))


def _neighbours(
    world: Map, record: KeyframeRecord, points: np.ndarray, count: int
) -> list[KeyframeRecord]:
    """The keyframes that see most of the same points under the most useful angle."""
    others = [o for o in world.keyframes.values() if o.view is not None and o.id != record.id]
    if not others:
        return []
    useful = usefulness(world.K4, record, others, points)
    best = np.argsort(-useful, kind="stable")[:count]
    return [others[row] for row in best if useful[row] > 0.02]


def usefulness(
    K4: Float64[np.ndarray, "4"],
    record: KeyframeRecord,
    others: list[KeyframeRecord],
    points: Float64[np.ndarray, "m 3"],
) -> Float64[np.ndarray, "k"]:
    """How much each of `others` can say of the depth of `record`: the share of its points that it
    sees, less where they are seen under too wide or narrow an angle, or much larger or smaller."""
    if len(points) < LEAST_SEEN:
        return np.zeros(len(others))
    poses = np.stack([other.cam_from_world for other in others])
    cam = points @ poses[:, :3, :3].transpose(0, 2, 1) + poses[:, None, :3, 3]
    z = np.maximum(cam[..., 2], 1e-6)
    uv = cam[..., :2] / z[..., None] * K4[:2] + K4[2:]
    sizes = np.array([other.grey.shape[::-1] for other in others])
    inside = (cam[..., 2] > 1e-6) & ((uv >= 0) & (uv < sizes[:, None])).all(axis=2)
    a = points - record.world_from_cam[:3, 3]
    b = points - np.stack([other.world_from_cam[:3, 3] for other in others])[:, None]
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=2)
    cosine = np.einsum("mi,kmi->km", a, b) / lengths
    angle = _quantile(np.arccos(np.clip(cosine, -1.0, 1.0)), inside, 0.5)
    off = np.log(np.maximum(angle, 1e-4) / IDEAL_ANGLE_RAD) / 0.7
    own = record.cam_from_world
    own_z = np.maximum(points @ own[2, :3] + own[2, 3], 1e-6)
    growth = _quantile(np.abs(np.log(z / own_z)), inside, 0.75) / TOLERATED_GROWTH
    seen = np.where(inside.sum(axis=1) < LEAST_SEEN, 0.0, inside.mean(axis=1))
    return np.asarray(seen * np.exp(-0.5 * (off**2 + growth**2)))


def _quantile(
    values: Float64[np.ndarray, "k m"], chosen: Bool[np.ndarray, "k m"], share: float
) -> Float64[np.ndarray, "k"]:
    """Of the chosen values of each row, as `np.quantile` tells it; 0 where there are none."""
    ordered = np.sort(np.where(chosen, values, np.inf), axis=1)
    last = np.maximum(chosen.sum(axis=1) - 1, 0)
    ordered[~chosen.any(axis=1)] = 0.0
    at, rows = share * last, np.arange(len(values))
    low = at.astype(int)
    below, above = ordered[rows, low], ordered[rows, np.minimum(low + 1, last)]
    return np.asarray(below + (at - low) * (above - below))


def _depth_range(record: KeyframeRecord, points: np.ndarray) -> tuple[float, float]:
    """Nearest and farthest depth worth searching, from the sparse points with a margin."""
    pose = record.cam_from_world
    z = points @ pose[2, :3] + pose[2, 3] if len(points) else np.zeros(0)
    z = z[z > 0]
    if len(z) < 10:
        typical = median_depth(record, points)
        return 0.3 * typical, 5.0 * typical
    return 0.6 * float(np.percentile(z, 2)), 1.8 * float(np.percentile(z, 97))
