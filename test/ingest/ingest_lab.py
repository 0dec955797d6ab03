# SPDX-License-Identifier: Apache-2.0
"""Synthetic video whose pictures tell their own number, and a sink that remembers."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from worldsystem_core import wire
from worldsystem_core.frames import Camera, EncodedFrame, Frame
from worldsystem_core.telemetry import GpsFix, ImuSample, Telemetry
from worldsystem_core.wire import PacketType, VideoPacket
from worldsystem_ingest.config import IngestConfig
from worldsystem_ingest.server import ServerSource

WIDTH, HEIGHT, BARS = 160, 96, 10


def numbered_picture(number: int) -> np.ndarray:
    """A picture with `number` in binary as bars, the most significant on the left."""
    bars = [(number >> bit) & 1 for bit in reversed(range(BARS))]
    row = np.repeat(np.array(bars, np.uint8) * 180 + 40, WIDTH // BARS)
    picture = np.broadcast_to(row[None, :, None], (HEIGHT, WIDTH, 3)).copy()
    picture[-16:] = np.random.default_rng(number).integers(90, 160, (16, WIDTH, 3))
    return picture


def number_in(rgb: np.ndarray) -> int:
    """The number that a decoded picture shows."""
    bars = rgb[: HEIGHT - 24].mean(axis=(0, 2)).reshape(BARS, -1).mean(axis=1) > 128
    return int("".join(str(int(bar)) for bar in bars), 2)


@dataclass(frozen=True)
class AccessUnit:
    """One coded picture; `shows` is its number in display order."""

    data: bytes
    is_key: bool
    shows: int


def encode(
    count: int, *, gop: int = 10, b_frames: int = 0, pictures: Callable = numbered_picture, **x264
) -> list[AccessUnit]:
    """Annex-B access units in coding order; key frames carry SPS and PPS.

    The same are given when they are asked for again: with B pictures x264 does not make the same
    bytes twice on every processor.
    """
    return list(_encoded(count, gop, b_frames, pictures, tuple(sorted(x264.items()))))


@functools.lru_cache(maxsize=32)
def _encoded(
    count: int, gop: int, b_frames: int, pictures: Callable, x264: tuple[tuple[str, str], ...]
) -> tuple[AccessUnit, ...]:
    context = av.CodecContext.create("libx264", "w")
    context.height, context.width = pictures(0).shape[:2]
    context.pix_fmt = "yuv420p"
    context.time_base, context.framerate = Fraction(1, 30), Fraction(30)
    params = f"keyint={gop}:min-keyint={gop}:scenecut=0:bframes={b_frames}:b-adapt=0:threads=1"
    context.options = {"preset": "veryfast", "x264-params": params, **dict(x264)}
    packets = []
    for number in range(count):
        picture = av.VideoFrame.from_ndarray(pictures(number), format="rgb24")
        picture.pts = number
        packets += context.encode(picture)
    packets += context.encode(None)
    return tuple(AccessUnit(bytes(packet), packet.is_keyframe, packet.pts) for packet in packets)


def write_video(path: Path, count: int, *, codec: str = "libx264", **options: str) -> Path:
    """A video file of numbered pictures at 25 fps."""
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.gop_size = 10
        for number in range(count):
            picture = av.VideoFrame.from_ndarray(numbered_picture(number), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


@dataclass
class MemorySink:
    """Keeps everything it is given; `on_frame` may hold the source up."""

    units: list[EncodedFrame] = field(default_factory=list)
    frames: list[Frame] = field(default_factory=list)
    cameras: list[tuple[Camera, str]] = field(default_factory=list)
    telemetry: list[tuple[Telemetry, str]] = field(default_factory=list)
    drops: list[tuple[int, str]] = field(default_factory=list)
    on_frame: Callable[[Frame], None] = lambda frame: None

    def encoded(self, unit: EncodedFrame) -> None:
        self.units.append(unit)

    def frame(self, frame: Frame) -> None:
        self.on_frame(frame)
        self.frames.append(frame)

    def camera(self, camera: Camera, stream: str) -> None:
        self.cameras.append((camera, stream))

    def measured(self, sample: Telemetry, stream: str) -> None:
        self.telemetry.append((sample, stream))

    def dropped(self, frame_id: int, reason: str, stream: str) -> None:
        self.drops.append((frame_id, reason))

    @property
    def samples(self) -> list[ImuSample]:
        return [sample for sample, _ in self.telemetry if isinstance(sample, ImuSample)]

    @property
    def fixes(self) -> list[GpsFix]:
        return [sample for sample, _ in self.telemetry if isinstance(sample, GpsFix)]

    @property
    def ids(self) -> list[int]:
        return [frame.id for frame in self.frames]

    @property
    def settled(self) -> list[int]:
        """Every id that ended, sorted; each must be there once."""
        return sorted(self.ids + [frame_id for frame_id, _ in self.drops])

    def wait_settled(self, count: int, timeout_s: float = 10.0) -> None:
        wait_until(lambda: len(self.settled) >= count, timeout_s)


def wait_until(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.01)


@dataclass
class RunningServer:
    """A server on a free port with its sink."""

    source: ServerSource
    sink: MemorySink
    port: int
    stop: threading.Event
    errors: list[BaseException]

    def url(self, path: str) -> str:
        return f"ws://127.0.0.1:{self.port}{path}"


@contextlib.contextmanager
def serving(sink: MemorySink | None = None, **settings: object) -> Iterator[RunningServer]:
    """Run a server in a thread and join it at the end."""
    sink, stop, errors = sink or MemorySink(), threading.Event(), []
    source = ServerSource(IngestConfig(**{"port": 0, "decode_queue_frames": 500, **settings}))

    def run() -> None:
        try:
            source.run(sink, stop)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield RunningServer(source, sink, source.wait_port(5.0), stop, errors)
    finally:
        stop.set()
        thread.join(10.0)
        assert not thread.is_alive()


def packets_of(
    units: list[AccessUnit], *, first: int = 0, sender_ns: int | None = None, start_codes=True
) -> list[bytes]:
    """The drone app's messages for `units`: parameter sets, then pictures without them."""
    stamp = time.time_ns() if sender_ns is None else sender_ns
    messages = []
    for at, unit in enumerate(units):
        sets, picture = split_sets(unit.data)
        if unit.is_key:
            for nal in sets:
                kind = PacketType.SPS if nal[0] & 31 == 7 else PacketType.PPS
                payload = wire.START_CODE + nal if start_codes else nal
                messages.append(VideoPacket(type=kind, sender_ns=stamp, payload=payload))
        payload = wire.START_CODE + picture if start_codes else picture
        messages.append(
            VideoPacket(
                type=PacketType.KEY_FRAME if unit.is_key else PacketType.FRAME,
                sender_ns=stamp + at * 33_000_000,
                payload=payload,
                frame_number=first + at,
            )
        )
    return [wire.pack(message) for message in messages]


def split_sets(annexb: bytes) -> tuple[list[bytes], bytes]:
    """The SPS and PPS of an access unit, and its one slice, without start codes."""
    nals = [
        nal.rstrip(b"\0") for nal in annexb.replace(b"\0\0\0\1", b"\0\0\1").split(b"\0\0\1")[1:]
    ]
    return [n for n in nals if n[0] & 31 in (7, 8)], next(n for n in nals if n[0] & 31 in (1, 5))


async def send(
    url: str, messages: list[bytes | str], *, pause_s: float = 0.0, answers_wait_s: float = 0.05
) -> list[str]:
    """Send `messages` over one connection; gives the text answers that came."""
    import websockets

    answers: list[str] = []
    async with websockets.connect(url, max_size=None, compression=None) as socket:
        for message in messages:
            await socket.send(message)
            await asyncio.sleep(pause_s)
        with contextlib.suppress(asyncio.TimeoutError, websockets.ConnectionClosed):
            while True:
                answers.append(await asyncio.wait_for(socket.recv(), answers_wait_s))
    return answers
