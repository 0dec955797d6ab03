# SPDX-License-Identifier: Apache-2.0
"""One sender's session: damaged packets, restarts, and what the sender is told."""

from __future__ import annotations

import contextlib
import json
import math
import time
import tracemalloc
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pytest
from ingest_lab import MemorySink, encode, packets_of

from worldsystem_core import wire
from worldsystem_core.errors import ProtocolError
from worldsystem_core.frames import EncodedFrame
from worldsystem_ingest.config import IngestConfig
from worldsystem_ingest.sender.clock import ClockEstimator
from worldsystem_ingest.sender.feedback import BitrateControl, KeyFrameRequests
from worldsystem_ingest.sender.quality import Bandwidth, LinkMonitor, LinkQuality
from worldsystem_ingest.sender.session import SenderSession


@dataclass
class Heard:
    """A session with all that comes out of it."""

    sink: MemorySink = field(default_factory=MemorySink)
    delivered: list[tuple[EncodedFrame, bool]] = field(default_factory=list)
    said: list[dict[str, object]] = field(default_factory=list)

    def session(self, **settings: object) -> SenderSession:
        def deliver(unit: EncodedFrame, after_loss: bool) -> None:
            self.delivered.append((unit, after_loss))

        config = IngestConfig(**settings)
        session = SenderSession(self.sink, deliver, "camera", config, self.said.append)
        session.connected()
        return session

    @property
    def ids(self) -> list[int]:
        return [unit.id for unit, _ in self.delivered]

    def said_of(self, kind: str) -> list[dict[str, object]]:
        return [message for message in self.said if message["type"] == kind]


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.mark.parametrize("seed", range(4))
def test_2500_mutated_packets_raise_nothing_else_and_settle_no_id_twice(seed):
    rng = np.random.default_rng(seed)
    heard, whole = Heard(), packets_of(encode(60))
    session = heard.session()
    began_s = time.monotonic()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for at in range(2500):
        content = bytearray(whole[at % len(whole)])
        kind = int(rng.integers(4))
        if kind == 0:
            content = content[: int(rng.integers(len(content)))]
        elif kind == 1:
            for _ in range(int(rng.integers(1, 9))):
                content[int(rng.integers(len(content)))] ^= 1 << int(rng.integers(8))
        elif kind == 2:
            content[int(rng.integers(21))] = int(rng.integers(256))
        with contextlib.suppress(ProtocolError):
            session.take_packet(bytes(content))
    ended = heard.ids + [frame_id for frame_id, _ in heard.sink.drops]
    assert max(Counter(ended).values()) == 1
    assert sorted(ended) == list(range(min(ended), max(ended) + 1))
    assert len(ended) < 2500 + 3000 + 300 * (time.monotonic() - began_s) + 1
    heard.sink.units.clear()
    heard.delivered.clear()
    heard.sink.drops.clear()
    assert tracemalloc.get_traced_memory()[0] - before < 2_000_000
    tracemalloc.stop()


def test_a_restart_in_the_middle_of_a_group_waits_for_a_key_frame():
    heard, packets = Heard(), packets_of(encode(30))
    session = heard.session()
    for packet in packets[:10]:
        session.take_packet(packet)
    session.take_control('{"type": "restart"}')
    for packet in packets[18:]:
        session.take_packet(packet)
    lost = [why for _, why in heard.sink.drops]
    assert set(lost) == {"no_key_frame"}
    first_after = next(unit for unit, _ in heard.delivered if unit.id > heard.sink.drops[-1][0])
    assert first_after.is_key
    ended = sorted(heard.ids + [n for n, _ in heard.sink.drops])
    assert ended == list(range(len(ended)))


def test_pictures_that_the_caller_decodes_wait_for_a_key_frame_after_a_restart_too():
    heard = Heard()
    session = heard.session()

    def accepted(numbers: range, key: int) -> list[int]:
        now_ns = time.time_ns()
        came = [
            session.accept(
                size_bytes=100, is_key=n == key, sender_ns=now_ns + n, number=n, arrival_ns=now_ns
            )
            for n in numbers
        ]
        return [picture.id for picture in came if picture]

    assert accepted(range(5), 0) == [0, 1, 2, 3, 4]
    session.connected("another")
    session.numbers.restart()
    assert accepted(range(1, 6), 4) == [8, 9]  # 5 to 7 refer to the other's pictures
    assert heard.sink.drops == [(n, "no_key_frame") for n in (5, 6, 7)]


def test_units_that_came_by_other_means_are_treated_as_those_of_the_app():
    by_app, by_rtp = Heard(), Heard()
    first, second = by_app.session(), by_rtp.session()
    for packet in packets_of(encode(20)):
        first.take_packet(packet)
        parsed = wire.unpack(packet)
        if parsed.type.is_picture:
            second.take_access_unit(
                data=by_app.delivered[-1][0].data,
                is_key=False,
                sender_ns=parsed.sender_ns,
                number=parsed.frame_number,
                arrival_ns=time.time_ns(),
            )
    assert by_rtp.ids == by_app.ids == list(range(20))
    assert [u.data for u, _ in by_rtp.delivered] == [u.data for u, _ in by_app.delivered]
    assert [u.is_key for u, _ in by_rtp.delivered] == [n % 10 == 0 for n in range(20)]


def test_the_link_is_described_after_each_second():
    heard = Heard()
    session = heard.session()
    assert session.quality == LinkQuality()
    for packet in packets_of(encode(30))[:-3]:
        if wire.unpack(packet).frame_number not in (4, 5, 6):
            session.take_packet(packet)
    session.tick()
    assert session.quality.loss == session.quality.loss_total == pytest.approx(3 / 27)
    assert session.quality.bandwidth_mbps > 0
    assert session.quality.clock.offset_ns is not None
    assert session.quality.jitter_ms is not None


def test_pings_are_sent_each_second_and_end_when_nobody_answers():
    heard = Heard()
    session = heard.session()
    for _ in range(30):
        session.tick()
    assert len(heard.said_of("ping")) == 10
    session.connected()
    session.tick()
    assert len(heard.said_of("ping")) == 11
    session.disconnected()
    session.tick()
    assert len(heard.said_of("ping")) == 11


def test_answered_pings_give_the_round_trip_and_false_ones_are_refused():
    heard = Heard()
    session = heard.session()
    for packet in packets_of(encode(20), sender_ns=time.time_ns() - 800_000_000):
        session.take_packet(packet)
    session.tick()
    number, now_ns = heard.said_of("ping")[0]["id"], time.time_ns()
    pong = {"type": "pong", "id": number, "received_ns": str(now_ns), "sent_ns": now_ns}
    session.take_control(json.dumps(pong | {"id": 77}))
    session.tick()
    assert session.quality.clock.round_trip_ms is None
    session.take_control(json.dumps(pong))
    session.take_control(json.dumps(pong))
    session.tick()
    assert session.quality.clock.round_trip_ms is not None
    with pytest.raises(ProtocolError, match="received_ns"):
        session.take_control('{"type": "pong", "id": 1}')


def test_a_senders_ping_is_answered_with_our_time():
    heard = Heard()
    heard.session().take_control('{"type": "ping", "id": "a"}')
    (pong,) = heard.said_of("pong")
    assert pong["id"] == "a"
    assert abs(int(str(pong["sent_ns"])) - time.time_ns()) < 10**9


@pytest.mark.parametrize("name", [None, 7, -1.5, "x" * 64])
def test_a_ping_is_answered_by_its_own_name(name):
    heard = Heard()
    heard.session().take_control(json.dumps({"type": "ping", "id": name}))
    (pong,) = heard.said_of("pong")
    assert pong["id"] == name


@pytest.mark.parametrize(
    "name",
    ["x" * 65, "x" * 10**6, [1] * 10**5, {"a": 1}, 10**30, math.nan],
    ids=["long", "huge", "list", "object", "number", "nan"],
)
def test_a_ping_with_a_huge_name_is_refused_in_few_words(name):
    """Answers wait for a sender that may read none."""
    heard = Heard()
    session = heard.session()
    with pytest.raises(ProtocolError, match="up to 64 characters") as refused:
        session.take_control(json.dumps({"type": "ping", "id": name}))
    assert len(str(refused.value)) < 200
    assert heard.said_of("pong") == []


def test_key_frames_are_asked_for_ever_more_rarely_until_one_comes():
    clock, said = Clock(), []
    requests = KeyFrameRequests(said.append, clock)
    at_s = []
    for _ in range(400):
        clock.now_s += 0.1
        before = len(said)
        requests.needed("no_key_frame")
        at_s += [clock.now_s] * (len(said) - before)
    assert np.allclose(np.diff(at_s), [1, 2, 4, 8, 8, 8, 8], atol=0.15)
    requests.came()
    clock.now_s += 10.0
    requests.tick()
    assert len(said) == requests.asked == 8


def test_a_request_that_came_too_early_is_made_up_for_while_it_is_needed():
    clock, said = Clock(), []
    requests = KeyFrameRequests(said.append, clock)
    requests.needed("corrupt")
    requests.came()
    clock.now_s += 0.2
    requests.needed("no_key_frame")
    assert len(said) == 1
    clock.now_s += 1.0
    requests.tick()
    assert [message["reason"] for message in said] == ["corrupt", "no_key_frame"]


def bitrate(said: list, clock: Clock, capacity_kbps: float, seconds: int) -> list[float]:
    """A sender that obeys, on a link that loses what exceeds its capacity."""
    control, rate_kbps, rates = BitrateControl(said.append, clock), 4000.0, []
    for _ in range(seconds):
        clock.now_s += 1.0
        loss = max(0.0, 1.0 - capacity_kbps / rate_kbps)
        quality = LinkQuality(bandwidth_mbps=min(rate_kbps, capacity_kbps) / 1e3, loss=loss)
        control.judge(quality)
        rate_kbps = float(control.asked_kbps or 4000.0)
        rates.append(rate_kbps)
    return rates


def test_the_bit_rate_falls_to_what_the_link_carries_and_stays_about_there():
    said, clock = [], Clock()
    rates = bitrate(said, clock, 1500.0, 400)
    assert np.mean(rates[60:]) == pytest.approx(1350.0, rel=0.2)
    assert max(rates[60:]) < 1.15 * 1500.0
    assert all(message["reason"] in ("loss", "clean") for message in said)
    assert len(said) < 100


def test_a_clean_link_is_left_alone_and_a_mended_one_is_freed_again():
    said, clock = [], Clock()
    assert set(bitrate(said, clock, 10_000.0, 100)) == {4000.0}
    assert not said
    control = BitrateControl(said.append, clock)
    control.judge(LinkQuality(bandwidth_mbps=4.0, loss=0.1))
    assert control.asked_kbps == 2800
    for _ in range(200):
        clock.now_s += 1.0
        control.judge(LinkQuality(bandwidth_mbps=(control.asked_kbps or 4000) / 1e3))
    assert control.asked_kbps is None
    assert said[-1] == {"type": "set_bitrate", "kbps": 4444, "reason": "clean"}  # 10 % was lost


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        ({"loss": 0.03}, "loss"),
        ({"queue_delay_ms": 250.0}, "delay"),
        ({"jitter_ms": 120.0}, "jitter"),
    ],
)
def test_loss_queues_and_jitter_lower_the_rate_to_no_less_than_the_floor(trouble, reason):
    said, clock = [], Clock()
    control = BitrateControl(said.append, clock)
    for _ in range(100):
        clock.now_s += 1.0
        control.judge(LinkQuality(bandwidth_mbps=(control.asked_kbps or 2000) / 1e3, **trouble))
    assert [message["kbps"] for message in said][-1] == 300
    assert {message["reason"] for message in said} == {reason}


def test_a_sender_that_comes_back_is_told_its_rate_again_and_given_time():
    said, clock = [], Clock()
    control = BitrateControl(said.append, clock)
    control.judge(LinkQuality(bandwidth_mbps=4.0, loss=0.1))
    control.connected()
    assert said[-1] == {"type": "set_bitrate", "kbps": 2800, "reason": "reconnected"}
    clock.now_s += 3.0
    control.judge(LinkQuality(bandwidth_mbps=2.8, loss=0.5))
    assert control.asked_kbps == 2800


def test_low_bandwidth_is_warned_of_once(caplog):
    clock = Clock()
    link = LinkMonitor("drone", ClockEstimator(30.0), 2.0)
    link.bandwidth = Bandwidth(clock, low_mbps=2.0)
    for number in range(700):
        clock.now_s += 0.1
        link.bandwidth.add(round(1.5e5 / 8))
        if number % 10 == 9:
            quality = link.quality(None, 0)
    assert quality.low_bandwidth
    assert caplog.text.count("less than 2.0") == 1


def test_a_clock_that_is_set_is_no_jitter():
    heard, packets = Heard(), packets_of(encode(60), sender_ns=10**18 * 2)
    session, now_ns = heard.session(), 2 * 10**18
    pictures = [packet for packet in map(wire.unpack, packets) if packet.type.is_picture]
    for at, packet in enumerate(pictures):
        now_ns += 33_000_000
        step_ns = -3 * 10**9 if at >= 40 else 0
        session.take_access_unit(
            data=packet.payload,
            is_key=packet.type is wire.PacketType.KEY_FRAME,
            sender_ns=packet.sender_ns + step_ns,
            number=packet.frame_number,
            arrival_ns=now_ns,
        )
    session.tick()
    assert session.quality.clock.steps == 1
    assert session.quality.jitter_ms == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("kind", ["error", "ack", "imu", "video-config"])
def test_an_unknown_word_on_the_videos_connection_is_passed_over_in_silence(kind):
    heard = Heard()
    session = heard.session()
    before = list(heard.said)
    session.take_control(json.dumps({"type": kind, "codec": "h265"}))
    assert heard.said == before


def test_after_a_key_frame_came_the_next_one_is_asked_for_within_a_second():
    clock, said = Clock(), []
    requests = KeyFrameRequests(said.append, clock)
    for _ in range(8):
        requests.needed("no_key_frame")
        clock.now_s += 1.0
    assert len(said) == 4
    requests.came()
    requests.needed("corrupt")
    clock.now_s += 1.0
    requests.tick()
    assert [message["reason"] for message in said] == ["no_key_frame"] * 4 + ["corrupt"]
