# SPDX-License-Identifier: Apache-2.0
"""One browser's connection: from its offer to coded pictures with the sender's capture times."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from aiortc import (
    RTCConfiguration,
    RTCIceServer,
    RTCPeerConnection,
    RTCRtpReceiver,
    RTCRtpTransceiver,
    RTCSessionDescription,
)
from aiortc.rtp import RtpPacket
from aiortc.sdp import SessionDescription

from worldsystem_core.wire import START_CODE
from worldsystem_ingest.codec import h264
from worldsystem_ingest.stream.status import PacketLoss
from worldsystem_ingest.webrtc.jitter_buffer import CodedPicture, JitterBuffer, Packet
from worldsystem_ingest.webrtc.key_frames import KeyFrames
from worldsystem_ingest.webrtc.offer import BadOffer, checked_offer, completed_answer
from worldsystem_ingest.webrtc.rtp_clock import RtpClock
from worldsystem_ingest.webrtc.tap import Tap, gather_on, packet_data

_log = logging.getLogger(__name__)
_WATCH_S = 0.02
_TELL_LIMIT_S = 1.0
_NO_LIMIT_KBPS = 100_000
_ACCESS_UNIT_DELIMITER = 9
_FIRST_SLICE_BIT = 0x80  # first_mb_in_slice = 0 as Exp-Golomb number
_VP8_KEY_BIT, _VP8_FIRST = 0x01, (0x17, 0x10)  # mask and value: partition 0 begins (RFC 7741)
H264, VP8 = "h264", "vp8"


@dataclass(frozen=True)
class ReceiverSettings:
    """How long to wait for what, where to listen, and what may come.

    `addresses` are those of this machine that are offered to the browser.
    """

    addresses: list[str]
    stun_servers: list[str]
    wait_s: float
    silence_s: float
    max_picture_bytes: int


@dataclass(frozen=True, eq=False)
class ReceivedPicture:
    """One coded picture as sent; H.264 in Annex-B form. Numbers count lost pictures too.

    With `clock_jumped`, from this picture on `sender_ns` is of another clock than before.
    """

    codec: str
    data: bytes
    is_key: bool
    sender_ns: int
    number: int
    arrival_ns: int
    clock_jumped: bool = False


class Receiver:
    """Takes one browser's video, in the loop that it is made in; `close` must be awaited.

    `take` gets every whole picture; `connected` is called once, before it; `ended` is called once
    with the reason when the connection breaks, or stays silent. None of them may wait. `loss`
    counts the packets that were lost or late.
    """

    def __init__(
        self,
        settings: ReceiverSettings,
        *,
        take: Callable[[ReceivedPicture], None],
        connected: Callable[[], None],
        ended: Callable[[str], None],
        loss: PacketLoss | None = None,
    ) -> None:
        self._settings = settings
        self._take = take
        self._connected = connected
        self._tell_ended = ended
        self._told = False
        servers = [RTCIceServer(url) for url in settings.stun_servers]
        self._connection = RTCPeerConnection(RTCConfiguration(iceServers=servers))
        self._connection.on("connectionstatechange", self._on_state)
        self._buffer = JitterBuffer(
            settings.wait_s, settings.max_picture_bytes, time.monotonic, loss
        )
        self._clock = RtpClock()
        self._codecs: dict[int, str] = {}
        self._tap: Tap | None = None
        self._source = 0
        self._number = -1
        self._key_frames = KeyFrames(time.monotonic)
        self._limit_kbps: int | None = None
        self._limit_told_s = 0.0
        self._heard_s = time.monotonic()
        self._watching: asyncio.Task[None] | None = None
        self.codec = ""
        self._clock_jumped = False

    async def answer(self, offer: str) -> str:
        """The answer to `offer`; raises `BadOffer`, or `Untappable`."""
        offer = checked_offer(offer)
        transceiver = self._connection.addTransceiver("video", direction="recvonly")
        _prefer_h264(transceiver)
        try:
            await self._connection.setRemoteDescription(RTCSessionDescription(offer, "offer"))
            _refuse_all_but(transceiver, self._connection)
            answer = await self._connection.createAnswer()
        except Exception as error:  # whatever aiortc's parser meets in a stranger's text
            raise BadOffer(f"the offer cannot be answered: {str(error)[:200]}") from error
        if transceiver.receiver.track is None:
            raise BadOffer("the offer's video must be sendonly or sendrecv")
        self._tap = Tap(transceiver.receiver, self._on_packet, self._on_report)
        gather_on(self._connection, self._settings.addresses)
        await self._connection.setLocalDescription(answer)
        text = str(self._connection.localDescription.sdp)
        self._codecs = _codecs_in(text)
        self._watching = asyncio.ensure_future(self._watch())
        self._watching.add_done_callback(self._watch_ended)
        return completed_answer(text)

    def want_key_frame(self) -> None:
        """Ask the browser for a key frame, soon and until one comes."""
        self._key_frames.want()

    def limit_bitrate(self, kbps: int | None) -> None:
        """Keep the browser to `kbps`; None frees it."""
        self._limit_kbps = _NO_LIMIT_KBPS if kbps is None else kbps
        self._limit_told_s = 0.0

    async def close(self) -> None:
        """End the connection; the browser is told, and `ended` is not called any more."""
        self._told = True
        if self._watching:
            self._watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watching
            self._watching = None
        await self._connection.close()

    def _on_state(self) -> None:
        state = self._connection.connectionState
        if state == "connected":
            self._heard_s = time.monotonic()
            self._connected()
        elif state == "failed":
            self._ended("no way to the browser was found, or it was lost")
        elif state == "closed":
            self._ended("the browser ended the connection")

    def _ended(self, reason: str) -> None:
        if not self._told:
            self._told = True
            self._tell_ended(reason)

    def _on_report(self, ntp: int, timestamp: int) -> None:
        jumped = self._clock.report(ntp, timestamp, time.time_ns())
        self._clock_jumped |= jumped and self._number >= 0

    def _on_packet(self, rtp: RtpPacket) -> None:
        self._heard_s = time.monotonic()
        self._key_frames.sending()
        self._source = rtp.ssrc
        codec = self._codecs.get(rtp.payload_type)
        if codec is None:
            return
        data = packet_data(rtp)
        packet = Packet(
            sequence=rtp.sequence_number,
            timestamp=rtp.timestamp,
            marker=bool(rtp.marker),
            payload_type=rtp.payload_type,
            data=data,
            begins=_begins_picture(codec, data, rtp.payload),
            source=rtp.ssrc,
        )
        self._hand_on(self._buffer.add(packet))

    def _hand_on(self, pictures: list[CodedPicture]) -> None:
        for coded in pictures:
            self._number += 1 + coded.lost
            self.codec = self._codecs[coded.payload_type]
            picture = self._received(coded)
            if picture.is_key:
                self._key_frames.came()
            elif coded.lost:
                self._key_frames.want()
            self._take(picture)

    def _received(self, coded: CodedPicture) -> ReceivedPicture:
        arrival_ns = time.time_ns()
        codec = self._codecs[coded.payload_type]
        clock_jumped, self._clock_jumped = self._clock_jumped, False
        return ReceivedPicture(
            codec=codec,
            data=coded.data,
            is_key=_is_key(codec, coded.data),
            sender_ns=self._clock.sender_ns(coded.timestamp, arrival_ns),
            number=self._number,
            arrival_ns=arrival_ns,
            clock_jumped=clock_jumped,
        )

    async def _watch(self) -> None:
        """What must happen although no packet comes."""
        while True:
            await asyncio.sleep(_WATCH_S)
            self._hand_on(self._buffer.tick())
            if self._tap and self._source:
                await self._ask(self._tap)
            if time.monotonic() - self._heard_s > self._settings.silence_s:
                self._ended(f"no video came for {self._settings.silence_s:g} s")
                return

    def _watch_ended(self, watching: asyncio.Task[None]) -> None:
        error = None if watching.cancelled() else watching.exception()
        if error:
            _log.error("WebRTC: %r", error)
            self._ended(str(error))

    async def _ask(self, tap: Tap) -> None:
        missing = self._buffer.missing()
        if missing:
            await tap.ask_again(self._source, missing)
        if self._key_frames.due():
            await tap.ask_for_key_frame(self._source)
        now_s = time.monotonic()
        if self._limit_kbps is not None and now_s - self._limit_told_s > _TELL_LIMIT_S:
            self._limit_told_s = now_s
            await tap.limit_bitrate(self._source, self._limit_kbps)


def _prefer_h264(transceiver: RTCRtpTransceiver) -> None:
    """Units of H.264 can be relayed, recorded and pushed as they are; VP8 only decoded."""
    known = RTCRtpReceiver.getCapabilities("video")
    codecs = known.codecs if known else []
    transceiver.setCodecPreferences(sorted(codecs, key=lambda codec: codec.name != "H264"))


def _refuse_all_but(video: RTCRtpTransceiver, connection: RTCPeerConnection) -> None:
    for transceiver in connection.getTransceivers():
        if transceiver is not video:
            transceiver.direction = "inactive"


def _codecs_in(answer: str) -> dict[int, str]:
    """The codec of each payload type, as far as we know what to do with it."""
    for media in SessionDescription.parse(answer).media:
        if media.kind == "video":
            names = {codec.payloadType or 0: codec.name.lower() for codec in media.rtp.codecs}
            return {kind: name for kind, name in names.items() if name in (H264, VP8)}
    return {}


def _is_key(codec: str, data: bytes) -> bool:
    if codec == H264:
        return h264.IDR_SLICE in h264.nal_types(data)
    return not data[0] & _VP8_KEY_BIT


def _begins_picture(codec: str, data: bytes, payload: bytes) -> bool:
    """Whether a packet is surely the first one of its picture that a decoder needs."""
    if codec == VP8:
        mask, first = _VP8_FIRST
        return bool(payload) and payload[0] & mask == first
    at = len(START_CODE)
    if not data.startswith(START_CODE) or len(data) <= at + 1:
        return False
    kind = data[at] & 0x1F
    if kind in (h264.SLICE, h264.IDR_SLICE):
        return bool(data[at + 1] & _FIRST_SLICE_BIT)
    return kind in (h264.SPS, _ACCESS_UNIT_DELIMITER)
