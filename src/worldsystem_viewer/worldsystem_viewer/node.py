# SPDX-License-Identifier: Apache-2.0
"""Everything that is to be seen, handed to the web page, Foxglove and Rerun."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from std_srvs.srv import Trigger

from worldsystem_core.frames import Frame
from worldsystem_core.geometry.vertical import estimate_up
from worldsystem_core.message_definitions import message_definition, service_definitions
from worldsystem_core.objects import MapObjects, TrackFrame
from worldsystem_core.reconstruction import MovedKeyframes, NewKeyframe, Pose, ScaleState
from worldsystem_core.ros import topics
from worldsystem_core.ros.adapters.slam import KeyframeEvent
from worldsystem_core.ros.container import run_node
from worldsystem_core.ros.definitions import share_folders, type_name
from worldsystem_core.ros.followed_surface import FollowedSurface
from worldsystem_core.ros.latched import is_latched, part_of
from worldsystem_core.ros.patient_call import PatientCall, log_trigger
from worldsystem_core.ros.remote_control import RemoteControl
from worldsystem_core.ros.stage_node import StageNode
from worldsystem_core.ros.topic import Topic
from worldsystem_core.surface import MeshDelta
from worldsystem_core.trajectory import StampedPoses
from worldsystem_viewer.config import ViewerConfig
from worldsystem_viewer.foxglove_control import ServiceText
from worldsystem_viewer.foxglove_sink import FoxgloveSink
from worldsystem_viewer.page_server import PageServer
from worldsystem_viewer.rerun_sink import RerunSink
from worldsystem_viewer.status_board import StatusBoard

_STATUS_PERIOD_S = 1.0
_SPLATS_PERIOD_S = 5.0
_POSES = 300
"""Poses that may wait: they are small, and each one missing is a corner cut off the path."""


class ViewerNode(StageNode):
    """Starts the viewers that are wanted; each has its own thread and queue."""

    niceness = 10

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("viewer", ViewerConfig, **kwargs)
        self._page = PageServer(self.config) if self.config.web else None
        self._remote = RemoteControl(self)
        self._foxglove = self._foxglove_sink() if self.config.foxglove else None
        self._rerun = RerunSink(self.config) if self.config.rerun else None
        self._board = StatusBoard()
        self._keyframe_poses: dict[int, np.ndarray] = {}
        self._scale = ScaleState.SCENE
        self._labels: np.ndarray | None = None
        self._keyframes_before = PatientCall(self, Trigger, "slam3r/tell_again", log_trigger)
        self._splats_before = PatientCall(self, Trigger, "splats/tell_again", lambda _: None)
        self._asked_for_splats_s = -math.inf
        self._start()
        self.listen(topics.POSE, self._on_pose, depth=_POSES)
        self.listen(topics.KEYFRAME, self._on_keyframe, self._on_missed_keyframe)
        self._surface = FollowedSurface(self, self._show_surface)
        self.listen(topics.MESH, self._surface.take)
        if self._page is not None:
            self.listen(topics.SPLATS, self._page.splats)
        self.listen(topics.IMAGE, self._on_image)
        self.listen(topics.TRACKS, self._on_tracks)
        self.listen(topics.OBJECTS, self._on_objects)
        self.listen(topics.LEDGER, self._board.take)
        if self._rerun is not None:
            self.listen(topics.VIDEO, self._rerun.video)
        if self._foxglove is not None:
            for topic in topics.ALL:
                self._bridge(topic, self._foxglove)
        self.create_timer(_STATUS_PERIOD_S, self._publish_status)
        if self.config.restore:
            self._keyframes_before.ask(Trigger.Request())
            self.listen(topics.PATH, self._on_path)

    def _foxglove_sink(self) -> FoxgloveSink:
        shares, texts = share_folders(), {}
        for name, kind in self._remote.services().items():
            kind_name = f"{kind.__module__.partition('.')[0]}/srv/{kind.__name__}"
            texts[name] = ServiceText(kind_name, *service_definitions(kind_name, shares))
        return FoxgloveSink(self.config, self._remote, texts)

    def _start(self) -> None:
        """Start all or none, so that a port in use leaves no server behind."""
        started: list[Any] = []
        try:
            for viewer in self._viewers():
                viewer.start()
                started.append(viewer)
        except Exception:
            for viewer in started:
                viewer.stop()
            raise

    def _viewers(self) -> list[Any]:
        return [v for v in (self._page, self._foxglove, self._rerun) if v is not None]

    def _bridge(self, topic: Topic[Any], sink: FoxgloveSink) -> None:
        name, kind = self.resolve_topic_name(topic.name), type_name(topic.adapter.ros_type)
        definition = message_definition(kind, share_folders())
        parts = part_of(topic) if is_latched(topic.qos) else None
        sink.advertise(name, kind, definition, part_of=parts)

        def forward(message: bytes) -> None:
            sink.publish(name, message, time.time_ns())

        wanted: Callable[[], bool] = lambda: topic.latched or sink.wanted(name)  # noqa: E731
        self.listen_bytes(topic, forward, wanted=wanted, direct=True, at_need=True)

    def _on_pose(self, pose: Pose) -> None:
        for viewer in (self._page, self._rerun):
            if viewer is not None:
                viewer.pose(pose)

    def _on_path(self, poses: StampedPoses) -> None:
        """What was before this process is shown too, corrected as often as the path is told."""
        for viewer in (self._page, self._rerun):
            if viewer is not None:
                viewer.path_before(poses)

    def _on_missed_keyframe(self, event: KeyframeEvent) -> None:
        if isinstance(event, NewKeyframe):
            self.ledger.drop_untaken("queue_full")

    def _on_keyframe(self, event: KeyframeEvent) -> None:
        if isinstance(event, NewKeyframe):
            self.ledger.take(event.keyframe.frame_id)
        self._show_keyframe(event)
        self._remember_poses(event)
        if isinstance(event, NewKeyframe):
            self.ledger.use(event.keyframe.frame_id)

    def _show_keyframe(self, event: KeyframeEvent) -> None:
        for viewer in (self._page, self._rerun):
            if viewer is None:
                continue
            if isinstance(event, NewKeyframe):
                viewer.keyframe(event.keyframe)
            elif isinstance(event, MovedKeyframes):
                viewer.moved(event)
            else:
                viewer.removed(event)

    def _remember_poses(self, event: KeyframeEvent) -> None:
        if isinstance(event, NewKeyframe):
            self._keyframe_poses[event.keyframe.id] = event.keyframe.world_from_cam
            self._scale = event.keyframe.scale
        elif isinstance(event, MovedKeyframes):
            self._keyframe_poses.update(event.world_from_cam)
            self._scale = event.scale or self._scale
        else:
            for keyframe_id in event.ids:
                self._keyframe_poses.pop(keyframe_id, None)

    def _show_surface(self, delta: MeshDelta) -> None:
        for viewer in self._viewers():
            viewer.mesh(delta)

    def _on_image(self, frame: Frame) -> None:
        if self._page is not None:
            self._page.image(frame.rgb, frame.stamp_ns, self._labels)
        if self._rerun is not None:
            self._rerun.image(frame.rgb, frame.stamp_ns)

    def _on_tracks(self, tracks: TrackFrame) -> None:
        self._labels = tracks.labels
        for viewer in (self._page, self._rerun):
            if viewer is not None:
                viewer.tracks(tracks)

    def _on_objects(self, objects: MapObjects) -> None:
        for viewer in self._viewers():
            viewer.objects(objects)

    def _publish_status(self) -> None:
        if self._page is not None:
            self._page.status(self._board.values() | {"up": self._up().tolist()})
            self._ask_for_splats(self._page)

    def _up(self) -> np.ndarray:
        """The world's vertical: z of a map, else estimated from the keyframes."""
        if self._keyframe_poses and self._scale is ScaleState.METRIC:
            return np.array([0.0, 0.0, 1.0])
        return estimate_up(np.array(list(self._keyframe_poses.values())).reshape(-1, 4, 4))

    def _ask_for_splats(self, page: PageServer) -> None:
        """Those told before this stage began, or too fast for it, are told again."""
        now_s = time.monotonic()
        if now_s - self._asked_for_splats_s > _SPLATS_PERIOD_S and page.take_lack_of_splats():
            self._asked_for_splats_s = now_s
            self._splats_before.ask(Trigger.Request())

    def facts(self) -> dict[str, object]:
        page = {} if self._page is None else self._page.facts()
        return page if self._rerun is None else page | {"dropped_rerun": self._rerun.dropped}

    def input_ended(self) -> None:
        self._surface.close()
        if self._page is not None:
            at_rest = {"fps": 0.0, "up": self._up().tolist()}
            self._page.status(self._board.values() | at_rest)
            self._page.wait_until_alone(self.config.linger_s, self.hurried)
        for viewer in self._viewers():
            viewer.stop()


def main() -> None:
    run_node(ViewerNode)
