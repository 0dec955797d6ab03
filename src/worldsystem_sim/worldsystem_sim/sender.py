# SPDX-License-Identifier: Apache-2.0
"""Sends a flight to a server in real time, as the drone's app does: video on one WebSocket,
telemetry on another, each of which reconnects by itself.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field

import websockets
from websockets.asyncio.client import ClientConnection, connect

from worldsystem_core.frames import Camera
from worldsystem_core.wire import pack
from worldsystem_sim import faults as fault_kinds
from worldsystem_sim.encode import AccessUnit, packets_of
from worldsystem_sim.faults import Faults

_log = logging.getLogger(__name__)
VIDEO_PATH, PHONE_PATH = "/ws/video", "/ws/phone"
_PICTURE_HEADER_BYTES = 21
_SEND_TIMEOUT_S = 5.0
_GONE = (OSError, websockets.WebSocketException, TimeoutError)


@dataclass(frozen=True)
class Backoff:
    """How long to wait before the next attempt: doubling from `first_s` to `most_s`, ±50 %."""

    first_s: float = 0.25
    most_s: float = 8.0

    def wait_s(self, attempt: int, rng: random.Random) -> float:
        """Wait before attempt number `attempt` (0 is the first repetition)."""
        return float(min(self.most_s, self.first_s * 2.0 ** min(attempt, 30))) * rng.uniform(
            0.5, 1.5
        )


@dataclass(frozen=True)
class Picture:
    """An encoded frame and when it is captured."""

    number: int
    sender_ns: int
    unit: AccessUnit


@dataclass
class SendStats:
    """What became of each picture that was due; `fate` maps its number to sent, lost, … ."""

    fate: dict[int, str] = field(default_factory=dict)
    connections: int = 0
    telemetry_sent: int = 0
    bytes_sent: int = 0

    def count(self, fate: str) -> int:
        """How many pictures met this fate."""
        return sum(found == fate for found in self.fate.values())


class Link:
    """One WebSocket that is opened when needed and opened again when it broke."""

    def __init__(self, url: str, seed: int, backoff: Backoff | None = None) -> None:
        self._url = url
        self._backoff = backoff or Backoff()
        self._rng = random.Random(seed)
        self._socket: ClientConnection | None = None
        self._attempt = 0
        self._not_before_s = 0.0
        self.connections = 0

    async def open(self, hello: str | None = None) -> bool:
        """Connect unless connected; False while it cannot be reached (tries are spaced out)."""
        if self._socket is not None:
            return True
        if time.monotonic() < self._not_before_s:
            return False
        try:
            self._socket = await connect(
                self._url, open_timeout=3.0, close_timeout=1.0, max_queue=4
            )
            self.connections += 1
            self._attempt = 0
            if hello is not None:
                await self._socket.send(hello)
        except _GONE as error:
            self._broken(error)
            return False
        return True

    async def send(self, message: bytes | str) -> bool:
        """Send over the open connection; False when there is none or it breaks."""
        if self._socket is None:
            return False
        try:
            async with asyncio.timeout(_SEND_TIMEOUT_S):
                await self._socket.send(message)
        except _GONE as error:
            self._broken(error)
            return False
        return True

    async def close(self) -> None:
        """Close in good order; the next `open` connects at once."""
        socket, self._socket = self._socket, None
        if socket is not None:
            await socket.close()

    def _broken(self, error: Exception) -> None:
        self._socket = None
        wait_s = self._backoff.wait_s(self._attempt, self._rng)
        self._attempt += 1
        self._not_before_s = time.monotonic() + wait_s
        _log.warning("%s: %s; trying again in %.1f s", self._url, error or type(error), wait_s)


class Sender:
    """Sends pictures and telemetry when they are due; pictures never wait for a broken link.

    After a reconnection pictures are held back (`waiting_for_key`) until the next key frame,
    since a decoder could not use them.
    """

    def __init__(
        self, url: str, hello: dict[str, object], faults: Faults, backoff: Backoff | None = None
    ) -> None:
        base = url.rstrip("/")
        self._hello = json.dumps(hello)
        self._faults = faults
        self._video = Link(base + VIDEO_PATH, 1, backoff)
        self._phone = Link(base + PHONE_PATH, 2, backoff)
        self.stats = SendStats()

    async def send_pictures(self, pictures: AsyncIterator[Picture]) -> None:
        """Send each picture at its capture time (host clock), with the planned faults."""
        key_sent = False
        async for picture in pictures:
            await _until(picture.sender_ns)
            planned = self._faults.of_frame(picture.number)
            if planned.disconnect:
                self._faults.note(fault_kinds.DISCONNECTED, picture.number)
                await self._video.close()
            known = self._video.connections
            if not await self._video.open(self._hello):
                self.stats.fate[picture.number] = "unconnected"
                continue
            self.stats.connections = self._video.connections
            key_sent = key_sent and known == self._video.connections
            key_sent = key_sent or picture.unit.is_key
            if not key_sent:
                self.stats.fate[picture.number] = "waiting_for_key"
                continue
            if planned.delay_s:
                self._faults.note(fault_kinds.DELAYED, picture.number)
                await asyncio.sleep(planned.delay_s)
            self.stats.fate[picture.number] = await self._send_picture(picture)

    async def _send_picture(self, picture: Picture) -> str:
        planned = self._faults.of_frame(picture.number)
        fate = "sent"
        for packet in packets_of(picture.unit, picture.number, picture.sender_ns):
            message = pack(packet)
            if packet.type.is_picture and planned.lost:
                self._faults.note(fault_kinds.LOST, picture.number)
                return fault_kinds.LOST
            if packet.type.is_picture and planned.corrupted:
                self._faults.note(fault_kinds.CORRUPTED, picture.number)
                message = self._faults.damaged(message, picture.number, _PICTURE_HEADER_BYTES)
                fate = fault_kinds.CORRUPTED
            if not await self._video.send(message):
                return "broken"
            self.stats.bytes_sent += len(message)
        return fate

    async def send_telemetry(self, messages: Iterator[tuple[int, dict[str, object]]]) -> None:
        """Send each (stamp_ns, message) as JSON at its time; what is due while away is left out."""
        for stamp_ns, message in messages:
            await _until(stamp_ns)
            if await self._phone.open() and await self._phone.send(json.dumps(message)):
                self.stats.telemetry_sent += 1

    async def close(self) -> None:
        """Close both sockets in good order."""
        await self._video.close()
        await self._phone.close()


async def _until(stamp_ns: int) -> None:
    ahead_s = (stamp_ns - time.time_ns()) * 1e-9
    await asyncio.sleep(max(0.0, ahead_s))


def video_config(camera: Camera, fps: float) -> dict[str, object]:
    """The first message on the video socket: size, rate and intrinsics."""
    return {
        "type": "video_config",
        "width": camera.width,
        "height": camera.height,
        "fps": fps,
        "codec": "h264",
        "fx": camera.fx,
        "fy": camera.fy,
        "cx": camera.cx,
        "cy": camera.cy,
    }
