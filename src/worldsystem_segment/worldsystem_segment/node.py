# SPDX-License-Identifier: Apache-2.0
"""Keyframes in; tracks, the label image and the map's objects out; a prompt by service."""

from __future__ import annotations

from typing import Any

from worldsystem_msgs.srv import SetPrompt

from worldsystem_core.reconstruction import Keyframe, MovedKeyframes, NewKeyframe
from worldsystem_core.ros import topics
from worldsystem_core.ros.adapters.slam import KeyframeEvent
from worldsystem_core.ros.container import run_node
from worldsystem_core.ros.stage_node import StageNode
from worldsystem_segment.config import SegmentConfig
from worldsystem_segment.segmenter import Segmenter


class SegmenterNode(StageNode):
    """Segments each keyframe and keeps the objects of the map."""

    niceness = 10

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("segmenter", SegmentConfig, **kwargs)
        self._segmenter = Segmenter(self.config)
        self._tracks_out = self.advertise(topics.TRACKS)
        self._labels_out = self.advertise(topics.LABELS)
        self._objects_out = self.advertise(topics.OBJECTS)
        self._newest_ns = 0
        self.listen(topics.KEYFRAME, self._on_keyframe, self._on_dropped)
        self.create_service(SetPrompt, "segment/set_prompt", self._on_prompt)

    def _on_dropped(self, event: KeyframeEvent) -> None:
        if isinstance(event, NewKeyframe):
            self.ledger.drop_untaken(event.keyframe.frame_id, "queue_full")

    def _on_keyframe(self, event: KeyframeEvent) -> None:
        if isinstance(event, NewKeyframe):
            self._segment(event.keyframe)
        elif isinstance(event, MovedKeyframes):
            self._segmenter.move(event.world_from_cam, event.point_scale, event.scale)
        else:
            self._segmenter.remove(event.ids)
        self._objects_out.publish(self._segmenter.objects(self._newest_ns))

    def _segment(self, keyframe: Keyframe) -> None:
        self.ledger.take(keyframe.frame_id)
        tracks = self._segmenter.feed(keyframe)
        self._newest_ns = keyframe.stamp_ns
        self._tracks_out.publish(tracks)
        self._labels_out.publish(tracks)
        self.measure_latency(keyframe.stamp_ns)
        self.ledger.use(keyframe.frame_id)

    def facts(self) -> dict[str, object]:
        return dict(self._segmenter.counters())

    def _on_prompt(
        self, request: SetPrompt.Request, response: SetPrompt.Response
    ) -> SetPrompt.Response:
        result = self._segmenter.set_prompt(request.text)
        response.understood = list(result.understood)
        response.refused = list(result.refused)
        response.message = result.message
        response.success = not result.refused
        return response


def main() -> None:
    run_node(SegmenterNode)
