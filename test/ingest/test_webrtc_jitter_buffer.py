# SPDX-License-Identifier: Apache-2.0
"""RTP packets to coded pictures: order, gaps and their account, and the sender's times."""

import itertools
import random

import pytest

from worldsystem_ingest.stream.status import PacketLoss
from worldsystem_ingest.webrtc.jitter_buffer import (
    CodedPicture,
    JitterBuffer,
    Packet,
)
from worldsystem_ingest.webrtc.rtp_clock import RtpClock, ntp_to_ns

SPACING = 3000
WAIT_S = 0.2
EPOCH_NS = 1_780_000_000 * 10**9


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def packets(pictures: int, each: int = 3, first: int = 65_500, marker: bool = True) -> list[Packet]:
    """Pictures of `each` packets; sequence numbers and timestamps wrap on the way."""
    made = []
    for picture in range(pictures):
        for part in range(each):
            made.append(
                Packet(
                    sequence=(first + len(made)) % 2**16,
                    timestamp=(2**32 - 5 * SPACING + picture * SPACING) % 2**32,
                    marker=marker and part == each - 1,
                    payload_type=96,
                    data=f"{picture}.{part};".encode(),
                    begins=part == 0,
                )
            )
    return made


def shown(picture: CodedPicture) -> int:
    """The number of the picture; every part of it is there, in order."""
    number = int(picture.data.split(b".")[0])
    parts = picture.data.split(b";")[:-1]
    assert parts == [f"{number}.{part}".encode() for part in range(len(parts))]
    return number


def fed(buffer: JitterBuffer, sequence: list[Packet]) -> list[CodedPicture]:
    return [picture for packet in sequence for picture in buffer.add(packet)]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def buffer(clock) -> JitterBuffer:
    return JitterBuffer(WAIT_S, 10_000, clock)


def test_a_picture_comes_with_the_packet_that_completes_it(buffer):
    for number, at in enumerate(range(0, 60, 3)):
        three = packets(20)[at : at + 3]
        assert fed(buffer, three[:2]) == []
        (picture,) = buffer.add(three[2])
        assert shown(picture) == number
        assert picture.lost == 0
        assert len(picture.data.split(b";")) == 4


def test_without_markers_a_picture_ends_where_the_next_begins(buffer):
    pictures = fed(buffer, packets(20, marker=False))
    assert [shown(picture) for picture in pictures] == list(range(19))


@pytest.mark.parametrize("seed", range(5))
def test_packets_out_of_order_or_twice_change_nothing(buffer, seed):
    rng = random.Random(seed)
    sent = packets(60)
    jumbled = sorted(range(1, len(sent)), key=lambda at: at + rng.uniform(0, 8))
    order = [sent[at] for at in [0, *jumbled] for _ in range(rng.choice([1, 1, 2]))]
    pictures = fed(buffer, order)
    assert [shown(picture) for picture in pictures] == list(range(60))
    assert all(picture.lost == 0 for picture in pictures)


def test_a_retransmission_in_time_saves_the_picture(buffer, clock):
    sent = packets(20)
    assert [shown(p) for p in fed(buffer, sent[:31] + sent[32:45])] == list(range(10))
    clock.now_s += 0.9 * WAIT_S
    assert buffer.tick() == []
    assert buffer.missing() == [sent[31].sequence]
    assert buffer.missing() == [], "not asked for again at once"
    assert [shown(p) for p in buffer.add(sent[31])] == list(range(10, 15))


@pytest.mark.parametrize(
    ("absent", "lost"),
    [
        (range(31, 32), [10]),
        (range(30, 31), [10]),
        (range(32, 33), [10]),
        (range(32, 34), [10, 11]),
        (range(30, 33), [10]),
        (range(30, 42), [10, 11, 12, 13]),
        (range(28, 31), [9, 10]),
    ],
)
def test_lost_pictures_are_counted_and_the_others_saved(buffer, clock, absent, lost):
    sent = [packet for at, packet in enumerate(packets(30)) if at not in absent]
    pictures = fed(buffer, sent)
    clock.now_s += 1.1 * WAIT_S
    pictures += buffer.tick()
    assert [shown(picture) for picture in pictures] == [n for n in range(30) if n not in lost]
    accounts = {shown(picture): picture.lost for picture in pictures if picture.lost}
    assert accounts == {lost[-1] + 1: len(lost)}


def test_packets_that_are_lost_or_late_are_counted(clock):
    loss = PacketLoss()
    buffer = JitterBuffer(WAIT_S, 10_000, clock, loss)
    sent = packets(30)
    fed(buffer, [packet for at, packet in enumerate(sent) if at not in range(30, 34)])
    assert (loss.lost, loss.late) == (0, 0), "they may still come"
    clock.now_s += 1.1 * WAIT_S
    buffer.tick()
    assert (loss.lost, loss.late) == (4, 0)
    fed(buffer, [sent[31], sent[0]])
    assert (loss.lost, loss.late) == (4, 2)


@pytest.mark.parametrize("seed", range(8))
def test_every_picture_is_whole_or_counted_under_any_loss(clock, seed):
    rng = random.Random(seed)
    buffer = JitterBuffer(WAIT_S, 10_000, clock)
    sent = packets(400, each=2)
    pictures = []
    last = len(sent) - 6
    for at, packet in enumerate(sent):
        clock.now_s += 0.011
        if 10 < at < last and rng.random() < 0.15:
            continue
        pictures += buffer.add(packet)
    clock.now_s += WAIT_S + 0.1
    pictures += buffer.tick()
    numbers = [shown(picture) for picture in pictures]
    assert numbers == sorted(set(numbers))
    assert all(len(picture.data.split(b";")) == 3 for picture in pictures)
    assert len(pictures) + sum(picture.lost for picture in pictures) == 400


def test_padding_between_pictures_is_no_loss(buffer):
    sent = packets(10)
    sequence = []
    for at, packet in enumerate(sent):
        moved = (packet.sequence + at // 3) % 2**16
        sequence.append(Packet(moved, packet.timestamp, packet.marker, 96, packet.data, True))
        if packet.marker:
            padding = (moved + 1) % 2**16
            sequence.append(Packet(padding, packet.timestamp, False, 96, b"", False))
    pictures = fed(buffer, sequence)
    assert [shown(picture) for picture in pictures] == list(range(10))
    assert all(picture.lost == 0 for picture in pictures)


def test_memory_is_bounded_whatever_comes(clock):
    buffer = JitterBuffer(1e9, 10_000, clock)
    first, *others = packets(5000)
    buffer.add(first)
    for packet in others[1:]:
        buffer.add(packet)
    assert len(buffer._waiting) <= 2049
    assert buffer._waiting_bytes <= 10_100
    endless = JitterBuffer(1e9, 10_000, clock)
    for at in range(3000):
        assert endless.add(Packet(at, 7, False, 96, bytes(100), at == 0)) == []
    assert endless._open is None


def test_a_sender_that_numbers_anew_is_followed(buffer, clock):
    fed(buffer, packets(100, first=40_000))
    again = packets(300, first=20_000)
    pictures = fed(buffer, again[:400])
    clock.now_s += 1.1 * WAIT_S
    pictures += fed(buffer, again[400:])
    assert shown(pictures[-1]) == 299
    assert len(pictures) > 250
    assert pictures[0].lost >= 1
    other = [
        Packet(p.sequence, p.timestamp, p.marker, 96, p.data, p.begins, source=5)
        for p in packets(3, first=7)
    ]
    assert len(fed(buffer, other)) == 3


def test_times_go_on_with_the_timestamps_over_their_wrap():
    clock = RtpClock()
    stamps = [
        clock.sender_ns((2**32 - 9000 + at * SPACING) % 2**32, EPOCH_NS + 7 * at)
        for at in range(10)
    ]
    assert stamps[0] == EPOCH_NS
    assert [b - a for a, b in itertools.pairwise(stamps)] == [
        33_333_333 + (n % 3 == 2) for n in range(9)
    ]


def test_a_sender_report_tells_the_times_of_its_clock():
    clock = RtpClock()
    sent_ns = EPOCH_NS - 3 * 10**9  # the phone's clock is three seconds late
    assert clock.sender_ns(1000, EPOCH_NS) == EPOCH_NS
    ntp = ntp_of(sent_ns)
    assert clock.report(ntp, 91_000, EPOCH_NS + 10**9)
    assert abs(clock.sender_ns(1000 + 45_000, EPOCH_NS + 2 * 10**9) - (sent_ns - 5 * 10**8)) < 2
    assert not clock.report(ntp_of(sent_ns + 10**9), 181_000, EPOCH_NS + 2 * 10**9)
    assert abs(clock.sender_ns(181_000, EPOCH_NS + 2 * 10**9) - (sent_ns + 10**9)) < 2


def test_a_report_before_the_first_picture_counts():
    clock = RtpClock()
    assert clock.report(ntp_of(EPOCH_NS), 5, EPOCH_NS)
    assert abs(clock.sender_ns(2**32 - 90_000 + 5, EPOCH_NS) - (EPOCH_NS - 10**9)) < 2


def test_a_report_without_a_time_of_day_is_left_out():
    clock = RtpClock()
    assert not clock.report(3600 << 32, 0, EPOCH_NS)
    assert clock.sender_ns(0, EPOCH_NS) == EPOCH_NS
    assert not clock.reported


def test_ntp_times_are_read_in_either_era():
    assert ntp_to_ns(2_208_988_800 << 32) == 0
    assert ntp_to_ns(0) == 2_085_978_496 * 10**9  # 2036-02-07 06:28:16
    assert ntp_to_ns((2_208_988_800 << 32) + (1 << 31)) == 5 * 10**8


def ntp_of(epoch_ns: int) -> int:
    seconds, rest = divmod(epoch_ns, 10**9)
    return (seconds + 2_208_988_800 << 32) + (rest << 32) // 10**9
