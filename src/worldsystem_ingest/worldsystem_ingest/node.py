# SPDX-License-Identifier: Apache-2.0
"""Video and telemetry in: whatever the source delivers becomes topics."""

from __future__ import annotations

import logging
import threading
from typing import Any

from rosgraph_msgs.msg import Clock

from worldsystem_core.dds_domain import mark
from worldsystem_core.errors import WorldSystemError
from worldsystem_core.frames import Camera, EncodedFrame, Frame, StampedCamera
from worldsystem_core.ros import topics
from worldsystem_core.ros.adapters.messages import time_message
from worldsystem_core.ros.container import run_node
from worldsystem_core.ros.stage_node import StageNode
from worldsystem_core.telemetry import (
    AttitudeSample,
    BatterySample,
    GpsFix,
    ImuSample,
    OdometrySample,
    PressureSample,
    Telemetry,
)
from worldsystem_ingest.config import IngestConfig
from worldsystem_ingest.numbering import begin_numbering
from worldsystem_ingest.raw_outside import RawOutside
from worldsystem_ingest.sink import Summary
from worldsystem_ingest.source import open_source

log = logging.getLogger(__name__)

_PATIENCE_S = 60.0
_JOIN_S = 10.0
_TELEMETRY = {
    ImuSample: topics.IMU,
    AttitudeSample: topics.ATTITUDE,
    GpsFix: topics.GPS,
    PressureSample: topics.PRESSURE,
    BatterySample: topics.BATTERY,
    OdometrySample: topics.ODOMETRY,
}


class StreamOut:
    """The topics and the ledger of one stream; further streams have theirs in a namespace."""

    def __init__(self, node: StageNode, namespace: str) -> None:
        def advertise(topic: topics.Topic, *, outside: bool = True) -> Any:
            return node.advertise(topics.in_namespace(topic, namespace), outside=outside)

        self.image = advertise(topics.IMAGE, outside=False)
        name = node.resolve_topic_name(self.image.topic.name)
        self.numbering = begin_numbering(node.context, name)
        self.raw_outside = RawOutside(node.config.raw_outside_max_px)
        self.camera = advertise(topics.CAMERA_INFO)
        self._camera_is_told = False
        self.video = advertise(topics.VIDEO)
        self.telemetry = {kind: advertise(topic) for kind, topic in _TELEMETRY.items()}
        self.ledger = node.further_ledger(namespace) if namespace else node.ledger

    def tell_camera(self, frame: Frame) -> None:
        """That of each picture; where one comes without, as of another sender, zeros say so once
        (`sensor_msgs/CameraInfo`: not calibrated)."""
        camera = frame.camera
        if camera is None and self._camera_is_told:
            unknown = Camera(width=frame.width, height=frame.height, fx=0.0, fy=0.0, cx=0.0, cy=0.0)
            self.camera.publish(StampedCamera(stamp_ns=frame.stamp_ns, camera=unknown))
        elif camera is not None:
            self.camera.publish(StampedCamera(stamp_ns=frame.stamp_ns, camera=camera))
        self._camera_is_told = camera is not None


class IngestNode(StageNode):
    """Runs one source in a thread of its own; a source that is not live waits for the others."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("ingest", IngestConfig, **kwargs)
        self._mark = mark(self.context.get_domain_id())
        self._streams = {self.config.stream: StreamOut(self, "")}
        self._lock = threading.Lock()
        self._clock_out = self.advertise(topics.CLOCK) if self.config.clock else None
        self.summary: Summary | None = None
        self.error: Exception | None = None
        self.ended = threading.Event()
        self.frames_published = 0
        self._stop = threading.Event()
        self._source = open_source(self.config.source, self.config)
        self._patience_s = 0.0 if self._source.live else _PATIENCE_S
        self._thread = threading.Thread(target=self._run, name="ingest-source", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.summary = self._source.run(self, self._stop)
            if self.summary.broken:
                log.warning("%s", self.summary.broken)
        except WorldSystemError as error:
            self.error = error
            log.error("%s", error)
        except Exception as error:  # the edge of the thread: else it would look like the end
            self.error = error
            log.exception("the source failed")
        finally:
            self.ended.set()

    def _out(self, stream: str) -> StreamOut:
        with self._lock:
            if stream not in self._streams:
                self._streams[stream] = StreamOut(self, stream)
            return self._streams[stream]

    def encoded(self, unit: EncodedFrame) -> None:
        out = self._out(unit.stream)
        out.video.publish(out.numbering.numbered(unit), patience_s=self._patience_s)

    def frame(self, frame: Frame) -> None:
        out = self._out(frame.stream)
        frame = out.numbering.numbered(frame)
        out.ledger.take(frame.id)
        if out.raw_outside.offers(frame):
            out.image.offer_outside()
        if self._clock_out is not None:
            self._clock_out.publish(Clock(clock=time_message(frame.stamp_ns)))
        out.tell_camera(frame)
        out.image.publish(frame, patience_s=self._patience_s)
        self.frames_published += 1
        self.measure_latency(frame.stamp_ns)
        out.ledger.use(frame.id)

    def camera(self, camera: Camera, stream: str) -> None:
        log.info("%s: %dx%d, focal length %.1f px", stream, camera.width, camera.height, camera.fx)

    def measured(self, sample: Telemetry, stream: str) -> None:
        """Of a file it waits for room, as pictures do: many may lie between two of them."""
        out = self._out(stream).telemetry[type(sample)]
        out.publish(sample, patience_s=self._patience_s)

    def dropped(self, frame_id: int, reason: str, stream: str) -> None:
        self._out(stream).ledger.drop_untaken(reason)

    def facts(self) -> dict[str, object]:
        end = {
            "ended": self.ended.is_set(),
            "failed": self.error is not None,
            "broken": (self.summary.broken or "") if self.summary else "",
        }
        return {**end, **self._source.facts()}

    def problem(self) -> str:
        if self.error is None:
            return self._source.problem() or self._what_others_miss()
        if isinstance(self.error, WorldSystemError):
            return str(self.error)
        return f"the source failed: {self.error!r}"

    def _what_others_miss(self) -> str:
        with self._lock:
            streams = list(self._streams.values())
        said = (
            out.raw_outside.problem(self.count_subscribers(out.image.topic.name)) for out in streams
        )
        return next(filter(None, said), "")

    def input_ended(self) -> None:
        """End the source; a picture that waits for room has its time, and is then accounted for."""
        self._stop.set()
        self._thread.join(self._patience_s + _JOIN_S)

    def close(self) -> None:
        if self._mark is not None:
            self._mark.close()
        super().close()


def main() -> None:
    run_node(IngestNode)
