# SPDX-License-Identifier: Apache-2.0
"""From what our topics tell to what the consumers on RabbitMQ expect; neither ROS nor AMQP."""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from worldsystem_bridge import bodies
from worldsystem_bridge.bodies import Array
from worldsystem_bridge.config import BridgeConfig
from worldsystem_bridge.exchanges import Message
from worldsystem_bridge.mesh_bodies import Regions, mesh_messages, name_of, whole_messages
from worldsystem_bridge.outbox import Job, Outbox
from worldsystem_bridge.shared_keyframes import SharedKeyframes
from worldsystem_core.objects import MapObject, MapObjects, TrackFrame
from worldsystem_core.reconstruction import (
    Keyframe,
    MovedKeyframes,
    NewKeyframe,
    Pose,
    RemovedKeyframes,
    TrackingState,
)
from worldsystem_core.surface import MeshBlock, MeshDelta
from worldsystem_core.told_keyframes import ToldKeyframes

_NEWEST = 10
_REMEMBERED_STAMPS = 1000
_MOST_RESULTS = 100
_SAME = 1e-3


@dataclass
class _Known:
    """A recent keyframe as it stands now."""

    keyframe: Keyframe
    pose: Array
    factor: float = 1.0


class Translation:
    """Turns each event into postings; call from one thread. Bodies are made when they are sent."""

    def __init__(self, config: BridgeConfig, outbox: Outbox) -> None:
        self._config = config
        self._outbox = outbox
        self._regions = Regions(config.region_blocks)
        self._shared = SharedKeyframes(_NEWEST) if config.shared_keyframes else None
        self._recent: OrderedDict[int, _Known] = OrderedDict()
        self._stamps: OrderedDict[int, None] = OrderedDict()
        self._told = ToldKeyframes()
        self._without_result: deque[Pose] = deque()
        self._objects: dict[int, MapObject] = {}
        self._full_sent_s = time.monotonic()
        self._not_in_full_ns: int | None = None

    def pose(self, pose: Pose) -> None:
        """A frame's pose, told at once, and its result, which says whether it became a keyframe:
        known when one of its stamp or a later one came, else given up after a while."""
        waited_ns = 1e9 * self._config.results_wait_s
        self._post_results(lambda first: abs(pose.stamp_ns - first.stamp_ns) >= waited_ns)
        if pose.state is TrackingState.TRACKED:
            self._outbox.post(lambda: [bodies.pose_message(pose)], passing=True)
            self._without_result.append(pose)
            self._post_results(lambda _: len(self._without_result) > _MOST_RESULTS)

    def keyframe(self, event: NewKeyframe | MovedKeyframes | RemovedKeyframes) -> None:
        """Keyframes that came, moved or went: one posting, since more of them may move at once
        than postings may wait. One that is told again, for another stage, is none that came."""
        if isinstance(event, NewKeyframe):
            jobs = self._came(event.keyframe)
        elif isinstance(event, MovedKeyframes):
            jobs = [
                self._moved(keyframe_id, pose, event.point_scale.get(keyframe_id))
                for keyframe_id, pose in event.world_from_cam.items()
                if not self._stands(keyframe_id, pose, event.point_scale.get(keyframe_id))
            ]
        else:
            jobs = [self._removed(keyframe_id) for keyframe_id in event.ids]
        self._told.note(event)
        if jobs:
            self._outbox.post(lambda: [message for job in jobs for message in job()])

    def mesh(self, delta: MeshDelta) -> None:
        """The surface changed."""
        changed = self._regions.apply(delta)
        names, level = sorted(name_of(region) for region in changed), self._config.draco_level
        stamp_ns = delta.stamp_ns
        if self._config.mesh_delta:
            blocks = list(delta.blocks)
            self._outbox.post(
                lambda: mesh_messages("delta", blocks, names, stamp_ns=stamp_ns, level=level)
            )
        if self._config.mesh_regions:
            for region in sorted(changed):
                self._post_mesh(f"region.{name_of(region)}", self._regions.blocks(region), stamp_ns)
        self._not_in_full_ns = stamp_ns
        self.look()

    def look(self) -> None:
        """Post the whole surface when its turn has come and it changed; call now and then."""
        period_s = self._config.mesh_full_s
        if period_s and time.monotonic() - self._full_sent_s >= period_s:
            self._post_full()

    def tracks(self, tracks: TrackFrame) -> None:
        """What was seen in one frame."""
        self._outbox.post(lambda: [bodies.processed_frame_message(tracks)], passing=True)

    def objects(self, objects: MapObjects) -> None:
        """The objects of the map: those are told that changed."""
        last = self._objects
        changed = [
            item
            for item in objects.objects
            if item.id not in last or _has_changed(last[item.id], item)
        ]
        if changed:  # one posting: a correction may move more of them than postings may wait
            self._outbox.post(lambda: [bodies.object_message(item) for item in changed])
        self._objects = {item.id: item for item in objects.objects}

    def tell_again(self) -> None:
        """Post the surface and the objects as they stand: what changed while the broker was away
        may be lost. Nothing of a surface that never was."""
        if objects := list(self._objects.values()):
            self._outbox.post(lambda: [bodies.object_message(item) for item in objects])
        regions = self._regions.ever()
        if regions and self._config.mesh_delta:
            self._post_whole(sorted(map(name_of, regions)))
        elif regions and self._config.mesh_full_s:
            self._not_in_full_ns = time.time_ns()  # who was told may not have got it
            self._post_full()
        if regions and self._config.mesh_regions:
            self._post_each({name_of(region): self._regions.blocks(region) for region in regions})

    def flush(self) -> None:
        """Post what was held back."""
        self._post_results(lambda _: True)
        if self._config.mesh_full_s:
            self._post_full()

    def close(self) -> None:
        """Free the shared memory; call when nothing is sent any more."""
        if self._shared is not None:
            self._shared.close()

    def _post_results(self, is_due: Callable[[Pose], bool]) -> None:
        """Post the results of the frames that wait, the oldest first, as long as they are due."""
        while self._without_result and is_due(self._without_result[0]):
            pose = self._without_result.popleft()
            is_keyframe = pose.stamp_ns in self._stamps
            made = [bodies.slam_result_message(pose, is_keyframe=is_keyframe)]
            self._outbox.post(made.copy, passing=True)

    def _came(self, keyframe: Keyframe) -> list[Job]:
        """Who adds up points would have those of one that is told again twice."""
        if not self._told.knows(keyframe):
            return [self._new(keyframe)]
        if keyframe.id in self._recent:  # its size counts from now on, wherever it lies
            self._recent[keyframe.id] = _Known(keyframe, keyframe.world_from_cam)
        if self._told.lies_there(keyframe):
            return []
        return [self._moved(keyframe.id, keyframe.world_from_cam, None)]

    def _new(self, keyframe: Keyframe) -> Job:
        known = _Known(keyframe, keyframe.world_from_cam)
        self._recent[keyframe.id] = known
        self._stamps[keyframe.stamp_ns] = None
        self._post_results(lambda first: first.stamp_ns <= keyframe.stamp_ns)
        while len(self._recent) > _NEWEST:
            self._recent.popitem(last=False)
        while len(self._stamps) > _REMEMBERED_STAMPS:
            self._stamps.popitem(last=False)
        pose = known.pose

        def messages() -> list[Message]:
            points, colours = bodies.world_points(keyframe, pose)
            return [
                self._keyframe_message("new", known, points, colours),
                bodies.points_message(keyframe.id, keyframe.stamp_ns, points, colours),
            ]

        return messages

    def _stands(self, keyframe_id: int, pose: Array, factor: float | None) -> bool:
        """Whether it was told just so: before all are told again, all are told where they lie."""
        known = self._recent.get(keyframe_id)
        grew = known is not None and factor is not None and not np.isclose(factor, known.factor)
        was_told = bool(self._told.poses((keyframe_id,)))
        return was_told and not grew and not self._told.moved({keyframe_id: pose})

    def _moved(self, keyframe_id: int, pose: Array, factor: float | None) -> Job:
        known = self._recent.get(keyframe_id)
        if known is None:  # its points are gone: the pose alone is told
            now_ns = time.time_ns()
            return lambda: [
                bodies.keyframe_message(
                    "update", keyframe_id, pose, pose[:0, :3], timestamp_ns=now_ns, shm_key=""
                )
            ]
        moved = _Known(known.keyframe, pose, known.factor if factor is None else factor)
        self._recent[keyframe_id] = moved

        def messages() -> list[Message]:
            points, colours = bodies.world_points(moved.keyframe, moved.pose, moved.factor)
            return [self._keyframe_message("update", moved, points, colours)]

        return messages

    def _keyframe_message(
        self, event: str, known: _Known, points: Array, colours: Array
    ) -> Message:
        keyframe_id, stamp_ns = known.keyframe.id, known.keyframe.stamp_ns
        key = ""
        if self._shared is not None and keyframe_id in self._recent:
            key = self._shared.write(keyframe_id, stamp_ns, known.pose, points, colours)
        return bodies.keyframe_message(
            event, keyframe_id, known.pose, points, timestamp_ns=stamp_ns, shm_key=key
        )

    def _removed(self, keyframe_id: int) -> Job:
        self._recent.pop(keyframe_id, None)
        now_ns = time.time_ns()

        def messages() -> list[Message]:
            if self._shared is not None:
                self._shared.remove(keyframe_id)
            return [bodies.removed_message(keyframe_id, now_ns)]

        return messages

    def _post_mesh(
        self, kind: str, blocks: list[MeshBlock], stamp_ns: int, names: list[str] | None = None
    ) -> None:
        level = self._config.draco_level
        regions = names if names is not None else [kind.removeprefix("region.")]
        self._outbox.post(
            lambda: mesh_messages(kind, blocks, regions, stamp_ns=stamp_ns, level=level)
        )

    def _post_full(self) -> None:
        """The surface as it stands, unless that was told."""
        if self._not_in_full_ns is None:
            return
        stamp_ns, self._not_in_full_ns = self._not_in_full_ns, None
        self._full_sent_s = time.monotonic()
        self._post_mesh("full", self._regions.all_blocks(), stamp_ns, self._regions.names())

    def _post_whole(self, names: list[str]) -> None:
        blocks, stamp_ns = self._regions.all_blocks(), time.time_ns()
        level = self._config.draco_level
        self._outbox.post(lambda: whole_messages(blocks, names, stamp_ns=stamp_ns, level=level))

    def _post_each(self, regions: dict[str, list[MeshBlock]]) -> None:
        """All in one posting: there may be more of them than postings may wait."""
        level, stamp_ns = self._config.draco_level, time.time_ns()
        self._outbox.post(
            lambda: [
                message
                for name, blocks in regions.items()
                for message in mesh_messages(
                    f"region.{name}", blocks, [name], stamp_ns=stamp_ns, level=level
                )
            ]
        )


def _has_changed(last: MapObject, item: MapObject) -> bool:
    """In what is told of it, places and sizes to a thousandth."""
    if (last.label, last.point_count) != (item.label, item.point_count):
        return True
    scale = max(float(np.max(item.size)), 1e-9)
    return not (
        np.allclose(last.size, item.size, rtol=_SAME)
        and np.allclose(last.world_from_box, item.world_from_box, rtol=_SAME, atol=_SAME * scale)
    )
