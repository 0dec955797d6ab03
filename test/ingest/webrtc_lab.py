# SPDX-License-Identifier: Apache-2.0
"""A browser's part played by aiortc: it offers video, sends it, and can lose packets on the way."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from fractions import Fraction

import av
from aiortc import (
    MediaStreamTrack,
    RTCConfiguration,
    RTCPeerConnection,
    RTCRtpSender,
    RTCSessionDescription,
)
from ingest_lab import AccessUnit, numbered_picture

CLOCK = Fraction(1, 90_000)


class UnitsTrack(MediaStreamTrack):
    """Sends access units as they are, one every `period_s`; notes when each one was handed in."""

    kind = "video"

    def __init__(self, units: list[AccessUnit], period_s: float) -> None:
        super().__init__()
        self._units = iter(units)
        self._period_s = period_s
        self._began_s: float | None = None
        self._count = 0
        self.sent_ns: list[int] = []
        self.done = asyncio.Event()

    async def recv(self) -> av.Packet:
        self._began_s = self._began_s or time.monotonic()
        await asyncio.sleep(self._began_s + self._count * self._period_s - time.monotonic())
        unit = next(self._units, None)
        if unit is None:
            self.done.set()
            await asyncio.Event().wait()
            raise AssertionError
        packet = av.Packet(unit.data)
        packet.pts = round(self._count * self._period_s / CLOCK)
        packet.time_base = CLOCK
        self._count += 1
        self.sent_ns.append(time.time_ns())
        return packet


class PicturesTrack(MediaStreamTrack):
    """Sends pictures that aiortc encodes, one every `period_s`."""

    kind = "video"

    def __init__(self, count: int, period_s: float, picture: Callable = numbered_picture) -> None:
        super().__init__()
        self._count, self._period_s, self._picture = count, period_s, picture
        self._at = 0
        self._began_s: float | None = None
        self.done = asyncio.Event()

    async def recv(self) -> av.VideoFrame:
        self._began_s = self._began_s or time.monotonic()
        await asyncio.sleep(self._began_s + self._at * self._period_s - time.monotonic())
        if self._at == self._count:
            self.done.set()
            await asyncio.Event().wait()
        frame = av.VideoFrame.from_ndarray(self._picture(self._at), format="rgb24")
        frame = frame.reformat(format="yuv420p")
        frame.pts, frame.time_base = round(self._at * self._period_s / CLOCK), CLOCK
        self._at += 1
        return frame


@dataclass
class Link:
    """Loses a share of the packets; `for_good` loses their retransmissions as well."""

    loss: float = 0.0
    for_good: bool = False
    seed: int = 0
    lost: int = 0
    sent: int = 0
    _source: bytes = b""

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def carries(self, rtp: bytes) -> bool:
        """Whether `rtp` arrives; the first packets do, and retransmissions have their own SSRC."""
        self.sent += 1
        self._source = self._source or rtp[8:12]
        again = rtp[8:12] != self._source
        if self.sent > 20 and ((again and self.for_good) or self._random.random() < self.loss):
            self.lost += 1
            return False
        return True


def lossy(connection: RTCPeerConnection, link: Link) -> None:
    """Let `link` decide about each RTP packet of `connection`, before it is encrypted."""
    transport = connection.getSenders()[0].transport
    send = transport._send_rtp

    async def send_or_lose(data: bytes) -> None:
        is_rtcp = 192 <= data[1] <= 223
        if is_rtcp or link.carries(data):
            await send(data)

    transport._send_rtp = send_or_lose


@contextlib.asynccontextmanager
async def offering(
    track: MediaStreamTrack, codec: str = "H264", link: Link | None = None
) -> AsyncIterator[RTCPeerConnection]:
    """A connection that wants to send `track` as `codec`; not yet offered to anyone."""
    connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    transceiver = connection.addTransceiver(track, direction="sendonly")
    codecs = RTCRtpSender.getCapabilities("video").codecs
    transceiver.setCodecPreferences([c for c in codecs if c.name in (codec, "rtx")])
    if link:
        lossy(connection, link)
    try:
        yield connection
    finally:
        await connection.close()


async def offer_of(connection: RTCPeerConnection) -> str:
    await connection.setLocalDescription(await connection.createOffer())
    return connection.localDescription.sdp


async def take_answer(connection: RTCPeerConnection, answer: str) -> None:
    await connection.setRemoteDescription(RTCSessionDescription(answer, "answer"))


async def until(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        await asyncio.sleep(0.01)


def nals(annexb: bytes) -> list[bytes]:
    """The NAL units without start codes, which may be written with three or four bytes."""
    return [n.rstrip(b"\0") for n in annexb.replace(b"\0\0\0\1", b"\0\0\1").split(b"\0\0\1")[1:]]
