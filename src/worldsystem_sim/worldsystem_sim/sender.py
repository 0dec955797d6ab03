# SPDX-License-Identifier: Apache-2.0
"""Sends a flight to a server in real time, as the drone's app does: video on one WebSocket,
telemetry on another, each of which reconnects by itself.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from worldsystem_core.frames import Camera
from worldsystem_core.wire import pack
from worldsystem_sim import faults as fault_kinds
from worldsystem_sim import link_faults
from worldsystem_sim.encode import AccessUnit, packets_of
from worldsystem_sim.fates import Fates
from worldsystem_sim.faults import Faults, FrameFaults
from worldsystem_sim.link import Backoff, Link
from worldsystem_sim.link_faults import LinkFaults, PictureFaults

VIDEO_PATH, PHONE_PATH = "/ws/video", "/ws/phone"
UNCONNECTED, WAITING_FOR_KEY = "unconnected", "waiting_for_key"
_PICTURE_HEADER_BYTES = 21
_LOOK_S = 0.1
"""So often whoever waits looks whether it is to end."""


@dataclass(frozen=True)
class SenderClock:
    """The drone's own clock: ahead of the host's by `offset_s`, and gaining `drift_ppm`."""

    offset_s: float = 0.0
    drift_ppm: float = 0.0
    since_ns: int = field(default_factory=time.time_ns)

    def of(self, host_ns: int) -> int:
        """What it shows at that time of the host; never before 1970."""
        gained_ns = round((host_ns - self.since_ns) * self.drift_ppm * 1e-6)
        return max(0, host_ns + round(self.offset_s * 1e9) + gained_ns)


@dataclass(frozen=True)
class Picture:
    """An encoded frame and when it is captured."""

    number: int
    sender_ns: int
    unit: AccessUnit


@dataclass
class SendStats:
    """What became of each picture that was due, and what the server said.

    `fate` maps a picture's number to sent, lost, … ; `connected_ns` has the host time of each
    connection, and `link_error` says why the last attempt at one failed; `asked_kbps` has the bit
    rates that the server asked for. Pictures are encoded beforehand, so requests are told here and
    change nothing.
    """

    fate: Fates = field(default_factory=Fates)
    connections: int = 0
    connected_ns: list[int] = field(default_factory=list)
    telemetry_sent: int = 0
    pings_answered: int = 0
    key_frames_asked: list[str] = field(default_factory=list)
    asked_kbps: list[int] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    link_error: str = ""

    def count(self, fate: str) -> int:
        """How many pictures met this fate."""
        return self.fate.count(fate)

    @property
    def reached(self) -> bool:
        """Whether any picture met its fate on an open connection, be it that it was damaged."""
        return len(self.fate) > self.count(UNCONNECTED) + self.count(WAITING_FOR_KEY)


class Sender:
    """Sends pictures and telemetry when they are due; pictures never wait for a broken link.

    After a reconnection pictures are held back (`waiting_for_key`) until the next key frame,
    since a decoder could not use them.
    """

    def __init__(
        self,
        url: str,
        hello: dict[str, object],
        faults: Faults,
        backoff: Backoff | None = None,
        clock: SenderClock | None = None,
    ) -> None:
        base, mark, query = url.partition("?")
        base, query = base.rstrip("/"), mark + query
        self._hello = json.dumps(hello)
        self._faults = faults
        self._clock = clock or SenderClock()
        self._video = Link(base + VIDEO_PATH + query, 1, backoff, self._receive)
        self._phone = Link(base + PHONE_PATH + query, 2, backoff, _ignore)
        self._late: tuple[int, list[bytes]] | None = None
        self.stats = SendStats()

    async def send_pictures(
        self, pictures: AsyncIterator[Picture], stop: threading.Event | None = None
    ) -> None:
        """Send each picture at its capture time (host clock), with the planned faults.

        The link keeps the order: what comes behind a delayed picture waits for it, and no longer
        than its own delay asks for. `stop` ends the waiting too.
        """
        key_sent = False
        async for picture in pictures:
            if not await _until(picture.sender_ns, stop):
                return
            planned = self._faults.of_frame(picture.number)
            if planned.disconnect:
                self._faults.note(fault_kinds.DISCONNECTED, picture.number)
                await self._video.close()
            known = self._video.connections
            if not await self._video.open(self._hello):
                self.stats.fate[picture.number] = UNCONNECTED
                self.stats.link_error = self._video.error
                continue
            self._note_connections()
            key_sent = key_sent and known == self._video.connections
            key_sent = key_sent or picture.unit.is_key
            if not key_sent:
                self.stats.fate[picture.number] = WAITING_FOR_KEY
                continue
            if planned.delay_s:
                if not await _until(picture.sender_ns + round(planned.delay_s * 1e9), stop):
                    return
                self._faults.note(fault_kinds.DELAYED, picture.number)
            self.stats.fate[picture.number] = await self._send_picture(picture, planned)

    def _note_connections(self) -> None:
        self.stats.connections = self._video.connections
        self.stats.connected_ns = self._video.opened_ns

    async def _send_picture(self, picture: Picture, planned: FrameFaults) -> str:
        """Send one picture, and after it the one that was held back to come late."""
        messages, fate = messages_of(picture, planned, self._clock, self._faults)
        if isinstance(planned, PictureFaults) and planned.reordered and self._late is None:
            self._faults.note(link_faults.REORDERED, picture.number)
            self._late = (picture.number, messages)
            return fate
        if not await self._send_all(messages):
            fate = "broken"
        late, self._late = self._late, None
        if late and not await self._send_all(late[1]):
            self.stats.fate[late[0]] = "broken"
        return fate

    async def _send_all(self, messages: list[bytes]) -> bool:
        for message in messages:
            if not await self._video.send(message):
                return False
        return True

    async def send_telemetry(self, messages: Iterator[tuple[int, dict[str, object]]]) -> None:
        """Send each (stamp_ns, message) as JSON at its time; what is due while away is left out.

        The stamps, in host time, are sent as the drone's clock shows them.
        """
        for stamp_ns, message in messages:
            await _until(stamp_ns)
            stamped = message | {"timestamp_ns": self._clock.of(stamp_ns)}
            if await self._phone.open() and await self._phone.send(json.dumps(stamped)):
                self.stats.telemetry_sent += 1

    async def close(self) -> None:
        """Close both sockets in good order; a picture that was held back is sent before."""
        if self._late and not await self._send_all(self._late[1]):
            self.stats.fate[self._late[0]] = "broken"
        self._late = None
        await self._video.close()
        await self._phone.close()

    async def _receive(self, text: str) -> None:
        """What the server says on the video's connection; pings are answered."""
        received_ns = self._clock.of(time.time_ns())
        message = _told(text)
        kind = message.get("type")
        if kind == "ping":
            answer = {"type": "pong", "id": message.get("id"), "received_ns": received_ns}
            answer["sent_ns"] = self._clock.of(time.time_ns())
            self.stats.pings_answered += await self._video.send(json.dumps(answer))
        elif kind == "request_key_frame":
            self.stats.key_frames_asked.append(str(message.get("reason")))
        elif kind == "set_bitrate":
            with suppress(KeyError, TypeError, ValueError, OverflowError):
                self.stats.asked_kbps.append(int(message["kbps"]))
        elif kind == "error":
            self.stats.errors.append(str(message.get("message")))


def messages_of(
    picture: Picture, planned: FrameFaults, clock: SenderClock, faults: Faults
) -> tuple[list[bytes], str]:
    """The packets of one picture after what `faults` planned for it, which is noted; its fate."""
    number = picture.number
    more = planned if isinstance(planned, PictureFaults) else PictureFaults()
    if more.back_s:
        faults.note(link_faults.STAMPED_BACK, number)
    stamp_ns = max(0, clock.of(picture.sender_ns) - round(more.back_s * 1e9))
    packets = packets_of(picture.unit, number, stamp_ns)
    sets = [pack(p) for p, lost in zip(packets[:-1], more.sets_lost, strict=False) if not lost]
    if len(sets) < len(packets) - 1:
        faults.note(link_faults.SETS_LOST, number)
    if planned.lost:
        faults.note(fault_kinds.LOST, number)
        return sets, fault_kinds.LOST
    message, fate = _damaged(pack(packets[-1]), number, planned, faults)
    if more.duplicated:
        faults.note(link_faults.DUPLICATED, number)
        return [*sets, message, message], fate
    return [*sets, message], fate


def _damaged(
    message: bytes, number: int, planned: FrameFaults, faults: Faults
) -> tuple[bytes, str]:
    """The picture's packet after the first kind of damage that is planned for it."""
    more = planned if isinstance(planned, PictureFaults) else PictureFaults()
    if planned.corrupted:
        faults.note(fault_kinds.CORRUPTED, number)
        return faults.damaged(message, number, _PICTURE_HEADER_BYTES), fault_kinds.CORRUPTED
    if isinstance(faults, LinkFaults) and more.truncated:
        faults.note(link_faults.TRUNCATED, number)
        return faults.cut(message, number, _PICTURE_HEADER_BYTES), link_faults.TRUNCATED
    if isinstance(faults, LinkFaults) and more.flipped:
        faults.note(link_faults.FLIPPED, number)
        return faults.flip(message, number, _PICTURE_HEADER_BYTES), link_faults.FLIPPED
    return message, "sent"


def _told(text: str) -> dict[str, Any]:  # JSON of any server
    """What the server says; empty where it is nothing of our protocol, as others say."""
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return message if isinstance(message, dict) else {}


async def _ignore(text: str) -> None:
    """Answers on the telemetry's connection; reading keeps the connection alive."""


async def _until(stamp_ns: int, stop: threading.Event | None = None) -> bool:
    """Wait for a time of the host's clock; False when it was stopped before."""
    while stop is None or not stop.is_set():
        ahead_s = (stamp_ns - time.time_ns()) * 1e-9
        await asyncio.sleep(min(max(0.0, ahead_s), _LOOK_S))
        if ahead_s <= _LOOK_S:
            return True
    return False


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
