# SPDX-License-Identifier: Apache-2.0
"""Watches a run from outside by its topics: when each stage last told of itself, and the map."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from itertools import pairwise
from typing import Any

import rclpy
from kills_keyframes import SeenKeyframes
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.task import Future
from worldsystem_msgs.srv import MeshRequest

from worldsystem_core.lost_wakes import watch_for_lost_wakes
from worldsystem_core.objects import MapObjects
from worldsystem_core.reconstruction import RemovedKeyframes
from worldsystem_core.ros import topics
from worldsystem_core.ros.adapters.messages import nanoseconds
from worldsystem_core.ros.adapters.surface import mesh_delta
from worldsystem_core.ros.cdr import CdrReader
from worldsystem_core.ros.topic import Topic
from worldsystem_core.surface import BlockIndex, MeshDelta
from worldsystem_core.surface_follower import SurfaceFollower

ASK_S = 3.0
_JOIN_S = 5.0
_OUTPUTS: dict[str, Topic[Any]] = {
    "ingest": topics.CAMERA_INFO,
    "slam3r": topics.POSE,
    "segmenter": topics.TRACKS,
    "splats": topics.SPLATS,
}
"""What a stage says about once a picture or a keyframe, beside its sign of life once a second."""


class Witness:
    """Arrival times by what arrived, on a monotonic clock [s]; safe to read from any thread.

    A sign of life counts from when it was told, as its stamp says: that it is heard late is this
    process's matter, and `heard_late_s`.
    """

    def __init__(self) -> None:
        watch_for_lost_wakes()
        rclpy.init(signal_handler_options=rclpy.SignalHandlerOptions.NO)  # Ctrl-C is for the caller
        self._node = Node("witness")
        self._lock = threading.Lock()
        self._arrivals: dict[str, list[float]] = defaultdict(list)
        self._pids: dict[str, tuple[int, float]] = {}
        self._late_s: list[tuple[float, float]] = []
        self._blocks: set[BlockIndex] = set()
        self._surface = SurfaceFollower()
        self._mesher = self._node.create_client(MeshRequest, "mesh/request")
        self._asked_s = 0.0
        self._objects: set[int] = set()
        self._keyframes = SeenKeyframes()
        self._facts: dict[str, dict[str, str]] = {}
        for stage, topic in _OUTPUTS.items():
            self._listen(topic, lambda _, stage=stage: self._arrived(f"{stage} output"))
        self._listen(topics.MESH, self._on_mesh)
        self._listen(topics.OBJECTS, self._on_objects)
        self._listen(topics.KEYFRAME, self._on_keyframe)
        self._listen(topics.DIAGNOSTICS, self._on_diagnostics)
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self._node)
        self._spinner = threading.Thread(target=self._executor.spin, name="witness")
        self._spinner.start()

    def _listen(self, topic: Topic[Any], callback: Any) -> None:
        kind = topic.adapter.ros_type
        self._node.create_subscription(kind, topic.name, callback, topic.qos, raw=True)

    def _arrived(self, what: str) -> None:
        with self._lock:
            self._arrivals[what].append(time.monotonic())

    def _on_mesh(self, message: bytes) -> None:
        delta: MeshDelta = topics.MESH.adapter.load(message)
        with self._lock:
            self._arrivals["mesher output"].append(time.monotonic())
            self._show(self._surface.take(delta))
        self._ask_for_missed()

    def _ask_for_missed(self) -> None:
        """As every client of the surface does: what the mesher told before its messages found their
        way here. Called again with each delta, and so again when no answer came."""
        known, now_s = self._surface.newer_than, time.monotonic()
        if known is None or now_s - self._asked_s < ASK_S or not self._mesher.service_is_ready():
            return
        self._asked_s = now_s
        self._mesher.call_async(MeshRequest.Request(newer_than=known)).add_done_callback(
            self._on_answer
        )

    def _on_answer(self, future: Future) -> None:
        answer, self._asked_s = future.result(), 0.0
        if answer is not None and not answer.problem:
            with self._lock:
                self._show(self._surface.catch_up(mesh_delta(answer.delta)))

    def _show(self, deltas: list[MeshDelta]) -> None:
        for delta in deltas:
            self._blocks.difference_update(delta.removed)
            self._blocks.update(block.index for block in delta.blocks)

    def _on_objects(self, message: bytes) -> None:
        told: MapObjects = topics.OBJECTS.adapter.load(message)
        with self._lock:
            self._objects = {each.id for each in told.objects}

    def _on_keyframe(self, message: bytes) -> None:
        reader = CdrReader(message)
        stamp_ns = reader.stamp()
        reader.string()
        number, _, event = reader.number("I"), reader.number("Q"), reader.number("B")
        with self._lock:
            if event == 0:
                self._keyframes.told(number, stamp_ns)
            elif event == 2:
                told = topics.KEYFRAME.adapter.load(message)
                has_heir = isinstance(told, RemovedKeyframes) and bool(told.heirs)
                self._keyframes.gone(number, has_heir=has_heir)

    def _on_diagnostics(self, message: bytes) -> None:
        array = topics.DIAGNOSTICS.adapter.load(message)
        late_s = (time.time_ns() - nanoseconds(array.header.stamp)) / 1e9
        heard_s = time.monotonic()
        for status in array.status:
            stage = status.name.removeprefix("worldsystem: ")
            if stage == status.name:
                continue
            facts = {value.key: value.value for value in status.values}
            with self._lock:
                self._arrivals[f"{stage} sign"].append(heard_s - late_s)
                self._late_s.append((heard_s, late_s))
                self._note_pid(stage, int(facts.get("process.pid", 0)), heard_s - late_s)
                self._facts[stage] = facts

    def _note_pid(self, stage: str, pid: int, told_s: float) -> None:
        if pid != self._pids.get(stage, (0, 0.0))[0]:
            self._pids[stage] = pid, told_s

    def pid(self, stage: str) -> int:
        """The process from which the stage told of itself last; 0 before it did."""
        with self._lock:
            return self._pids.get(stage, (0, 0.0))[0]

    def first_told_s(self, stage: str) -> float:
        """When that process told of the stage first."""
        with self._lock:
            return self._pids[stage][1]

    def heard_late_s(self, from_s: float, to_s: float) -> float:
        """The longest time that a sign took from being told to being heard within the span."""
        with self._lock:
            return max((late for at, late in self._late_s if from_s <= at <= to_s), default=0.0)

    def fact(self, stage: str, name: str) -> int:
        """A whole number that the stage told of itself last; 0 when it did not."""
        with self._lock:
            return int(float(self._facts.get(stage, {}).get(name, 0)))

    def first_after(self, what: str, since_s: float) -> float | None:
        """When `what` first arrived after `since_s`."""
        with self._lock:
            return next((at for at in self._arrivals[what] if at > since_s), None)

    def longest_gap_s(self, what: str, from_s: float, to_s: float) -> float:
        """The longest time within the span in which `what` did not arrive; 0 if it never has.

        A gap that began before the span counts from its beginning, one that goes on after it up to
        the end.
        """
        with self._lock:
            times = list(self._arrivals[what])
        before = [at for at in times if at <= from_s]
        if not before:
            return 0.0
        within = [before[-1], *(at for at in times if from_s < at < to_s)]
        within.append(next((at for at in times if at >= to_s), to_s))
        return max(b - a for a, b in pairwise(within))

    def kinds(self) -> list[str]:
        """Everything that has arrived so far."""
        with self._lock:
            return sorted(self._arrivals)

    def blocks(self) -> set[BlockIndex]:
        """Blocks of the surface that have faces now, as far as the mesher told."""
        with self._lock:
            return set(self._blocks)

    def forget_blocks(self) -> None:
        """What is told from now on is the whole surface: its mesher begins anew."""
        with self._lock:
            self._blocks, self._surface = set(), SurfaceFollower()

    def objects(self) -> set[int]:
        """Ids of the objects in the map as told last."""
        with self._lock:
            return set(self._objects)

    def forget_objects(self) -> None:
        """What is told from now on is of another segmenter."""
        with self._lock:
            self._objects = set()

    def keyframes(self) -> dict[int, tuple[float, int]]:
        """When each keyframe came [s] and was captured [ns]; of all that are not withdrawn."""
        with self._lock:
            return self._keyframes.there()

    def replaced(self) -> set[int]:
        """When those were captured [ns] that others stand in for: they are not lost."""
        with self._lock:
            return self._keyframes.replaced()

    def forget_keyframes(self) -> None:
        """What is told from now on is the whole map: the reconstruction begins anew."""
        with self._lock:
            self._keyframes.begin_anew()

    def close(self) -> None:
        self._executor.shutdown(timeout_sec=_JOIN_S)
        self._spinner.join(_JOIN_S)
        self._node.destroy_node()
        rclpy.try_shutdown()
