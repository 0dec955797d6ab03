# SPDX-License-Identifier: Apache-2.0
"""A session over several connections: what a break cost, another sender, another clock."""

from __future__ import annotations

import asyncio
import json
import math
import time

import pytest
import websockets
from ingest_lab import RunningServer, encode, packets_of, serving
from test_session import Clock, Heard

from worldsystem_ingest.sender.feedback import trouble_of
from worldsystem_ingest.sender.session import SenderSession

T = 1_780_000_000 * 10**9
SECOND_NS = 10**9
IMU = {"type": "imu", "acceleration": [0, 0, 9.81], "angular_velocity": [0.1, 0, 0]}


class Drone:
    """Sends 30 pictures a second to a session, on a clock that the test sets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.heard, self.clock = Heard(), Clock()
        self.session = session = self.heard.session()
        self.clock.now_s = float(math.ceil(time.monotonic()))
        for timed in (session.numbers, session.bandwidth, session._bitrate, session._link._loss):
            monkeypatch.setattr(timed, "_now_s", self.clock)
        self._data = encode(1)[0].data

    def sends(self, numbers: range) -> None:
        """Pictures of these numbers, from now on; the session looks at its link each second."""
        began_s = self.clock.now_s
        for at, number in enumerate(numbers):
            self.clock.now_s = began_s + at / 30
            sender_ns = T + round(self.clock.now_s * 1e9)
            self.session.take_access_unit(
                data=self._data,
                is_key=False,
                sender_ns=sender_ns,
                number=number,
                arrival_ns=sender_ns + 5_000_000,
            )
            if at % 30 == 29:
                self.session.tick()

    def comes_back(self, peer: str = "") -> None:
        """After a minute's break, on a whole second."""
        self.session.disconnected()
        self.clock.now_s = math.ceil(self.clock.now_s) + 60.0
        self.heard.said.clear()
        self.session.connected(peer)

    @property
    def asked_for(self) -> list[object]:
        """Why each bit rate was asked for."""
        return [message["reason"] for message in self.heard.said_of("set_bitrate")]


def test_what_a_broken_connection_cost_is_no_congestion(monkeypatch):
    drone = Drone(monkeypatch)
    drone.sends(range(151))
    drone.comes_back()
    drone.clock.now_s += 0.3
    drone.sends(range(2000, 2300))
    assert drone.asked_for == []
    assert drone.session.quality.loss == 0.0
    assert drone.session.quality.loss_total == pytest.approx(1849 / 2300)
    drone.sends(range(2300, 2900, 2))
    assert set(drone.asked_for) == {"loss"}


def test_a_bit_rate_holds_for_the_sender_that_was_asked_for_it_and_for_no_other(monkeypatch):
    drone = Drone(monkeypatch)
    drone.session.connected("a")
    drone.sends(range(0, 600, 2))
    assert set(drone.asked_for) == {"loss"}
    drone.comes_back("a")
    assert drone.asked_for == ["reconnected"]
    assert drone.session.quality.asked_kbps is not None
    drone.comes_back("b")
    assert drone.session.quality.asked_kbps is None
    drone.sends(range(1000, 1300))
    assert drone.asked_for == []


@pytest.mark.parametrize("begins", [SenderSession.connected, SenderSession.phone_connected])
def test_after_a_new_connection_measurements_of_another_clock_are_soon_stamped_right(
    monkeypatch, begins
):
    heard = Heard()
    session = heard.session()

    def tell(seconds: range, behind_s: int) -> None:
        for second in seconds:
            now_ns = T + second * SECOND_NS
            monkeypatch.setattr("time.time_ns", lambda now=now_ns: now)
            session.take_telemetry(
                json.dumps(IMU | {"timestamp_ns": now_ns - behind_s * SECOND_NS})
            )

    tell(range(60), 0)
    begins(session)
    tell(range(360, 370), 30)
    stamps_ns = [sample.stamp_ns for sample in heard.sink.samples]
    late_s = [
        T / 1e9 + at - stamp / 1e9
        for at, stamp in zip(range(365, 370), stamps_ns[65:], strict=True)
    ]
    assert max(map(abs, late_s)) < 1.0


def test_a_phone_that_takes_the_place_of_another_is_soon_stamped_by_its_own_clock(monkeypatch):
    now_ns = [T]
    monkeypatch.setattr("time.time_ns", lambda: now_ns[0])

    async def phone(server: RunningServer, seconds: int, behind_s: int) -> None:
        telemetry = server.sink.telemetry
        async with websockets.connect(server.url("/ws/phone")) as socket, asyncio.timeout(10):
            for _ in range(seconds):
                now_ns[0] += SECOND_NS
                before = len(telemetry)
                stamp_ns = now_ns[0] - behind_s * SECOND_NS
                await socket.send(json.dumps(IMU | {"timestamp_ns": stamp_ns}))
                while len(telemetry) == before:
                    await asyncio.sleep(0.001)

    with serving() as server:
        asyncio.run(phone(server, 60, 0))
        now_ns[0] += 300 * SECOND_NS
        asyncio.run(phone(server, 10, 30))
    newest_ns = [sample.stamp_ns for sample in server.sink.samples[-5:]]
    late_s = [(now_ns[0] - stamp) / 1e9 - 4 + at for at, stamp in enumerate(newest_ns)]
    assert max(map(abs, late_s)) < 1.0


def test_the_jitter_of_a_sender_is_not_that_of_the_next_whose_times_cannot_be_used():
    session, data = Heard().session(), encode(1)[0].data

    def sends(numbers: range, sender_ns: int) -> None:
        for number in numbers:
            at_ns = number * 200_000_000
            session.take_access_unit(
                data=data,
                is_key=False,
                sender_ns=sender_ns and sender_ns + at_ns,
                number=number,
                arrival_ns=T + at_ns + number % 2 * 190_000_000,
            )
        session.tick()

    sends(range(60), T)
    assert trouble_of(session.quality) == "jitter"
    session.connected("another")
    sends(range(60, 120), 0)
    assert session.quality.jitter_ms is None
    assert session.quality.queue_delay_ms is None
    assert trouble_of(session.quality) == ""


def test_a_key_frame_is_not_given_the_parameter_sets_of_another_sender():
    heard = Heard()
    session = heard.session()
    for packet in packets_of(encode(1)):
        session.take_packet(packet)
    session.connected("another")
    session.take_packet(packets_of(encode(1))[-1])
    session.take_packet(packets_of(encode(2))[-1])
    assert heard.ids == [0]
    assert heard.sink.drops == [(1, "no_parameter_sets"), (2, "no_key_frame")]
    assert heard.said_of("request_key_frame")[0]["reason"] == "no_parameter_sets"
    for packet in packets_of(encode(1), first=2):
        session.take_packet(packet)
    assert heard.ids == [0, 3]


def test_a_sender_from_another_address_is_stamped_by_its_own_clock_from_its_first_picture():
    """Also after a break that is longer than the two clocks differ."""
    heard, data = Heard(), encode(1)[0].data
    session = heard.session()
    for peer, begin_s, ahead_s in (("a", 0, 30), ("b", 100, 0), ("a", 200, 30), ("b", 300, -30)):
        session.connected(peer)
        for number in range(60):
            arrival_ns = T + begin_s * SECOND_NS + number * 33_000_000
            session.take_access_unit(
                data=data,
                is_key=True,
                sender_ns=arrival_ns - 5_000_000 + ahead_s * SECOND_NS,
                number=number,
                arrival_ns=arrival_ns,
            )
        session.disconnected()
    units = [unit for unit, _ in heard.delivered]
    assert len(units) == 240
    assert max(unit.arrival_ns - unit.stamp_ns for unit in units) < SECOND_NS
    stamps_ns = [unit.stamp_ns for unit in units]
    assert stamps_ns == sorted(set(stamps_ns))
