# SPDX-License-Identifier: Apache-2.0
"""Keyframes in; chunks of splats out, and the world of splats as a file by service."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from std_srvs.srv import Trigger
from worldsystem_msgs.srv import SaveMap

from worldsystem_core.reconstruction import (
    Keyframe,
    MovedKeyframes,
    NewKeyframe,
    ScaleState,
    Successor,
)
from worldsystem_core.ros import topics
from worldsystem_core.ros.adapters.slam import KeyframeEvent
from worldsystem_core.ros.container import run_node
from worldsystem_core.ros.patient_call import PatientCall, log_trigger
from worldsystem_core.ros.stage_node import StageNode
from worldsystem_core.splats.discs import discs_from_pointmap
from worldsystem_core.splats.files import save_splats
from worldsystem_core.splats.world import SplatWorld
from worldsystem_core.told_keyframes import TOLD_AGAIN, ToldKeyframes
from worldsystem_viewer.splats.config import SplatsConfig
from worldsystem_viewer.splats.frame_server import FrameServer
from worldsystem_viewer.splats.stream import SplatStream

_PERIOD_S = 0.2
_SAME_SIZE = 1e-3


class SplatsNode(StageNode):
    """Keeps the world of splats and streams what changes in it."""

    niceness = 15

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("splats", SplatsConfig, **kwargs)
        config = self.config
        self._world = SplatWorld(voxel=config.voxel, most_splats=config.most_splats)
        self._stream = SplatStream(self._world, mbps=config.mbps, renew_s=config.renew_s)
        self._frames = FrameServer(config) if config.frames else None
        self._scale = ScaleState.SCENE
        self._told = ToldKeyframes()
        self._deltas_out = self.advertise(topics.SPLATS)
        if self._frames is not None:
            self._frames.start()
        if config.enabled:
            self.listen(topics.KEYFRAME, self._on_keyframe, self._on_dropped)
        if config.restore:
            self._keyframes_before = PatientCall(self, Trigger, "slam3r/tell_again", log_trigger)
            self._keyframes_before.ask(Trigger.Request())
        self.create_service(SaveMap, "splats/save", self._on_save)
        self.create_timer(_PERIOD_S, self._publish)

    def _on_dropped(self, event: KeyframeEvent) -> None:
        if isinstance(event, NewKeyframe):
            self.ledger.drop_untaken(event.keyframe.frame_id, "queue_full")

    def _on_keyframe(self, event: KeyframeEvent) -> None:
        if isinstance(event, NewKeyframe):
            if self._told.lies_there(event.keyframe) and self._has_its_size(event.keyframe.id):
                self.ledger.drop_untaken(event.keyframe.frame_id, TOLD_AGAIN)
                return
            self._add(event.keyframe)
        elif isinstance(event, MovedKeyframes):
            self._scale = event.scale or self._scale
            self._world.move(event.world_from_cam, event.point_scale)
        else:
            self._world.hang_on(event.successors)
            self._world.remove(event.wrong)
        self._told.note(event)
        self._publish()

    def _add(self, keyframe: Keyframe) -> None:
        self.ledger.take(keyframe.frame_id)
        self._scale = keyframe.scale
        if self._frames is not None:
            self._frames.put(keyframe)
        self._put(keyframe)
        self.measure_latency(keyframe.stamp_ns)
        self.ledger.use(keyframe.frame_id)

    def _has_its_size(self, keyframe_id: int) -> bool:
        """Whether its splats have not grown since: sizes are told relative to the points told last,
        and so would count twice."""
        chunk = self._world.chunks.get(keyframe_id)
        return chunk is None or abs(chunk.world_from_chunk.scale - 1.0) < _SAME_SIZE

    def _put(self, keyframe: Keyframe) -> None:
        if keyframe.id not in self._world.chunks:
            self._world.add(keyframe)
            return
        found = keyframe.gaussians  # `add` would take its own splats for those of another
        if found is None:
            found = discs_from_pointmap(keyframe.pointmap, keyframe.rgb, keyframe.confidence)
        self._world.add_gaussians(keyframe, found)
        itself = Successor(keyframe.id, keyframe.world_from_cam)
        self._world.hang_on({keyframe.id: itself})  # what hangs on it stays as it has grown

    def _publish(self, everything: bool = False) -> None:
        deltas = self._stream.take(
            time.monotonic(), time.time_ns(), self._scale, everything=everything
        )
        for delta in deltas:
            self._deltas_out.publish(delta)

    def _on_save(self, request: SaveMap.Request, response: SaveMap.Response) -> SaveMap.Response:
        saved = save_splats(self._world.gaussians(), Path(request.path or "splats.spz"))
        response.success, response.message = saved
        return response

    def facts(self) -> dict[str, object]:
        world, stream = self._world, self._stream
        found: dict[str, object] = {
            "voxel": world.voxel,
            "splats": len(world),
            "chunks": len(world.chunks),
            "memory_bytes": world.memory_bytes,
            "duplicates": world.duplicates,
            "contradicted": world.contradicted,
            "replaced": world.replaced,
            "thinned": world.thinned,
            "waiting_chunks": stream.waiting,
            "sent_bytes": stream.sent_bytes,
        }
        if self._frames is not None:
            found |= {"clients": self._frames.client_count, "skipped": self._frames.skipped}
        return found

    def input_ended(self) -> None:
        self._publish(everything=True)
        if self._frames is not None:
            self._frames.stop()


def main() -> None:
    run_node(SplatsNode)
