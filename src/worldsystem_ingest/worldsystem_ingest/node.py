# SPDX-License-Identifier: Apache-2.0
"""Video and telemetry in: whatever the source delivers becomes topics."""

from __future__ import annotations

import logging
import threading
from typing import Any

from worldsystem_core.errors import WorldSystemError
from worldsystem_core.frames import Camera, EncodedFrame, Frame, StampedCamera
from worldsystem_core.ros import topics
from worldsystem_core.ros.container import run_node
from worldsystem_core.ros.stage_node import StageNode
from worldsystem_core.telemetry import GpsFix, ImuSample
from worldsystem_ingest.config import IngestConfig
from worldsystem_ingest.sink import Summary
from worldsystem_ingest.source import open_source

log = logging.getLogger(__name__)

_PATIENCE_S = 60.0
_JOIN_S = 10.0


class IngestNode(StageNode):
    """Runs one source in a thread of its own; a source that is not live waits for the others."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("ingest", IngestConfig, **kwargs)
        self._image_out = self.advertise(topics.IMAGE, outside=False)
        self._camera_out = self.advertise(topics.CAMERA_INFO)
        self._video_out = self.advertise(topics.VIDEO)
        self._imu_out = self.advertise(topics.IMU)
        self._gps_out = self.advertise(topics.GPS)
        self.summary: Summary | None = None
        self.error: WorldSystemError | None = None
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
        finally:
            self.ended.set()

    def encoded(self, unit: EncodedFrame) -> None:
        self._video_out.publish(unit, patience_s=self._patience_s)

    def frame(self, frame: Frame) -> None:
        self.ledger.take(frame.id)
        if max(frame.width, frame.height) <= self.config.raw_outside_max_px:
            self._image_out.offer_outside()
        if frame.camera is not None:
            self._camera_out.publish(StampedCamera(stamp_ns=frame.stamp_ns, camera=frame.camera))
        self._image_out.publish(frame, patience_s=self._patience_s)
        self.frames_published += 1
        self.measure_latency(frame.stamp_ns)
        self.ledger.use(frame.id)

    def camera(self, camera: Camera, stream: str) -> None:
        log.info("%s: %dx%d, focal length %.1f px", stream, camera.width, camera.height, camera.fx)

    def imu(self, sample: ImuSample) -> None:
        self._imu_out.publish(sample)

    def gps(self, fix: GpsFix) -> None:
        self._gps_out.publish(fix)

    def dropped(self, frame_id: int, reason: str) -> None:
        self.ledger.drop_untaken(frame_id, reason)

    def problem(self) -> str:
        return str(self.error) if self.error else ""

    def input_ended(self) -> None:
        self._stop.set()
        self._thread.join(_JOIN_S)


def main() -> None:
    run_node(IngestNode)
