# SPDX-License-Identifier: Apache-2.0
"""Keyframes in, mesh deltas out; the whole surface on request."""

from __future__ import annotations

import time
from typing import Any

from rclpy.serialization import deserialize_message
from worldsystem_msgs.srv import MeshRequest

from worldsystem_core.reconstruction import MovedKeyframes, NewKeyframe
from worldsystem_core.ros import topics
from worldsystem_core.ros.adapters.slam import KeyframeEvent
from worldsystem_core.ros.container import run_node
from worldsystem_core.ros.stage_node import StageNode
from worldsystem_mesh.config import MeshConfig
from worldsystem_mesh.mesher import Mesher


class MesherNode(StageNode):
    """Integrates each keyframe as it comes and publishes what it changed."""

    niceness = 5

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("mesher", MeshConfig, **kwargs)
        self._mesher = Mesher(self.config)
        self._mesh_out = self.advertise(topics.MESH)
        self.listen(topics.KEYFRAME, self._on_keyframe, self._on_dropped)
        self.create_service(MeshRequest, "mesh/request", self._on_request)

    def _on_dropped(self, event: KeyframeEvent) -> None:
        if isinstance(event, NewKeyframe):
            self.ledger.drop_untaken(event.keyframe.frame_id, "queue_full")

    def _on_keyframe(self, event: KeyframeEvent) -> None:
        if isinstance(event, NewKeyframe):
            self.ledger.take(event.keyframe.frame_id)
            if self._mesher.integrate(event.keyframe):
                self.ledger.use(event.keyframe.frame_id)
            else:
                self.ledger.drop(event.keyframe.frame_id, "no_usable_points")
        elif isinstance(event, MovedKeyframes):
            self._mesher.move(event.world_from_cam, event.point_scale, event.scale)
        else:
            self._mesher.remove(event.ids)
        self._publish()

    def _publish(self) -> None:
        delta = self._mesher.extract(time.time_ns())
        if delta is not None:
            self._mesh_out.publish(delta)
            self.measure_latency(delta.capture_ns)

    def _on_request(
        self, request: MeshRequest.Request, response: MeshRequest.Response
    ) -> MeshRequest.Response:
        delta = self._mesher.all_blocks(request.newer_than, time.time_ns())
        (cdr,) = topics.MESH.adapter.dump(delta)
        response.delta = deserialize_message(cdr, topics.MESH.adapter.ros_type)
        return response

    def facts(self) -> dict[str, object]:
        return dict(self._mesher.stats())

    def input_ended(self) -> None:
        self._publish()


def main() -> None:
    run_node(MesherNode)
