# SPDX-License-Identifier: Apache-2.0
"""Keyframes in, mesh deltas out; the whole surface on request, and to files."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rclpy.serialization import deserialize_message
from std_srvs.srv import Trigger
from worldsystem_msgs.srv import MeshRequest, SaveMesh

from worldsystem_core.errors import WorldSystemError
from worldsystem_core.keyframe_inbox import (
    Correction,
    Told,
    ToldAgain,
    is_correction,
    joined,
)
from worldsystem_core.mesh_stream.streamed import streamed
from worldsystem_core.reconstruction import (
    Keyframe,
    MovedKeyframes,
    NewKeyframe,
    Pose,
    RemovedKeyframes,
)
from worldsystem_core.returning_keyframes import QUIET_S, ReturningKeyframes
from worldsystem_core.ros import topics
from worldsystem_core.ros.adapters.surface import known_encoding, statistics_message
from worldsystem_core.ros.container import run_node
from worldsystem_core.ros.patient_call import PatientCall, log_trigger
from worldsystem_core.ros.stage_node import StageNode
from worldsystem_core.surface import MeshDelta
from worldsystem_core.told_keyframes import TOLD_AGAIN, ToldKeyframes
from worldsystem_mesh.config import MeshConfig
from worldsystem_mesh.mesher import Mesher
from worldsystem_mesh.services import MeshServices
from worldsystem_mesh.told_sizes import ToldSizes

log = logging.getLogger(__name__)

STREAM_PERIOD_S = 0.1
STATISTICS_PERIOD_S = 1.0
IDLE_S = 0.25
"""So long after the last keyframe, what it left undone goes on."""
RESTORING_S = 0.2
"""Of every `IDLE_S`, while the surface of before is still coming back."""
SIGN_S = 1.0
"""The monitor takes a stage for silent after four, the supervisor for dead after twenty."""


class MesherNode(StageNode):
    """Integrates each keyframe as it comes and publishes what it changed."""

    niceness = 5

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("mesher", MeshConfig, **kwargs)
        self._sign_s = time.monotonic()
        self._mesher = Mesher(self.config, self._give_sign)
        self._surface_services = MeshServices(self.config, self._mesher)
        self._told, self._sizes = ToldKeyframes(), ToldSizes()
        self._first_pose_ns: int | None = None
        self._oldest_missed_ns: float = math.inf
        self._missed, self._begun_ns, self._old_at = False, time.time_ns(), 0.0
        self._figures: dict[str, object] = {}
        self._returning = self._restore() if self.config.restore else ReturningKeyframes()
        self._mesh_out = self.advertise(topics.MESH)
        self._stream_out = self.advertise(topics.MESH_STREAM, notes_joins=True)
        self._statistics_out = self.advertise(topics.MESH_STATISTICS)
        self._busy_at = time.monotonic()
        self._inbox = self.listen_to_keyframes(self._on_keyframe, self._told, self._on_missed)
        self.listen(topics.POSE, self._on_pose)
        self.create_timer(IDLE_S, self._on_idle)
        self.create_timer(STREAM_PERIOD_S, self._publish_stream)
        self.create_timer(STATISTICS_PERIOD_S, self._publish_statistics)
        self.create_service(MeshRequest, "mesh/request", self._on_request)
        self.create_service(SaveMesh, "mesh/save", self._on_save)
        self._keyframes_before = PatientCall(self, Trigger, "slam3r/tell_again", log_trigger)
        if self.config.restore:
            self._keyframes_before.ask(Trigger.Request())

    def _give_sign(self) -> None:
        """Nobody shall take the stage for dead while a large map comes back in one callback."""
        if time.monotonic() - self._sign_s > SIGN_S:
            self._sign_s = time.monotonic()
            self.report()

    def _restore(self) -> ReturningKeyframes:
        """Let the surface of the process before come back; its keyframes are to be told again."""
        try:
            kept = self._mesher.restore()
        except Exception:  # the edge: what was saved must not keep the stage from beginning anew
            log.exception("the surface of before cannot be used: it is made anew")
            self._mesher.reset()
            kept = []
        for one in kept:
            self._told.remember(one.view.id, one.frame_id, one.view.world_from_cam)
            self._sizes.restore(one.view.id, one.view.scale, one.scale_when_told)
        return ReturningKeyframes(one.view.id for one in kept)

    def _on_missed(self, event: Told) -> None:
        """What is new may be seen again; what is of before, as of a loaded map, may not."""
        if isinstance(event, NewKeyframe) and not self.config.restore:
            self._oldest_missed_ns = min(self._oldest_missed_ns, event.keyframe.stamp_ns)
        else:
            self._missed = True

    def _on_keyframe(self, event: Told) -> None:
        is_new = isinstance(event, NewKeyframe) and self._took(event)
        corrections = [] if isinstance(event, NewKeyframe) else [event]
        corrections += self._inbox.take_first(is_correction)
        self.between_steps()
        self._correct(joined(corrections))
        if not (is_new or corrections):
            return
        self.between_steps()
        delta = self._mesher.extract(time.time_ns())
        self._publish(delta)
        shows_new = isinstance(event, NewKeyframe) and is_new
        if delta is not None and shows_new and not self._is_of_before(event.keyframe.stamp_ns):
            self.measure_latency(event.keyframe.stamp_ns)
        self._busy_at = time.monotonic()

    def _took(self, event: NewKeyframe) -> bool:
        """Fuse the keyframe; False for one that is told again and lies where it lay."""
        keyframe = event.keyframe
        self._note_old(keyframe)
        if self._told.knows(keyframe) and self._followed(keyframe):
            self.ledger.drop_untaken(TOLD_AGAIN)
            return False
        self._returning.told_again((keyframe.id,))
        self._sizes.begin(keyframe.id)
        self.ledger.take(keyframe.frame_id)
        if self._mesher.integrate(keyframe):
            self.ledger.use(keyframe.frame_id)
        else:
            self.ledger.drop(keyframe.frame_id, "no_usable_points")
        self._told.note(event)
        return True

    def _followed(self, keyframe: Keyframe) -> bool:
        """Whether the keyframe is fused, and lies now where it is told again."""
        if self._told.lies_there(keyframe) and self._mesher.holds(keyframe.id):
            self._note_told_again((keyframe.id,))
            return True
        size = self._mesher.follow(keyframe, self._sizes.now(keyframe.id))
        if size is None:
            return False
        self._told.note(NewKeyframe(keyframe))
        self._sizes.restore(keyframe.id, size, size)
        self._returning.told_again((keyframe.id,))
        return True

    def _on_pose(self, pose: Pose) -> None:
        if self._first_pose_ns is None:
            self._first_pose_ns = pose.stamp_ns
        self._surface_services.camera(pose)

    def _is_of_before(self, stamp_ns: float) -> bool:
        """Whether a keyframe was seen before this process, or in the session of a loaded map."""
        return self._first_pose_ns is not None and stamp_ns < self._first_pose_ns

    def _correct(self, corrections: Sequence[Correction]) -> None:
        for event in corrections:
            self._returning.heard(event)
            if isinstance(event, RemovedKeyframes):
                self._mesher.remove(event.ids, event.heirs)
                self._sizes.forget(event.ids)
            elif isinstance(event, ToldAgain):
                self._missed |= self._told.lacks(event.world_from_cam)
                self._note_told_again(event.world_from_cam)
                sizes = {key: self._sizes.now(key) for key in event.world_from_cam}
                self._mesher.move(event.world_from_cam, sizes)
            else:
                told = self._returning.sizes(event, self._mesher.scale)
                self._mesher.move(self._of_ours(event), self._sizes.since_fused(told), event.scale)
            self._told.note(event)

    def _of_ours(self, event: MovedKeyframes) -> Mapping[int, np.ndarray]:
        """The poses that it tells; where it is about all keyframes, of those that are fused."""
        if event.scale is None:
            return event.world_from_cam
        poses = event.world_from_cam.items()
        return {key: pose for key, pose in poses if self._mesher.holds(key)}

    def _note_told_again(self, ids: Iterable[int]) -> None:
        self._sizes.tell_again(ids)
        self._mesher.told_again(ids)
        self._returning.told_again(ids)

    def _on_idle(self) -> None:
        self._ask_for_missed()  # a stage that is never idle would never be told
        if not len(self._inbox):
            self._let_others_stand_in(self._returning.take_replaced())
        if self._mesher.is_restoring:
            self._publish(self._mesher.go_on(time.time_ns(), RESTORING_S))
        elif time.monotonic() - self._busy_at > IDLE_S:
            self._publish(self._mesher.go_on(time.time_ns()))
            better = self._surface_services.idle(time.time_ns())
            if better is not None:
                self._mesh_out.publish(better)

    def _note_old(self, keyframe: Keyframe) -> None:
        """One from before this process may be followed by others, or have followed lost ones."""
        if keyframe.stamp_ns < self._begun_ns:
            self._old_at = time.monotonic()
            self._missed |= self.config.restore and not self._told.knows(keyframe)

    def _ask_for_missed(self) -> None:
        """All keyframes of a long flight, told at once, are more than the transport and the inbox
        hold: they are asked for again until nothing old is new."""
        quiet = time.monotonic() - self._old_at > QUIET_S
        if quiet and (self._missed or self._is_of_before(self._oldest_missed_ns)):
            self._missed, self._oldest_missed_ns = False, math.inf
            self._keyframes_before.ask(Trigger.Request())

    def _let_others_stand_in(self, ids: tuple[int, ...]) -> None:
        """Keyframes of before that were not told again were replaced while this stage was away:
        what they gave stays, as long as the nearest one stays where it is."""
        heirs = self._told.nearest(ids, among=self._mesher.views)
        if heirs:
            self._mesher.remove(heirs, heirs)
            self._told.note(RemovedKeyframes(tuple(heirs)))
            self._sizes.forget(heirs)

    def _publish(self, delta: MeshDelta | None) -> None:
        if delta is not None:
            self._mesh_out.publish(delta)
            self._surface_services.fused(delta)

    def _publish_stream(self) -> None:
        readers, joins = self._stream_out.readers, self._stream_out.joins
        for message in self._surface_services.stream(readers, joins, time.monotonic()):
            self._stream_out.publish(message)

    def _publish_statistics(self) -> None:
        self._figures = self._surface_services.figures()
        methods = self._surface_services.quality.methods()
        self._statistics_out.publish(statistics_message(time.time_ns(), self._figures, methods))

    def _on_request(
        self, request: MeshRequest.Request, response: MeshRequest.Response
    ) -> MeshRequest.Response:
        try:
            encoding = known_encoding(request.encoding)
            delta = self._mesher.all_blocks(request.newer_than, time.time_ns())
            answer = streamed(delta, encoding, level=request.level)
        except (ValueError, WorldSystemError) as error:
            response.problem = str(error)
            return response
        (cdr,) = topics.MESH_STREAM.adapter.dump(answer)
        response.delta = deserialize_message(cdr, topics.MESH_STREAM.adapter.ros_type)
        return response

    def _on_save(self, request: SaveMesh.Request, response: SaveMesh.Response) -> SaveMesh.Response:
        try:
            surface = self._surface_services.save(
                Path(request.path), max_faces=request.max_faces, texture=request.texture
            )
        except WorldSystemError as error:
            response.message = str(error)
            return response
        response.success, response.message = True, f"{request.path} is being written"
        response.vertex_count, response.face_count = surface.vertex_count, surface.face_count
        return response

    def problem(self) -> str:
        return self._surface_services.problem

    def facts(self) -> dict[str, object]:
        figures = self._figures or self._surface_services.figures()
        return figures | {"begun_voxel": self._mesher.begun_voxel}

    def input_ended(self) -> None:
        self._publish(self._mesher.settle(time.time_ns()))

    def close(self) -> None:
        super().close()
        self._surface_services.close()
        self._mesher.close()


def main() -> None:
    run_node(MesherNode)
