# SPDX-License-Identifier: Apache-2.0
"""Flights over bad links into a real server: what can be saved is, every loss has its reason."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from fault_lab import (
    CLIP,
    Expected,
    Flight,
    TimedSink,
    breakable,
    check_ledger,
    clip,
    send_flight,
    send_samples,
)
from ingest_lab import encode, packets_of, send, serving, wait_until

from worldsystem_sim.link import Backoff
from worldsystem_sim.link_faults import LinkFaults
from worldsystem_sim.sender import Picture, SenderClock, SendStats

SHORT = Flight()


def flown(faults: LinkFaults, flight: Flight = SHORT, **sender):
    """The sink, the sender's account and the server's status after a flight."""
    sink, threads = TimedSink(), threading.active_count()
    with serving(sink, decode_queue_frames=2000) as server:
        stats = send_flight(f"ws://127.0.0.1:{server.port}", faults, flight, **sender)
        last = Expected.of(stats, faults, flight.gop).last
        wait_until(lambda: last in sink.settled, 20.0)
        status = server.source.status()
    assert not server.errors
    assert threading.active_count() <= threads
    return sink, stats, status


def test_a_clean_link_loses_nothing():
    sink, stats, _ = flown(LinkFaults())
    check_ledger(sink, Expected.of(stats, LinkFaults()))
    assert sink.ids == list(range(450))
    assert not sink.drops


@pytest.mark.parametrize("share", [0.01, 0.05])
@pytest.mark.parametrize("seed", [1, 2])
def test_lost_messages_cost_what_depends_on_them_and_no_more(share, seed):
    faults = LinkFaults(message_loss=share, seed=seed)
    sink, stats, _ = flown(faults)
    expected = Expected.of(stats, faults)
    check_ledger(sink, expected)
    assert len(expected.lost) == pytest.approx(450 * share, abs=14)
    assert len(expected.lost) > 0


def test_bursts_of_losses_are_named_one_by_one():
    faults = LinkFaults(burst_loss=0.01, burst_frames=12, seed=3)
    sink, stats, _ = flown(faults)
    check_ledger(sink, Expected.of(stats, faults))


def test_twenty_disconnects_cost_the_pictures_up_to_the_next_key_frame():
    faults = LinkFaults(disconnect_every_s=0.06, fps=300.0, seed=2)
    sink, stats, status = flown(faults)
    check_ledger(sink, Expected.of(stats, faults))
    assert stats.connections >= 21
    assert status.restarts == 0


@pytest.mark.parametrize("kind", ["truncate", "bit_flip", "corrupt"])
def test_damaged_packets_never_harm_a_group_that_came_whole(kind):
    faults = LinkFaults(**{kind: 0.05}, seed=4)
    sink, stats, _ = flown(faults)
    expected = Expected.of(stats, faults)
    check_ledger(sink, expected)
    found = {n for n, reason in sink.drops if reason == "corrupt"}
    assert len(expected.damaged) > 10
    assert found or kind == "bit_flip"  # a flipped bit may still make a picture, if another one


def test_lost_parameter_sets_are_remembered_from_the_key_frame_before():
    faults = LinkFaults(lose_parameter_sets=0.5, seed=1)
    sink, stats, _ = flown(faults)
    check_ledger(sink, Expected.of(stats, faults))
    lost_at = faults.done["parameter_sets_lost"]
    assert len(lost_at) > 10
    first_whole = next(n for n in range(0, 450, 15) if n not in lost_at)
    assert sink.ids == list(range(first_whole, 450))
    drops = dict(sink.drops)
    assert all(drops[n] == "no_parameter_sets" for n in range(0, first_whole, 15))


def test_a_stream_without_parameter_sets_says_so_and_asks():
    faults = LinkFaults(lose_parameter_sets=1.0)
    sink, stats, _ = flown(faults, Flight(count=120))
    assert not sink.frames
    assert sink.settled == list(range(120))
    assert {reason for _, reason in sink.drops} == {"no_parameter_sets", "no_key_frame"}
    assert "no_parameter_sets" in stats.key_frames_asked


def test_doubled_and_late_packets_are_counted_and_make_no_second_picture():
    faults = LinkFaults(duplicate=0.1, reorder=0.03, seed=5)
    sink, stats, status = flown(faults)
    check_ledger(sink, Expected.of(stats, faults))
    assert status.late + status.duplicates >= len(faults.done["duplicated"])
    assert status.restarts == 0


def test_stamps_that_jump_back_neither_lose_pictures_nor_move_the_clock():
    faults = LinkFaults(stamp_back=0.05, seed=6)
    sink, stats, _ = flown(faults, Flight(count=400, fps=150.0))
    check_ledger(sink, Expected.of(stats, faults))
    assert sink.ids == list(range(400))
    stamps = np.array([unit.stamp_ns for unit in sink.units])
    arrivals = np.array([unit.arrival_ns for unit in sink.units])
    assert np.all(np.diff(stamps) > 0)
    assert np.all(stamps <= arrivals + 1000)
    right = np.setdiff1d(np.arange(200, 400), faults.done["stamped_back"])
    assert np.abs(arrivals[right] - stamps[right]).max() < 0.5e9


def test_a_drone_whose_clock_is_hours_off_and_drifts_is_stamped_right():
    clock = SenderClock(offset_s=7200.0, drift_ppm=100.0)
    taken_ns: list[int] = []

    class Noted(Flight):
        async def pictures(self) -> AsyncIterator[Picture]:
            async for picture in super().pictures():
                taken_ns.append(picture.sender_ns)
                yield picture

    sink, stats, _ = flown(LinkFaults(), Noted(count=300, fps=100.0), clock=clock)
    check_ledger(sink, Expected.of(stats, LinkFaults()))
    late_ns = np.array([unit.arrival_ns - taken_ns[unit.id] for unit in sink.units[100:]])
    wrong_ns = np.array([unit.stamp_ns - taken_ns[unit.id] for unit in sink.units[100:]])
    # no farther off than a quick packet took; and drift changes by less than a millisecond
    assert np.median(np.abs(wrong_ns)) <= np.quantile(late_ns, 0.25) + 1e6
    intervals_ms = np.diff([unit.stamp_ns for unit in sink.units[100:]]) / 1e6
    assert np.median(intervals_ms) == pytest.approx(10.0, abs=0.1)


def test_all_faults_at_once_leave_the_ledger_exact():
    faults = LinkFaults(
        message_loss=0.02,
        burst_loss=0.002,
        duplicate=0.05,
        truncate=0.02,
        bit_flip=0.02,
        stamp_back=0.02,
        disconnect_every_s=0.3,
        fps=300.0,
        seed=9,
    )
    sink, stats, _ = flown(faults)
    expected = Expected.of(stats, faults)
    assert sink.settled == list(range(min(sink.settled), expected.last + 1))
    named = {n for n, why in sink.drops if why == "lost_on_link"}
    assert named == {n for n in expected.lost if n > min(sink.settled)}
    assert expected.decodable <= set(sink.ids)


def wait_for_more(sink: TimedSink, pictures: int) -> None:
    enough = len(sink.shown_ns) + pictures
    wait_until(lambda: len(sink.shown_ns) >= enough)


def test_a_torn_link_is_used_again_as_soon_as_it_is_mended():
    sink, faults = TimedSink(), LinkFaults()
    flight = Flight(count=180, fps=60.0)
    with serving(sink) as server, breakable(server) as link, ThreadPoolExecutor(1) as pool:
        flying = pool.submit(send_flight, link.url, faults, flight, backoff=Backoff(0.05, 0.4))
        mended_ns = []
        for _ in range(2):
            wait_for_more(sink, 15)
            link.tear()
            time.sleep(0.3)
            link.mend()
            mended_ns.append(time.time_ns())
        stats = flying.result(30.0)
        wait_until(lambda: 179 in sink.settled)
    assert stats.connections == 3
    for at_ns in mended_ns:
        first_ns = min(shown for shown in sink.shown_ns if shown > at_ns)
        assert first_ns - at_ns < 2e9  # a wait of at most 0.4 s, then a group of 0.25 s
    assert sink.settled == list(range(180))
    assert all(shown == n % CLIP for n, shown in zip(sink.ids, sink.shows, strict=True))


def test_telemetry_is_back_within_two_seconds_of_its_link():
    sink = TimedSink()
    with serving(sink) as server, breakable(server) as link, ThreadPoolExecutor(1) as pool:
        flying = pool.submit(send_samples, link.url, 3.0)
        wait_until(lambda: len(sink.samples) > 20)
        link.tear()
        time.sleep(0.7)
        link.mend()
        mended_ns = time.time_ns()
        stats = flying.result(20.0)
        wait_until(lambda: len(sink.samples) >= stats.telemetry_sent - 5)
    after_ns = [sample.stamp_ns for sample in sink.samples if sample.stamp_ns > mended_ns]
    assert min(after_ns) - mended_ns < 2e9
    assert len(after_ns) > 20


def test_two_senders_of_one_stream_take_turns_and_the_newer_one_wins():
    sink = TimedSink()
    with serving(sink) as server, ThreadPoolExecutor(2) as pool:
        url = f"ws://127.0.0.1:{server.port}"
        first = pool.submit(send_flight, url, LinkFaults(), Flight(count=300, fps=100.0, first=700))
        time.sleep(1.2)
        behind = SenderClock(offset_s=-40.0)
        second = pool.submit(send_flight, url, LinkFaults(), Flight(300, 100.0), clock=behind)
        fates: list[SendStats] = [first.result(30.0), second.result(30.0)]
        time.sleep(0.5)
        assert len(threading.enumerate()) < 40
    assert not server.errors
    assert len(sink.settled) == len(set(sink.settled))
    assert sink.settled == list(range(sink.settled[0], sink.settled[-1] + 1))
    assert {reason for _, reason in sink.drops} <= {"lost_on_link", "no_key_frame"}
    assert sum(stats.connections for stats in fates) >= 3
    assert len(sink.frames) > 150
    stamps = [unit.stamp_ns for unit in sink.units]
    assert stamps == sorted(set(stamps))


def test_a_size_that_changes_in_flight_goes_on_at_the_new_key_frame():
    def wide(number: int) -> np.ndarray:
        return np.full((192, 320, 3), 40 + number, np.uint8)

    small = encode(20)
    large = encode(20, pictures=wide)
    sink = TimedSink()
    with serving(sink) as server:
        messages = packets_of(small) + packets_of(large, first=20)
        asyncio.run(send(server.url("/ws/video"), messages))
        wait_until(lambda: len(sink.settled) == 40)
    assert sink.ids == list(range(40))
    assert [frame.rgb.shape[1] for frame in sink.frames] == [160] * 20 + [320] * 20


def test_the_server_pings_asks_for_key_frames_and_keeps_to_the_one_who_answers():
    faults = LinkFaults(loss=0.05, seed=1)
    _, stats, status = flown(faults, Flight(count=300, fps=120.0))
    assert stats.pings_answered >= 2
    assert "no_key_frame" in stats.key_frames_asked
    assert len(stats.key_frames_asked) <= 5  # once a second at most
    assert status.bad_messages == 0
    assert not stats.errors


def test_a_sender_is_told_nothing_when_feedback_is_off():
    async def talk(url: str) -> list[str]:
        import websockets

        answers = []
        async with websockets.connect(url) as socket:
            for message in packets_of(encode(12)[1:]):
                await socket.send(message)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(2.2):
                    while True:
                        answers.append(await socket.recv())
        return answers

    with serving(feedback=False) as server:
        told = asyncio.run(talk(server.url("/ws/video")))
    assert {json.loads(text)["type"] for text in told} == {"ping"}


def test_the_clip_shows_its_numbers():
    assert len(clip()) == CLIP
    assert [unit.is_key for unit in clip()].count(True) == CLIP // 15
