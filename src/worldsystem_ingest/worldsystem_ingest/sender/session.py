# SPDX-License-Identifier: Apache-2.0
"""The drone app's messages made into access units, cameras and telemetry (network thread)."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from worldsystem_core import wire
from worldsystem_core.frames import Camera, EncodedFrame
from worldsystem_core.wire import PacketType
from worldsystem_ingest.codec.assembly import Assembly, Refused
from worldsystem_ingest.config import IngestConfig
from worldsystem_ingest.sender import telemetry
from worldsystem_ingest.sender.clock import ClockEstimator
from worldsystem_ingest.sender.feedback import BitrateControl, KeyFrameRequests, Say
from worldsystem_ingest.sender.fields import Message
from worldsystem_ingest.sender.numbering import FrameNumbers, Numbered
from worldsystem_ingest.sender.pings import Pings, pong_to
from worldsystem_ingest.sender.quality import LinkMonitor, LinkQuality
from worldsystem_ingest.sender.telemetry import TelemetryReader
from worldsystem_ingest.sender.telemetry_clock import TelemetryClock
from worldsystem_ingest.sink import LOST_ON_LINK, NO_KEY_FRAME, Sink

Deliver = Callable[[EncodedFrame, bool], None]

_ALIVE_S = 1.0  # whoever sends video is never silent for so long; one whose network is gone is


@dataclass(frozen=True)
class Accepted:
    """What a picture is known by, and whether the one before it is missing."""

    id: int
    stamp_ns: int
    after_loss: bool


class SenderSession:
    """All that is known of one drone or phone, over any number of its connections.

    `deliver` gets each access unit that may be decoded, and whether the one before it is missing;
    every other picture goes to the sink as dropped. `say` sends a message to the sender that is
    connected now; it never waits and may drop the message. Methods raise `ProtocolError` for a
    message that is not understood; such a message changes nothing.
    """

    def __init__(
        self, sink: Sink, deliver: Deliver, stream: str, config: IngestConfig, say: Say
    ) -> None:
        self._sink = sink
        self._deliver = deliver
        self._stream = stream
        self._assembly = Assembly()
        self._begins_anew = self._described = False
        self._last_sender_ns = self._stamp_ns = -1
        self._next_id: int | None = None
        self._say = say
        advise = say if config.feedback else _silent
        self._key_frames = KeyFrameRequests(advise)
        self._bitrate = BitrateControl(advise)
        self._telemetry = TelemetryReader()
        self._pings = Pings()
        self._connected = False
        self._peer, self._heard_s = "", 0.0
        self.numbers = FrameNumbers()
        self.clock = ClockEstimator(config.clock_window_s)
        self._telemetry_clock = TelemetryClock(self.clock, config.clock_window_s)
        self._link = LinkMonitor(stream, self.clock, config.low_bandwidth_mbps)
        self.bandwidth = self._link.bandwidth
        self.camera: Camera | None = None
        self.last_picture_s: float | None = None
        self.quality = LinkQuality()

    def connected(self, peer: str = "") -> None:
        """A new video connection begins, from the address `peer`.

        What the sender told of its video still holds when it is the same one that comes back: from
        the same address, and the connection before had ended or was silent. One from another
        address may send at any bit rate, by any clock.
        """
        now_s = time.monotonic()
        replaces = self._connected and now_s - self._heard_s < _ALIVE_S
        if replaces or peer != self._peer:
            self._described = False
        if peer != self._peer:
            self.numbers.restart()  # it counts, and its pictures refer to others, on its own
            self._assembly = Assembly()  # whose parameter sets were the other's
            self.clock.reset()  # after a break longer than the two differ, times do not tell
            self._bitrate.forget()
            self.quality = replace(self.quality, asked_kbps=None)
        self._connected, self._peer, self._heard_s = True, peer, now_s
        self.numbers.connected()
        self.clock.connected()
        self._telemetry_clock.connected()
        self._link.connected()
        self._pings.connected()
        self._key_frames.connected()
        self._bitrate.connected()

    def phone_connected(self) -> None:
        """A new connection of `/ws/phone` begins."""
        self._telemetry_clock.connected()

    def disconnected(self) -> None:
        """The video connection ended, and no other took its place."""
        self._connected = False
        self._key_frames.came()

    def tick(self) -> None:
        """Measure the link, tell the sender what follows from it; call once a second."""
        self.quality = self._link.quality(self._bitrate.asked_kbps, self._key_frames.asked)
        if not self._connected:
            return
        self._bitrate.judge(self.quality)
        self._key_frames.tick()
        if ping := self._pings.ping(time.time_ns()):
            self._say(dict(ping))

    def key_frame_needed(self, reason: str) -> None:
        """Pictures are lost for `reason` until a key frame comes."""
        if self._connected:  # a sender that comes back begins with one
            self._key_frames.needed(reason)

    def take_packet(self, message: bytes) -> None:
        """One binary message of `/ws/video`."""
        arrival_ns = time.time_ns()
        self.bandwidth.add(len(message))
        packet = wire.unpack(message)
        self._hear_video()
        if packet.type.is_picture:
            self._take_unit(
                wire.with_start_code(packet.payload),
                is_key=packet.type is PacketType.KEY_FRAME,
                sender_ns=packet.sender_ns,
                number=packet.frame_number,
                arrival_ns=arrival_ns,
            )
        else:
            self._assembly.take_sets(packet.payload)

    def take_access_unit(
        self, *, data: bytes, is_key: bool, sender_ns: int, number: int, arrival_ns: int
    ) -> None:
        """One access unit in Annex-B form that came by other means than `/ws/video`.

        `sender_ns` is any steady clock of the sender; `number` counts its pictures.
        """
        self._hear_video()
        self.bandwidth.add(len(data))
        self._take_unit(
            data, is_key=is_key, sender_ns=sender_ns, number=number, arrival_ns=arrival_ns
        )

    def accept(
        self, *, size_bytes: int, is_key: bool, sender_ns: int, number: int, arrival_ns: int
    ) -> Accepted | None:
        """Account for a coded picture that the caller has decoded: neither relayed nor recorded.

        None when it is late, was there before, or refers to pictures of another session.
        """
        self._hear_video()
        self.bandwidth.add(size_bytes)
        numbered = self._account(is_key, sender_ns, number, arrival_ns)
        if numbered is None or self._refuses(numbered, is_key):
            return None
        if is_key:
            self._key_frames.came()
        return Accepted(numbered.id, self._stamp_ns, self._is_after_loss(numbered.id))

    def take_control(self, text: str) -> None:
        """One text message of `/ws/video`."""
        arrival_ns, self._heard_s = time.time_ns(), time.monotonic()
        message = telemetry.message_from(text)
        if message["type"] == "video_config":
            self._describe(telemetry.codec_from(message), telemetry.camera_from(message))
        elif message["type"] in telemetry.RESTART_TYPES:
            self.numbers.restart()
        elif message["type"] == "pong":
            self._take_pong(message, arrival_ns)
        elif message["type"] == "ping":
            self._say(pong_to(message, arrival_ns))

    def take_telemetry(self, text: str) -> None:
        """One text message of `/ws/phone`."""
        arrival_ns = time.time_ns()
        samples = self._telemetry.samples(telemetry.message_from(text))
        for sample in self._telemetry_clock.stamped(samples, arrival_ns):
            self._sink.measured(sample, self._stream)

    def _describe(self, codec: str = "", camera: Camera | None = None) -> None:
        """The sender tells what it sends; what it does not tell is not that of the one before."""
        first, self._described = not self._described, True
        self._assembly.use_codec(codec or ("h264" if first else ""))
        if camera != self.camera and (camera or first):
            self.camera = camera
            if camera:
                self._sink.camera(camera, self._stream)

    def _hear_video(self) -> None:
        self._heard_s = time.monotonic()
        if not self._described:
            self._describe()

    def _take_pong(self, message: Message, arrival_ns: int) -> None:
        trip = self._pings.trip(message, arrival_ns)
        if trip:
            self.clock.answered(trip)

    def _take_unit(
        self, data: bytes, *, is_key: bool, sender_ns: int, number: int, arrival_ns: int
    ) -> None:
        numbered = self._account(is_key, sender_ns, number, arrival_ns)
        if numbered is not None:
            self._deliver_unit(numbered, data, is_key, arrival_ns)

    def _account(
        self, is_key: bool, sender_ns: int, number: int, arrival_ns: int
    ) -> Numbered | None:
        """Number and stamp a picture, with those lost before it; None when it is to be left out."""
        known_ns = sender_ns if self.clock.usable(sender_ns, arrival_ns) else 0
        numbered = self.numbers.take(number, known_ns, is_key)
        if numbered is None:
            return None
        for lost_id in numbered.lost:
            self._sink.dropped(lost_id, LOST_ON_LINK, self._stream)
        self._link.came(len(numbered.lost))
        self.last_picture_s = time.monotonic()
        stamp_ns = self.clock.host_ns(sender_ns, arrival_ns)
        if known_ns:
            self._link.delayed(known_ns, arrival_ns)
        if sender_ns == self._last_sender_ns:  # a clock that stands still
            stamp_ns = max(stamp_ns, self._stamp_ns + 1)
        self._last_sender_ns, self._stamp_ns = sender_ns, stamp_ns
        return numbered

    def _is_after_loss(self, frame_id: int) -> bool:
        """Whether the picture before `frame_id` did not come; it is the newest one now."""
        expected, self._next_id = self._next_id, frame_id + 1
        return expected not in (None, frame_id)

    def _deliver_unit(self, numbered: Numbered, data: bytes, is_key: bool, arrival_ns: int) -> None:
        assembled = self._assembly.take(data, is_key)
        if isinstance(assembled, Refused):
            self._begins_anew = self._begins_anew or numbered.restarted
            self._refuse(numbered.id, assembled.reason)
            return
        if self._refuses(numbered, assembled.is_key):
            return
        if assembled.is_key:
            self._key_frames.came()
        unit = EncodedFrame(
            id=numbered.id,
            stamp_ns=self._stamp_ns,
            arrival_ns=arrival_ns,
            data=assembled.data,
            is_key=assembled.is_key,
            stream=self._stream,
            codec=self._assembly.codec,
        )
        self._sink.encoded(unit)
        after_loss = self._is_after_loss(unit.id) or numbered.restarted  # nor on another session
        self._deliver(unit, after_loss)

    def _refuses(self, numbered: Numbered, is_key: bool) -> bool:
        """Whether the sender restarted and its key frame has not come.

        The picture's number goes on, but it refers to pictures of its own session.
        """
        self._begins_anew = (self._begins_anew or numbered.restarted) and not is_key
        if self._begins_anew:
            self._refuse(numbered.id, NO_KEY_FRAME)
        return self._begins_anew

    def _refuse(self, frame_id: int, reason: str) -> None:
        self._sink.dropped(frame_id, reason, self._stream)
        self._key_frames.needed(reason)


def _silent(message: dict[str, object]) -> None:
    """The sender is told nothing."""
