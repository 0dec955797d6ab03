# SPDX-License-Identifier: Apache-2.0
"""The simulator's sender with its faults against a real server, and what should come of it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from functools import cache

from ingest_lab import MemorySink, RunningServer, encode, number_in

from worldsystem_core.frames import Frame
from worldsystem_sim.encode import AccessUnit, split_access_unit
from worldsystem_sim.link import Backoff
from worldsystem_sim.link_faults import LinkFaults
from worldsystem_sim.sender import Picture, Sender, SenderClock, SendStats

GOP, CLIP = 15, 120
DAMAGED = ("corrupted", "truncated", "bit_flipped")
_LEAD_NS = 200_000_000


@cache
def clip(gop: int = GOP) -> list[AccessUnit]:
    """Encoded pictures that show their numbers; they repeat after 120."""
    return [split_access_unit(unit.data) for unit in encode(CLIP, gop=gop)]


@dataclass
class TimedSink(MemorySink):
    """Also remembers when each picture came out."""

    shown_ns: list[int] = field(default_factory=list)
    shows: list[int] = field(default_factory=list)

    def frame(self, frame: Frame) -> None:
        self.shown_ns.append(time.time_ns())
        self.shows.append(number_in(frame.rgb) if frame.rgb.shape[1] == 160 else -1)
        super().frame(frame)


@dataclass(frozen=True)
class Flight:
    """What is sent: so many pictures at that rate, in groups of `gop`, or until `stop` is set."""

    count: int = 450
    fps: float = 450.0
    gop: int = GOP
    first: int = 0
    stop: threading.Event | None = None

    async def pictures(self) -> AsyncIterator[Picture]:
        start_ns = time.time_ns() + _LEAD_NS
        for number in range(self.first, self.first + self.count):
            if self.stop and self.stop.is_set():
                return
            stamp_ns = start_ns + round((number - self.first) * 1e9 / self.fps)
            yield Picture(number, stamp_ns, clip(self.gop)[number % CLIP])


def send_flight(
    url: str,
    faults: LinkFaults,
    flight: Flight,
    *,
    backoff: Backoff | None = None,
    clock: SenderClock | None = None,
) -> SendStats:
    """Send a flight to the server at `url`; gives what the sender says it did."""
    hello: dict[str, object] = {"type": "video_config", "width": 160, "height": 96}
    sender = Sender(url, hello, faults, backoff, clock)

    async def fly() -> None:
        await sender.send_pictures(flight.pictures())
        await sender.close()

    asyncio.run(fly())
    return sender.stats


def send_samples(url: str, seconds: float, rate_hz: float = 50.0) -> SendStats:
    """Send IMU samples to the server at `url` for so long, as the drone's telemetry goes."""
    sender, start_ns = Sender(url, {}, LinkFaults()), time.time_ns() + _LEAD_NS
    still = {"type": "imu", "acceleration": [0, 0, 9.81], "angular_velocity": [0, 0, 0]}
    stamps_ns = (start_ns + round(n * 1e9 / rate_hz) for n in range(round(seconds * rate_hz)))

    async def fly() -> None:
        await sender.send_telemetry((stamp_ns, still) for stamp_ns in stamps_ns)
        await sender.close()

    asyncio.run(fly())
    return sender.stats


@dataclass(frozen=True)
class Expected:
    """What must become of the pictures, from what the sender did."""

    lost: frozenset[int]
    damaged: frozenset[int]
    decodable: frozenset[int]
    last: int

    @staticmethod
    def of(stats: SendStats, faults: LinkFaults, gop: int = GOP) -> Expected:
        """A picture can be decoded when it and all before it in its group came whole.

        Its group must begin with a key frame for which both parameter sets had come by then. What
        was never sent behind the last picture that came is no loss that a server can know of.
        """
        late = set(faults.done.get("reordered", ()))
        arrived = {n for n, fate in stats.fate.items() if fate == "sent" or fate in DAMAGED}
        last = max(arrived - late)
        lost = frozenset(n for n in stats.fate if n < last and (n not in arrived or n in late))
        damaged = frozenset(n for n in arrived if stats.fate[n] in DAMAGED)
        decodable, have, whole = set(), [False, False], False
        for number in sorted(stats.fate):
            if number % gop == 0:
                reached = stats.fate[number] not in ("unconnected", "waiting_for_key")
                sets_lost = faults.of_frame(number).sets_lost
                came = [reached and not gone for gone in sets_lost]
                have = [had or now for had, now in zip(have, came, strict=True)]
                whole = all(have)
            whole = whole and number in arrived and number not in damaged and number not in late
            if whole:
                decodable.add(number)
        return Expected(lost, damaged, frozenset(decodable), last)


def check_ledger(sink: TimedSink, expected: Expected) -> None:
    """Every picture ended exactly once, for the reason that the sender knows."""
    assert sink.settled == sorted(set(sink.settled)), "a picture ended twice"
    assert set(sink.settled) == set(range(min(sink.settled), expected.last + 1))
    drops = dict(sink.drops)
    first = min(sink.settled)
    assert {n for n, why in drops.items() if why == "lost_on_link"} == {
        n for n in expected.lost if n > first
    }
    assert {n for n, why in drops.items() if why == "corrupt"} <= expected.damaged
    known = {"lost_on_link", "corrupt", "no_key_frame", "no_parameter_sets"}
    assert set(drops.values()) <= known
    assert expected.decodable <= set(sink.ids), sorted(expected.decodable - set(sink.ids))[:9]
    if not expected.damaged:  # what damage does can look whole
        assert set(sink.ids) == set(expected.decodable)
    right = {
        n: shown for n, shown in zip(sink.ids, sink.shows, strict=True) if n in expected.decodable
    }
    assert all(shown == n % CLIP for n, shown in right.items())


class BreakableLink:
    """A TCP link to a server that can be torn, with a reset, and mended."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._loop = asyncio.new_event_loop()
        self._ends: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._thread = threading.Thread(target=self._loop.run_forever, name="breakable-link")
        self._thread.start()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.mend()

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    def tear(self) -> None:
        """Reset every connection and refuse new ones."""
        self._call(self._tear())

    def mend(self) -> None:
        """Let connections through again."""
        self._call(self._mend())

    def close(self) -> None:
        self.tear()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5.0)
        self._loop.close()

    def _call(self, work) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(5.0)

    async def _mend(self) -> None:
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", self.port)

    async def _tear(self) -> None:
        if self._server:
            self._server.close()
        for end in list(self._ends):
            end.transport.abort()
        self._ends.clear()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        self._ends |= {writer, far_writer}
        await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))
        self._ends -= {writer, far_writer}


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


@contextlib.contextmanager
def breakable(server: RunningServer) -> Iterator[BreakableLink]:
    """A link to `server` that the test may tear."""
    link = BreakableLink(server.port)
    try:
        yield link
    finally:
        link.close()
