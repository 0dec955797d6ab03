# SPDX-License-Identifier: Apache-2.0
"""When the sender sends what, in a time of the test's own, to a server that is not there."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import numpy as np
import pytest
from websockets.asyncio.server import ServerConnection, serve

from worldsystem_core.wire import unpack
from worldsystem_sim import sender
from worldsystem_sim.encode import AccessUnit
from worldsystem_sim.link_faults import LinkFaults
from worldsystem_sim.sender import Picture, Sender

START = b"\0\0\0\1"
KEY = AccessUnit(True, START + b"\x67abc", START + b"\x68de", START + b"\x65" + bytes(40))
BEGUN_NS = 10**18
COUNT = 450
STAMPS_NS = BEGUN_NS + np.arange(COUNT) * 66_666_667


@dataclass
class OwnTime:
    """A clock that only those who wait move on."""

    now_ns: int = BEGUN_NS
    stop_at_ns: int = 2 * BEGUN_NS
    stop: threading.Event = field(default_factory=threading.Event)

    def time_ns(self) -> int:
        return self.now_ns

    async def sleep(self, seconds: float) -> None:
        self.now_ns += round(seconds * 1e9)
        if self.now_ns >= self.stop_at_ns:
            self.stop.set()


@dataclass
class OpenLink:
    """A connection that is there, and keeps when each picture was sent."""

    time: OwnTime
    sent_ns: dict[int, int] = field(default_factory=dict)
    connections: int = 1
    opened_ns: tuple[int, ...] = ()

    async def open(self, hello: str) -> bool:
        return True

    async def send(self, message: bytes) -> bool:
        packet = unpack(message)
        if packet.type.is_picture:
            self.sent_ns[packet.frame_number] = self.time.now_ns
        return True

    async def close(self) -> None:
        pass


@pytest.fixture
def own_time(monkeypatch) -> OwnTime:
    clock = OwnTime()
    monkeypatch.setattr(sender.time, "time_ns", clock.time_ns)
    monkeypatch.setattr(sender.asyncio, "sleep", clock.sleep)
    return clock


async def pictures() -> AsyncIterator[Picture]:
    for number, stamp_ns in enumerate(STAMPS_NS):
        yield Picture(number, int(stamp_ns), KEY)


def sent(faults: LinkFaults, time: OwnTime) -> tuple[Sender, dict[int, int]]:
    """The sender after all pictures were due, and when it sent each."""
    used = Sender("ws://nowhere", {}, faults)
    used._video = link = OpenLink(time)
    asyncio.run(used.send_pictures(pictures(), time.stop))
    return used, link.sent_ns


def test_each_picture_is_late_by_its_own_delay_or_comes_right_behind_a_later_one(own_time):
    """The mean delay is three times the period: were delays added up, the last of 450 would be a
    minute late."""
    faults = LinkFaults(jitter_s=0.2, seed=3)
    _, sent_ns = sent(faults, own_time)
    delays = np.array([round(faults.of_frame(n).delay_s * 1e9) for n in range(COUNT)])
    assert list(sent_ns) == list(range(COUNT))
    assert list(sent_ns.values()) == np.maximum.accumulate(STAMPS_NS + delays).tolist()
    assert faults.counts() == {"delayed": COUNT}


def test_without_jitter_each_picture_is_sent_when_it_is_captured(own_time):
    _, sent_ns = sent(LinkFaults(), own_time)
    assert list(sent_ns.values()) == STAMPS_NS.tolist()


def test_delays_are_drawn_exponentially_up_to_five_times_the_mean():
    """A share 1 - 1/e is below the mean, and 1/e^5 = 0.7 % is cut off."""
    delays_s = np.array([LinkFaults(jitter_s=2.0).of_frame(n).delay_s for n in range(4000)])
    assert delays_s.max() == 10.0
    assert np.mean(delays_s == 10.0) == pytest.approx(np.exp(-5.0), abs=0.004)
    assert np.mean(delays_s < 2.0) == pytest.approx(1.0 - np.exp(-1.0), abs=0.03)


def test_a_picture_that_waits_for_its_delay_does_not_keep_a_flight_from_ending(own_time):
    faults = LinkFaults(jitter_s=5.0, seed=3)
    own_time.stop_at_ns = BEGUN_NS + round(0.3e9)
    assert faults.of_frame(0).delay_s > 1.0, "choose a seed whose first picture is later"
    used, sent_ns = sent(faults, own_time)
    assert own_time.now_ns - own_time.stop_at_ns < 0.2e9
    assert not sent_ns
    assert not used.stats.fate
    assert not faults.counts()


@pytest.mark.parametrize(
    ("url", "video"),
    [
        ("ws://host:5001", "ws://host:5001/ws/video"),
        ("ws://host:5001/", "ws://host:5001/ws/video"),
        ("ws://host:5001/?token=x/", "ws://host:5001/ws/video?token=x/"),
        ("ws://host:5001/under?a=1&b=?", "ws://host:5001/under/ws/video?a=1&b=?"),
    ],
)
def test_the_path_comes_between_the_server_and_what_is_asked_of_it(url, video):
    used = Sender(url, {}, LinkFaults())
    assert used._video._url == video
    assert used._phone._url == video.replace("/ws/video", "/ws/phone")


def test_a_picture_whose_burst_is_long_is_not_drawn_for_the_whole_burst_again(monkeypatch):
    """The event loop would stand still over thousands of generators a picture."""
    made = []
    generator = np.random.default_rng
    monkeypatch.setattr(np.random, "default_rng", lambda seed: made.append(seed) or generator(seed))
    faults = LinkFaults(burst_loss=1e-9, burst_frames=1000, seed=987654)
    assert not any(faults.of_frame(number).lost for number in range(2000))
    assert len(made) == 3 * 2000


def test_a_burst_loses_those_pictures_before_which_one_begins():
    """The plain law: as many pictures as a burst is long are lost from each that begins one."""
    faults = LinkFaults(burst_loss=0.02, burst_frames=7, seed=5)
    draws = [np.random.default_rng([5, 10, number]).random() for number in range(600)]
    begins = np.array(draws) < 0.02
    lost = np.convolve(begins, np.ones(7))[:600] > 0
    assert [faults.of_frame(number).lost for number in range(600)] == lost.tolist()
    assert [faults.of_frame(number).lost for number in (3, 590, 8)] == lost[[3, 590, 8]].tolist()


def test_what_is_noted_of_a_flight_of_days_is_bounded_and_all_of_it_counted():
    faults = LinkFaults()
    for number in range(30_000):
        faults.note("lost", number)
    assert faults.counts() == {"lost": 30_000}
    assert list(faults.done["lost"]) == list(range(20_000, 30_000))


@pytest.mark.parametrize(
    "text",
    ["hello", "[1]", "null", '{"type": "set_bitrate"}', '{"type": "set_bitrate", "kbps": "much"}'],
)
def test_what_a_server_says_that_is_none_of_ours_does_not_end_the_listening(text):
    async def talk(socket: ServerConnection) -> None:
        await socket.send(text)
        await socket.send('{"type": "request_key_frame", "reason": "lost"}')
        await socket.wait_closed()

    async def listen() -> list[str]:
        async with serve(talk, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            drone = Sender(f"ws://127.0.0.1:{port}", {}, LinkFaults())
            assert await drone._video.open("{}")
            async with asyncio.timeout(5.0):
                while not drone.stats.key_frames_asked:
                    await asyncio.sleep(0.01)
            await drone.close()
            return drone.stats.key_frames_asked

    assert asyncio.run(listen()) == ["lost"]
