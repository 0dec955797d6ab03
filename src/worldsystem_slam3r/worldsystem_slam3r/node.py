# SPDX-License-Identifier: Apache-2.0
"""Frames in; poses, keyframes, their cloud, the path and the transform tree out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from geometry_msgs.msg import TransformStamped
from std_srvs.srv import Trigger
from tf2_msgs.msg import TFMessage
from worldsystem_msgs.srv import LoadMap, Reset, SaveMap

from worldsystem_core.errors import MapError, WorldSystemError
from worldsystem_core.frames import Camera, Frame, StampedCamera
from worldsystem_core.geometry.se3 import inverse
from worldsystem_core.reconstruction import (
    Event,
    NewKeyframe,
    Pose,
    RemovedKeyframes,
    ScaleState,
    TrackingState,
)
from worldsystem_core.ros import topics
from worldsystem_core.ros.adapters.messages import (
    CAMERA_FRAME,
    pose_message,
    time_message,
    world_frame,
)
from worldsystem_core.ros.container import run_node
from worldsystem_core.ros.stage_node import StageNode
from worldsystem_core.telemetry import Telemetry
from worldsystem_core.trajectory import Trajectory
from worldsystem_slam3r.backend import begin_anew, open_backend
from worldsystem_slam3r.cloud import BoundedCloud
from worldsystem_slam3r.config import Slam3rConfig
from worldsystem_slam3r.graph.services import graph_of, map_service, tell_again
from worldsystem_slam3r.health import health_of

_PATH_PERIOD_S = 1.0
# REP-103: the body is x forward, y left, z up; the optical frame x right, y down, z forward.
_BODY_FROM_OPTICAL = np.array(
    [[0.0, 0.0, 1.0, 0.0], [-1.0, 0.0, 0.0, 0.0], [0.0, -1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]]
)


class Slam3rNode(StageNode):
    """Feeds the chosen back-end and publishes what it says."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("slam3r", Slam3rConfig, **kwargs)
        self._opened = open_backend(self.config.backend, self.config)
        self._backend = self._opened.backend
        self._graph = graph_of(self._backend)
        self._trajectory = Trajectory()
        self._cloud = BoundedCloud(self.config.cloud_points, seed=self.config.seed)
        self._cloud_told = (0, 0)
        self._newest_ns = 0
        self._newest_id = -1
        self._camera: Camera | None = None
        self._state = TrackingState.INITIALISING
        self._scale = ScaleState.SCENE
        self._keyframes = 0
        self._frames_seen = 0
        self._pose_out = self.advertise(topics.POSE)
        self._keyframe_out = self.advertise(topics.KEYFRAME)
        self._points_out = self.advertise(topics.POINTS)
        self._cloud_out = self.advertise(topics.CLOUD)
        self._path_out = self.advertise(topics.PATH)
        self._tf_out = self.advertise(topics.TF)
        self._tf_static_out = self.advertise(topics.TF_STATIC)
        self._tf_static_out.publish(_static_transforms(self._scale))
        self.listen(topics.CAMERA_INFO, self._on_camera)
        self.listen(
            topics.IMAGE,
            self._on_frame,
            self._on_dropped_frame,
            depth=self.config.queue_frames,
            urgent=True,
        )
        for topic in (topics.GPS, topics.PRESSURE, topics.ODOMETRY):
            self.listen(topic, self._on_measured)
        self.create_service(SaveMap, "slam3r/save_map", self._on_save)
        self.create_service(LoadMap, "slam3r/load_map", self._on_load)
        self.create_service(Reset, "slam3r/reset", self._on_reset)
        self.create_service(Trigger, "slam3r/tell_again", self._on_tell_again)
        self.create_timer(_PATH_PERIOD_S, self._publish_path)
        if self.config.cloud_period_s:
            self.create_timer(self.config.cloud_period_s, self._publish_cloud)

    def _on_camera(self, stamped: StampedCamera) -> None:
        self._camera = stamped.camera

    def _on_measured(self, sample: Telemetry) -> None:
        if self._graph is not None:
            self._graph.observe(sample)

    def _on_save(self, request: SaveMap.Request, response: SaveMap.Response) -> SaveMap.Response:
        place = request.path or self.config.map_folder or self.config.map
        return self._answered(response, "save_map", place)

    def _on_load(self, request: LoadMap.Request, response: LoadMap.Response) -> LoadMap.Response:
        return self._answered(response, "load_map", request.path or self.config.map)

    def _on_tell_again(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        try:
            response.message, response.success = tell_again(self._graph), True
        except MapError as error:
            response.message = str(error)
        return response

    def _on_reset(self, _: Reset.Request, response: Reset.Response) -> Reset.Response:
        """Begin the map anew; whoever has keyframes of the old one is told that they are gone."""
        ids = self._trajectory.keyframe_ids
        try:
            self._opened = begin_anew(
                self._opened, self.config, next_id=max(ids, default=self._newest_id) + 1
            )
        except WorldSystemError as error:
            response.message = str(error)
            return response
        self._backend = self._opened.backend
        self._graph = graph_of(self._backend)
        if ids:
            self._publish([RemovedKeyframes(ids)])
        self._newest_id = max(ids, default=self._newest_id)
        self._trajectory = Trajectory()
        self._keyframes, self._state = 0, TrackingState.INITIALISING
        self._path_out.publish(self._trajectory.poses())
        if self._scale is not ScaleState.SCENE:
            self._scale = ScaleState.SCENE
            self._tf_static_out.publish(_static_transforms(self._scale))
        response.success = True
        response.message = f"begun anew; {len(ids)} keyframes of the old map are gone"
        return response

    def _answered(self, response: Any, what: str, place: str) -> Any:
        """Save or load, and say what came of it."""
        try:
            response.message = map_service(self._graph, what, place)
            response.success = True
        except MapError as error:
            response.message, response.success = str(error), False
        return response

    def _on_dropped_frame(self, frame: Frame) -> None:
        self.ledger.drop_untaken(frame.id, "queue_full")

    def _on_frame(self, frame: Frame) -> None:
        self._frames_seen += 1
        if (self._frames_seen - 1) % self.config.frame_step:
            self.ledger.drop_untaken(frame.id, "skipped")
            return
        self.ledger.take(frame.id)
        if frame.camera is None and self._camera is not None:
            frame = replace(frame, camera=self._camera)
        self._publish(self._backend.feed(frame))
        self.ledger.use(frame.id)

    def _publish(self, events: list[Event]) -> None:
        for event in events:
            self._trajectory.add(event)
            self._cloud.apply(event)
            if isinstance(event, Pose):
                self._publish_pose(event)
                continue
            self._keyframe_out.publish(event)
            if self._scale is not self._trajectory.scale:
                self._scale = self._trajectory.scale
                self._tf_static_out.publish(_static_transforms(self._scale))
            if isinstance(event, NewKeyframe):
                self._keyframes += 1
                self._points_out.publish(event.keyframe)

    def _publish_pose(self, pose: Pose) -> None:
        self._state, self._newest_ns = pose.state, pose.stamp_ns
        self.measure_latency(pose.stamp_ns)
        self._pose_out.publish(pose)
        if pose.state is TrackingState.TRACKED:
            odom_from_base = pose.world_from_cam @ inverse(_BODY_FROM_OPTICAL)
            self._tf_out.publish(
                TFMessage(
                    transforms=[_transform(pose.stamp_ns, "odom", "base_link", odom_from_base)]
                )
            )

    def _publish_path(self) -> None:
        if len(self._trajectory):
            self._path_out.publish(self._trajectory.poses())

    def _publish_cloud(self) -> None:
        """The cloud, where it changed or somebody new listens: it is large, so never in vain."""
        readers = self._cloud_out.readers
        version, readers_told = self._cloud_told
        if readers and (self._cloud.version != version or readers > readers_told):
            self._cloud_out.publish(self._cloud.points(self._newest_ns))
            version = self._cloud.version
        self._cloud_told = (version, readers)

    def facts(self) -> dict[str, object]:
        facts: dict[str, object] = {
            "backend": self._opened.name,
            "state": self._state.name.lower(),
            "keyframes": self._keyframes,
            "cloud_points": len(self._cloud),
            **({} if self._graph is None else self._graph.facts()),
        }
        health = health_of(self._backend)
        return facts if health is None else {**facts, "health": round(health.score, 2)}

    def problem(self) -> str:
        health = health_of(self._backend)
        if health is not None and health.problem:
            return health.problem
        if self._state is TrackingState.LOST:
            return "tracking is lost"
        if self._graph is not None and self._graph.maps.failure:
            return f"the map was not saved: {self._graph.maps.failure}"
        as_asked = self._opened.name == self.config.backend and (
            self._graph is not None or not self.config.graph
        )
        return "" if as_asked else self._opened.note

    def input_ended(self) -> None:
        self._publish(self._backend.finish())
        self._publish_path()
        self._publish_cloud()


def _static_transforms(scale: ScaleState) -> TFMessage:
    links = [
        (world_frame(scale), "odom", np.eye(4)),
        ("base_link", "camera_link", np.eye(4)),
        ("camera_link", CAMERA_FRAME, _BODY_FROM_OPTICAL),
    ]
    return TFMessage(transforms=[_transform(0, *link) for link in links])


def _transform(
    stamp_ns: int, parent: str, child: str, parent_from_child: np.ndarray
) -> TransformStamped:
    message = TransformStamped(child_frame_id=child)
    message.header.stamp = time_message(stamp_ns)
    message.header.frame_id = parent
    pose, target = pose_message(parent_from_child), message.transform
    target.rotation = pose.orientation
    target.translation.x = pose.position.x
    target.translation.y = pose.position.y
    target.translation.z = pose.position.z
    return message


def main() -> None:
    run_node(Slam3rNode)
