# SPDX-License-Identifier: Apache-2.0
"""Full-HD video to send, a sender and consumers, each for a process of its own.

Each picture carries, in a filler NAL unit that decoders skip, its number and the time it was sent.
Times are of CLOCK_MONOTONIC [ns], which all processes of a machine share.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import selectors
import socket
import struct
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import websockets

from worldsystem_core import wire
from worldsystem_core.wire import START_CODE, PacketType, VideoPacket

FPS = 30
_GOP = 30
_SECONDS = 4
_TAG = struct.Struct(">20s20s1s")
_READ_BYTES = 1 << 20


@dataclass(frozen=True)
class Picture:
    """One coded picture with its parameter sets."""

    data: bytes
    is_key: bool


def video(mbps: float) -> list[Picture]:
    """Four seconds of 1080p30 that loop; encoded once and kept in the folder for such files."""
    folder = Path(tempfile.gettempdir()) / "worldsystem_bench"
    folder.mkdir(exist_ok=True)
    path = folder / f"moving_noise_1080p_{mbps:g}mbps_v1.mp4"
    if not path.is_file():
        partial = path.with_suffix(f".{os.getpid()}.mp4")
        _encode(partial, mbps)
        partial.rename(path)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        to_annexb = av.bitstream.BitStreamFilterContext("h264_mp4toannexb", stream)
        return [
            Picture(bytes(packet), packet.is_keyframe)
            for coded in container.demux(stream)
            for packet in (to_annexb.filter(coded) if coded.size else ())
        ]


def _encode(path: Path, mbps: float) -> None:
    scene = np.random.default_rng(7).integers(0, 256, (68, 240 + _SECONDS * FPS, 3), np.uint8)
    with av.open(str(path), "w") as container:
        rate = round(mbps * 1e6)
        stream = container.add_stream("libx264", rate=FPS, bit_rate=rate)
        stream.width, stream.height, stream.pix_fmt = 1920, 1080, "yuv420p"
        stream.time_base = Fraction(1, FPS)
        limits = f"vbv-maxrate={rate // 1000}:vbv-bufsize={rate // 2000}:nal-hrd=cbr"
        stream.options = {
            "preset": "ultrafast",
            "tune": "zerolatency",
            "x264-params": f"keyint={_GOP}:min-keyint={_GOP}:scenecut=0:{limits}",
        }
        for number in range(_SECONDS * FPS):
            part = scene[:, number : number + 240]
            picture = av.VideoFrame.from_ndarray(
                np.repeat(np.repeat(part, 8, axis=0), 8, axis=1)[:1080], format="rgb24"
            )
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))


def tag(number: int) -> bytes:
    """A filler NAL unit with `number` and the time now."""
    fields = (b"%020d" % number, b"%020d" % time.monotonic_ns(), b"\x80")
    return START_CODE + b"\x0c" + _TAG.pack(*fields)


def read_tag(message: bytes | memoryview) -> tuple[int, int]:
    """The number of a picture, and when it was sent [ns]."""
    number, sent_ns, _ = _TAG.unpack(message[-_TAG.size :])
    return int(number), int(sent_ns)


async def send(port: int, pictures: list[Picture], seconds: float) -> int:
    """Send at 30 pictures a second as the drone app does; gives how many were due.

    A server that stops reading ends the sending a second late, with fewer sent than due.
    """
    url = f"ws://127.0.0.1:{port}/ws/video"
    async with websockets.connect(url, max_size=None, compression=None, close_timeout=1.0) as ws:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds + 1.0):
                await _send_at_pace(ws, pictures, round(seconds * FPS))
        await asyncio.sleep(1.0)
    return round(seconds * FPS)


async def _send_at_pace(
    ws: websockets.ClientConnection, pictures: list[Picture], count: int
) -> None:
    began_s = time.monotonic()
    for number in range(count):
        await asyncio.sleep(max(0.0, began_s + number / FPS - time.monotonic()))
        picture = pictures[number % len(pictures)]
        packet = VideoPacket(
            type=PacketType.KEY_FRAME if picture.is_key else PacketType.FRAME,
            sender_ns=time.time_ns(),
            payload=picture.data + tag(number),
            frame_number=number,
        )
        await ws.send(wire.pack(packet))


@dataclass
class Received:
    """What one consumer got: the number of each picture, and how late it was complete [ms]."""

    numbers: list[int] = field(default_factory=list)
    late_ms: list[float] = field(default_factory=list)


class Consumer:
    """A consumer that costs little: it reads in place, and unwraps no more than the tags."""

    def __init__(self, port: int, path: str = "/ws/h264_stream") -> None:
        self.received = Received()
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10.0)
        self._buffer = bytearray(_READ_BYTES)
        self._view = memoryview(self._buffer)
        self._filled = 0
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall(
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
            "".encode()
        )
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += self.socket.recv(1)
        if b" 101 " not in answer.split(b"\r\n")[0]:
            raise ConnectionError(f"no WebSocket: {answer[:80]!r}")

    def read(self) -> None:
        """Take what came; `ConnectionError` when the server hung up."""
        size = self.socket.recv_into(self._view[self._filled :])
        if not size:
            raise ConnectionError("the server hung up")
        self._filled += size
        begin = 0
        while end := self._end_of_message(begin):
            number, sent_ns = read_tag(self._view[begin:end])
            self.received.numbers.append(number)
            self.received.late_ms.append((time.monotonic_ns() - sent_ns) * 1e-6)
            begin = end
        if begin:
            self._view[: self._filled - begin] = self._view[begin : self._filled]
            self._filled -= begin

    def _end_of_message(self, begin: int) -> int:
        """Where the message that begins there ends; 0 when it is not complete."""
        head = self._buffer[begin : min(begin + 10, self._filled)]
        if len(head) < 10:
            return 0
        size, head_size = head[1] & 127, 2
        if size == 126:
            size, head_size = int.from_bytes(head[2:4], "big"), 4
        elif size == 127:
            size, head_size = int.from_bytes(head[2:10], "big"), 10
        end = begin + head_size + size
        return end if end <= self._filled else 0


def connect(port: int, healthy: int, stalled: int) -> list[Consumer]:
    """Consumers of the relay; the `stalled` last have little room for what nobody reads."""
    consumers = [Consumer(port) for _ in range(healthy + stalled)]
    for consumer in consumers[healthy:]:
        consumer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
    return consumers


def read_until(consumers: list[Consumer], stop: Callable[[], bool]) -> list[Received]:
    """What each consumer got until `stop`."""
    with selectors.DefaultSelector() as selector:
        for consumer in consumers:
            selector.register(consumer.socket, selectors.EVENT_READ, consumer)
        while not stop():
            for key, _ in selector.select(0.1):
                try:
                    key.data.read()
                except ConnectionError:
                    selector.unregister(key.fileobj)
    return [consumer.received for consumer in consumers]
