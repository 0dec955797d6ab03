# SPDX-License-Identifier: Apache-2.0
"""Frames in; poses, keyframes, their cloud, the path and the transform tree out."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from std_srvs.srv import Trigger
from tf2_msgs.msg import TFMessage
from worldsystem_msgs.srv import LoadMap, Reset, SaveMap

from worldsystem_core.errors import WorldSystemError
from worldsystem_core.frames import Camera, Frame, StampedCamera
from worldsystem_core.geometry.se3 import inverse
from worldsystem_core.reconstruction import (
    Event,
    MovedKeyframes,
    NewKeyframe,
    Pose,
    RemovedKeyframes,
    ScaleState,
    TrackingState,
)
from worldsystem_core.ros import topics
from worldsystem_core.ros.adapters.messages import (
    CAMERA_FRAME,
    transform_message,
    world_frame,
)
from worldsystem_core.ros.container import run_node
from worldsystem_core.ros.stage_node import StageNode
from worldsystem_core.telemetry import Telemetry
from worldsystem_core.trajectory import Trajectory
from worldsystem_slam3r.backend import Refusal, refusal_of
from worldsystem_slam3r.cloud import BoundedCloud
from worldsystem_slam3r.config import Slam3rConfig
from worldsystem_slam3r.maps.next_life import kept_keyframes, kept_scale
from worldsystem_slam3r.path_pace import PathPace
from worldsystem_slam3r.running import OF_NO_FRAME, Answer, WorkerEnded, reserve_for, start_backend

_PATH_PERIOD_S = 1.0
_RESERVE_PERIOD_S = 2.0
_REFUSAL_PERIOD_S = 30.0
_READER_S = 60.0
# REP-103: the body is x forward, y left, z up; the optical frame x right, y down, z forward.
_BODY_FROM_OPTICAL = np.array(
    [[0.0, 0.0, 1.0, 0.0], [-1.0, 0.0, 0.0, 0.0], [0.0, -1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]]
)


class Slam3rNode(StageNode):
    """Feeds the chosen back-end and publishes what it says."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("slam3r", Slam3rConfig, **kwargs)
        self._told = self.take_up(
            lambda: self._take(self._running.answers()), lambda: self._running.waiting
        )
        self._opened_with = self.config
        self._is_made = False
        self._running = start_backend(self._opened_with, self._told, alive=self._stay_alive)
        self._reserve = reserve_for(self.config)
        self._ending = False
        self._patience_s = 0.0
        self._trajectory = Trajectory(self.config.path_poses)
        self._cloud = BoundedCloud(self.config.cloud_points, seed=self.config.seed)
        self._cloud_told = (0, 0)
        self._path_pace = PathPace(_PATH_PERIOD_S)
        self._newest_ns = 0
        self._newest_id = -1
        self._last_picture: tuple[int, int] | None = None
        self._refusal: Refusal | None = None
        self._refusal_said_s = -_REFUSAL_PERIOD_S
        self._camera: Camera | None = None
        self._frames_tell_camera = False  # then one without is not of the camera told before
        self._state = TrackingState.INITIALISING
        self._scale = ScaleState.SCENE
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
            urgent=not self.config.own_process,  # there the system's scheduler sees to it
        )
        for topic in (topics.GPS, topics.PRESSURE, topics.ODOMETRY):
            self.listen(topic, self._on_measured)
        self.create_service(SaveMap, "slam3r/save_map", self._on_save)
        self.create_service(LoadMap, "slam3r/load_map", self._on_load)
        self.create_service(Reset, "slam3r/reset", self._on_reset)
        self.create_service(Trigger, "slam3r/tell_again", self._on_tell_again)
        self.create_timer(_PATH_PERIOD_S, self._publish_path_when_due)
        if self._reserve is not None:
            self.create_timer(_RESERVE_PERIOD_S, self._keep_reserve)
        if self.config.cloud_period_s:
            self.create_timer(self.config.cloud_period_s, self._publish_cloud)
        self._is_made = True

    def _stay_alive(self) -> None:
        """While the worker's process takes its time, as with a large map, this one tells of itself
        as ever."""
        if self._is_made:
            self.between_steps()

    def _on_camera(self, stamped: StampedCamera) -> None:
        """A camera that is not calibrated says so with zeros (`sensor_msgs/CameraInfo`)."""
        camera = stamped.camera
        told = np.array([camera.fx, camera.fy, camera.width, camera.height], np.float64)
        usable = np.isfinite([*told, camera.cx, camera.cy]).all() and (told > 0).all()
        self._camera = camera if usable else None

    def _on_measured(self, sample: Telemetry) -> None:
        self._running.observe(sample)

    def _on_save(self, request: SaveMap.Request, response: SaveMap.Response) -> SaveMap.Response:
        place = request.path or self.config.map_folder or self.config.map
        return self._answered(response, lambda: self._running.map_service("save_map", place))

    def _on_load(self, request: LoadMap.Request, response: LoadMap.Response) -> LoadMap.Response:
        place = request.path or self.config.map
        return self._answered(response, lambda: self._running.map_service("load_map", place))

    def _on_tell_again(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        return self._answered(response, self._running.tell_again)

    def _on_reset(self, _: Reset.Request, response: Reset.Response) -> Reset.Response:
        """Begin the map anew; whoever has keyframes of the old one is told that they are gone."""
        try:
            self._take(self._running.settle())
            self._take(self._running.begin_anew(self._newest_id + 1))
            ids = self._trajectory.keyframe_ids
        except WorldSystemError as error:
            response.message = str(error)
            self._revive_ended(error)
            return response
        if not self.config.map_every_s:  # what lies there is for other sessions, and stays
            self._opened_with = replace(self.config, map="")
        self._forget_map()
        self._last_picture = None  # whatever clock the pictures of the new map come by
        response.success = True
        response.message = f"begun anew; {len(ids)} keyframes of the old map are gone"
        return response

    def _forget_map(self) -> None:
        """All keyframes are gone, and so is the path that hung on them."""
        ids = self._trajectory.keyframe_ids
        if ids:
            self._publish([RemovedKeyframes(ids)])
        self._trajectory = Trajectory(self.config.path_poses)
        # a new one: of the old, points that have settled stay, and the share that keyframes give
        self._cloud = BoundedCloud(self.config.cloud_points, seed=self.config.seed)
        self._cloud_told = (0, 0)
        self._state = TrackingState.INITIALISING
        self._path_out.publish(self._trajectory.poses())
        if self._scale is not ScaleState.SCENE:
            self._scale = ScaleState.SCENE
            self._tf_static_out.publish(_static_transforms(self._scale))

    def _answered(self, response: Any, ask: Callable[[], str]) -> Any:
        """Ask the back-end for something, and say what came of it."""
        try:
            response.message, response.success = ask(), True
        except WorldSystemError as error:
            response.message, response.success = str(error), False
            self._revive_ended(error)
        return response

    def _on_dropped_frame(self, _: Frame) -> None:
        self.ledger.drop_untaken("queue_full")

    def _on_frame(self, frame: Frame) -> None:
        self._refusal = refusal_of(frame, self._last_picture, self.config)
        if self._refusal is not None:
            self._refuse(self._refusal)
            return
        self._last_picture = (frame.id, frame.stamp_ns)
        self._frames_seen += 1
        if (self._frames_seen - 1) % self.config.frame_step:
            self.ledger.drop_untaken("skipped")
            return
        self.ledger.take(frame.id)
        self._frames_tell_camera |= frame.camera is not None
        if self._camera is not None and not self._frames_tell_camera:
            frame = replace(frame, camera=self._camera)
        self._take(self._running.feed(frame))

    def _refuse(self, refusal: Refusal) -> None:
        """A picture that no back-end takes costs itself alone; that is said once in a while."""
        self.ledger.drop_untaken(refusal.reason)
        now_s = time.monotonic()
        if now_s - self._refusal_said_s >= _REFUSAL_PERIOD_S:
            self._refusal_said_s = now_s
            self.get_logger().warning(refusal.words)

    def _take(self, answers: list[Answer]) -> None:
        """Publish what frames caused, and settle their account."""
        ended: WorkerEnded | None = None
        for answer in answers:
            if answer.failure is None:
                self._publish(answer.events)
                if answer.frame_id != OF_NO_FRAME:
                    self.ledger.use(answer.frame_id)
                continue
            if answer.frame_id != OF_NO_FRAME:
                self.ledger.drop(answer.frame_id, "failed")
            if isinstance(answer.failure, WorkerEnded):
                ended = answer.failure
            elif isinstance(answer.failure, WorldSystemError):
                raise answer.failure
            else:
                self._survived(answer.failure)
        if ended is not None and not self._ending:
            self._revive(ended)

    def _survived(self, failure: Exception) -> None:
        """Go on after a failure, unless it is one too many."""
        if not self.faults.survives(failure):
            raise failure
        self.get_logger().error(f"{failure}; the reconstruction goes on")

    def _revive_ended(self, error: WorldSystemError) -> None:
        """Where a call has met a back-end that ended, its frames end by name and another starts."""
        if not isinstance(error, WorkerEnded):
            return
        met = self._running
        self._take(met.answers())
        if self._running is met and not self._ending:
            self._revive(error)

    def _revive(self, ended: WorkerEnded) -> None:
        """Start the back-end again: in the map that it kept saved, or with an empty one.

        What was told after the last save is withdrawn: no keyframe will ever take its number. So is
        all where the unit has changed since: sizes told again would count twice with others. One
        that ends as it opens is tried again; the record of faults ends what is hopeless.
        """
        self._survived(ended)
        self._running.close()
        kept = kept_keyframes(self._opened_with.map if self._running.has_graph else "")
        try:
            self._running = start_backend(
                self._opened_with,
                self._told,
                first_id=self._newest_id + 1,
                reserve=self._reserve,
                alive=self._stay_alive,
            )
        except WorkerEnded as again:  # the next picture meets the dead one, and counts that
            self.get_logger().error(f"{again} as it opened; the next picture tries again")
            return
        ids = self._trajectory.keyframe_ids
        if not kept or (ids and kept_scale(self._opened_with.map) is not self._trajectory.scale):
            self._forget_map()
        elif lost := tuple(key for key in ids if key not in kept):
            self._publish([RemovedKeyframes(lost)])
        if kept:
            self._state = TrackingState.LOST  # until it finds the camera in that map

    def _keep_reserve(self) -> None:
        if self._reserve is not None and not self._ending:
            self._reserve.keep(time.monotonic())

    def _publish(self, events: list[Event]) -> None:
        for event in events:
            self._trajectory.add(event)
            self._cloud.apply(event)
            if isinstance(event, Pose):
                self._publish_pose(event)
                continue
            self._tell(event)
            if self._scale is not self._trajectory.scale:
                self._scale = self._trajectory.scale
                self._tf_static_out.publish(_static_transforms(self._scale))
            if isinstance(event, NewKeyframe):
                self._newest_id = max(self._newest_id, event.keyframe.id)
                self._points_out.publish(event.keyframe)

    def _tell(self, event: Event) -> None:
        """At the end readers are waited for, which nobody tells again what they had no room for;
        not where a person wants the end, nor any more where one takes nothing for a minute."""
        if isinstance(event, MovedKeyframes | RemovedKeyframes):
            event = replace(event, world=self._trajectory.scale)
        begun_s = time.monotonic()
        patience_s = 0.0 if self.hurried.is_set() else self._patience_s
        self._keyframe_out.publish(event, patience_s=patience_s)
        if time.monotonic() - begun_s > 0.9 * _READER_S:
            self._patience_s = 0.0

    def _publish_pose(self, pose: Pose) -> None:
        self._state, self._newest_ns = pose.state, pose.stamp_ns
        self.measure_latency(pose.stamp_ns)
        self._pose_out.publish(pose)
        if pose.state is TrackingState.TRACKED:
            odom_from_base = pose.world_from_cam @ inverse(_BODY_FROM_OPTICAL)
            link = transform_message(pose.stamp_ns, "odom", "base_link", odom_from_base)
            self._tf_out.publish(TFMessage(transforms=[link]))

    def _publish_path_when_due(self) -> None:
        if self._path_pace.is_due(len(self._trajectory)):
            self._publish_path()

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

    @property
    def worker_pid(self) -> int | None:
        """The process in which the back-end works, where it has one."""
        return self._running.pid

    def facts(self) -> dict[str, object]:
        condition = self._running.condition()
        facts: dict[str, object] = {
            "backend": self._running.name,
            "state": self._state.name.lower(),
            "keyframes": len(self._trajectory.keyframe_ids),
            "cloud_points": len(self._cloud),
            **condition.facts,
        }
        health = condition.health
        return facts if health is None else {**facts, "health": round(health.score, 2)}

    def problem(self) -> str:
        if self._refusal is not None:
            return self._refusal.words
        condition = self._running.condition()
        if condition.health is not None and condition.health.problem:
            return condition.health.problem
        if self._state is TrackingState.LOST:
            return "tracking is lost"
        if condition.map_failure:
            return f"the map was not saved: {condition.map_failure}"
        as_asked = self._running.name == self.config.backend and (
            self._running.has_graph or not self.config.graph
        )
        return "" if as_asked else self._running.note

    def input_ended(self) -> None:
        self._ending, self._patience_s = True, _READER_S
        self._end_reserve()
        self._take(self._running.finish())
        self._publish_path()
        self._publish_cloud()

    def _end_reserve(self) -> None:
        if self._reserve is not None:
            self._reserve.end()

    def close(self) -> None:
        self._end_reserve()
        self._running.close()
        super().close()


def _static_transforms(scale: ScaleState) -> TFMessage:
    links = [
        (world_frame(scale), "odom", np.eye(4)),
        ("base_link", "camera_link", np.eye(4)),
        ("camera_link", CAMERA_FRAME, _BODY_FROM_OPTICAL),
    ]
    return TFMessage(transforms=[transform_message(0, *link) for link in links])


def main() -> None:
    run_node(Slam3rNode)
