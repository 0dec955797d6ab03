# SPDX-License-Identifier: Apache-2.0
"""The drone app's messages made into access units, cameras and telemetry (network thread)."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from worldsystem_core import wire
from worldsystem_core.errors import ProtocolError
from worldsystem_core.frames import Camera, EncodedFrame
from worldsystem_core.wire import PacketType, VideoPacket
from worldsystem_ingest import h264, telemetry
from worldsystem_ingest.clock import ClockEstimator
from worldsystem_ingest.counters import LOW_BANDWIDTH_MBPS, Bandwidth
from worldsystem_ingest.numbering import FrameNumbers
from worldsystem_ingest.sink import CORRUPT, LOST_ON_LINK, NO_PARAMETER_SETS, Sink

_log = logging.getLogger(__name__)
Deliver = Callable[[EncodedFrame, bool], None]


class SenderSession:
    """All that is known of one drone or phone, over any number of its connections.

    `deliver` gets each access unit that may be decoded, and whether the one before it is missing;
    every other picture goes to the sink as dropped. Methods raise `ProtocolError` for a message
    that is not understood; such a message changes nothing.
    """

    def __init__(self, sink: Sink, deliver: Deliver, stream: str, clock_window_s: float) -> None:
        self._sink = sink
        self._deliver = deliver
        self._stream = stream
        self._sets = h264.ParameterSets()
        self._last_stamp_ns = -1
        self._next_id: int | None = None
        self._low = False
        self.numbers = FrameNumbers()
        self.clock = ClockEstimator(clock_window_s)
        self.bandwidth = Bandwidth()
        self.camera: Camera | None = None
        self.last_picture_s: float | None = None

    def connected(self) -> None:
        """A new video connection begins."""
        self.numbers.connected()

    def take_packet(self, message: bytes) -> None:
        """One binary message of `/ws/video`."""
        arrival_ns = time.time_ns()
        self._count(len(message))
        packet = wire.unpack(message)
        if packet.type.is_picture:
            self._take_picture(packet, arrival_ns)
        else:
            self._sets.take(packet.payload)

    def take_control(self, text: str) -> None:
        """One text message of `/ws/video`."""
        message = telemetry.message_from(text)
        if message["type"] == "video_config":
            camera = telemetry.camera_from(message)
            if camera and camera != self.camera:
                self.camera = camera
                self._sink.camera(camera, self._stream)
        elif message["type"] in telemetry.RESTART_TYPES:
            self.numbers.restart()

    def take_telemetry(self, text: str) -> None:
        """One text message of `/ws/phone`."""
        arrival_ns = time.time_ns()
        message = telemetry.message_from(text)
        stamp_ns = self.clock.mapped_ns(telemetry.sender_ns_of(message), arrival_ns)
        if message["type"] == "imu":
            self._sink.measured(telemetry.imu_from(message, stamp_ns), self._stream)
        elif message["type"] == "gps":
            self._sink.measured(telemetry.gps_from(message, stamp_ns), self._stream)
        elif message["type"] not in ("telemetry", "status", "ping"):
            raise ProtocolError(f'unknown type {message["type"]!r:.40}; known: "imu", "gps"')

    def _count(self, size_bytes: int) -> None:
        self.bandwidth.add(size_bytes)
        was_low, self._low = self._low, self.bandwidth.low
        if self._low and not was_low:
            _log.warning(
                "%s: %.1f Mbit/s arrive on average, less than %.0f; pictures will be coarse",
                self._stream,
                self.bandwidth.average_mbps() or 0.0,
                LOW_BANDWIDTH_MBPS,
            )

    def _take_picture(self, packet: VideoPacket, arrival_ns: int) -> None:
        is_key = packet.type is PacketType.KEY_FRAME
        known_ns = packet.sender_ns if self.clock.plausible(packet.sender_ns, arrival_ns) else 0
        numbered = self.numbers.take(packet.frame_number, known_ns, is_key)
        if numbered is None:
            return
        for lost_id in numbered.lost:
            self._sink.dropped(lost_id, LOST_ON_LINK, self._stream)
        self.last_picture_s = time.monotonic()
        stamp_ns = self.clock.host_ns(packet.sender_ns, arrival_ns)
        self._last_stamp_ns = max(stamp_ns, self._last_stamp_ns + 1)
        self._deliver_unit(numbered.id, packet, arrival_ns)

    def _deliver_unit(self, frame_id: int, packet: VideoPacket, arrival_ns: int) -> None:
        data = wire.with_start_code(packet.payload)
        kinds = h264.nal_types(data)
        if not kinds & {h264.SLICE, h264.PARTITION_A, h264.IDR_SLICE}:
            self._sink.dropped(frame_id, CORRUPT, self._stream)
            return
        if kinds & {h264.SPS, h264.PPS}:
            self._sets.take(data)
        is_key = packet.type is PacketType.KEY_FRAME or h264.IDR_SLICE in kinds
        if is_key and not {h264.SPS, h264.PPS} <= kinds:
            if not self._sets.complete:
                self._sink.dropped(frame_id, NO_PARAMETER_SETS, self._stream)
                return
            data = self._sets.annexb() + data
        unit = EncodedFrame(
            id=frame_id,
            stamp_ns=self._last_stamp_ns,
            arrival_ns=arrival_ns,
            data=data,
            is_key=is_key,
            stream=self._stream,
        )
        self._sink.encoded(unit)
        self._deliver(unit, self._next_id not in (None, frame_id))
        self._next_id = frame_id + 1
