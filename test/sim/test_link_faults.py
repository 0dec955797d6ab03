# SPDX-License-Identifier: Apache-2.0
"""Faults of packets and of the drone's clock are drawn from the seed, and do not touch pictures."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from worldsystem_core.wire import PacketType, unpack
from worldsystem_sim.cache import cache_path
from worldsystem_sim.config import SimConfig
from worldsystem_sim.encode import AccessUnit
from worldsystem_sim.link import Backoff
from worldsystem_sim.link_faults import LinkFaults
from worldsystem_sim.sender import Picture, SenderClock, messages_of

START = b"\0\0\0\1"
KEY = AccessUnit(
    True, START + b"\x67abc", START + b"\x68de", START + b"\x65" + bytes(range(1, 200))
)
SHARES = ("duplicate", "reorder", "truncate", "bit_flip", "stamp_back", "lose_parameter_sets")


def sent(faults: LinkFaults, number: int) -> tuple[list, str]:
    picture, planned = Picture(number, 10**18, KEY), faults.of_frame(number)
    return messages_of(picture, planned, SenderClock(since_ns=0), faults)


def test_faults_come_at_the_asked_rate_and_repeat():
    shares = dict.fromkeys(SHARES, 0.1)
    plan = [LinkFaults(**shares, seed=4).of_frame(i) for i in range(3000)]
    for kind in ("duplicated", "reordered", "truncated", "flipped", "back_s"):
        assert np.mean([bool(getattr(f, kind)) for f in plan]) == pytest.approx(0.1, abs=0.02)
    assert np.mean([any(f.sets_lost) for f in plan]) == pytest.approx(0.1, abs=0.02)
    assert plan[:50] == [LinkFaults(**shares, seed=4).of_frame(i) for i in range(50)]


def test_each_message_is_lost_by_itself():
    plan = [LinkFaults(message_loss=0.05).of_frame(i) for i in range(4000)]
    lost = np.array([(f.lost, *f.sets_lost) for f in plan])
    assert np.allclose(lost.mean(axis=0), 0.05, atol=0.012)
    assert lost.all(axis=1).mean() < 0.01


def test_bursts_lose_pictures_in_a_row():
    lost = [LinkFaults(burst_loss=0.01, burst_frames=6).of_frame(i).lost for i in range(3000)]
    text = "".join("x" if one else "." for one in lost)
    runs = [run for run in text.split(".") if run]
    assert min(len(run) for run in runs[:-1]) >= 6
    assert np.mean(lost) == pytest.approx(0.06, abs=0.02)


def test_no_fault_leaves_the_packets_alone():
    messages, fate = sent(LinkFaults(), 5)
    kinds = [unpack(message).type for message in messages]
    assert kinds == [PacketType.SPS, PacketType.PPS, PacketType.KEY_FRAME]
    assert fate == "sent"


def test_damage_is_behind_the_header_and_noted():
    whole = sent(LinkFaults(), 5)[0][-1]
    cut, fate = sent(LinkFaults(truncate=1.0), 5)
    assert whole.startswith(cut[-1])
    assert (21 <= len(cut[-1]) < len(whole), fate) == (True, "truncated")
    flipped, fate = sent(LinkFaults(bit_flip=1.0), 5)
    changed = np.frombuffer(flipped[-1], np.uint8) ^ np.frombuffer(whole, np.uint8)
    assert 1 <= int(np.bitwise_count(changed).sum()) <= 3
    assert not changed[:21].any()
    assert fate == "bit_flipped"


def test_parameter_sets_stamps_and_duplicates():
    faults = LinkFaults(lose_parameter_sets=1.0, stamp_back=1.0, duplicate=1.0)
    messages, fate = sent(faults, 5)
    assert [unpack(message).type for message in messages] == [PacketType.KEY_FRAME] * 2
    assert messages[0] == messages[1]
    assert 0.5e9 <= 10**18 - unpack(messages[0]).sender_ns <= 10e9
    assert fate == "sent"
    assert faults.counts() == {"parameter_sets_lost": 1, "stamped_back": 1, "duplicated": 1}


def test_the_drones_clock_is_ahead_and_gains():
    clock = SenderClock(offset_s=3.0, drift_ppm=50.0, since_ns=10**18)
    assert clock.of(10**18) == 10**18 + 3 * 10**9
    assert clock.of(10**18 + 100 * 10**9) == 10**18 + 103 * 10**9 + 5_000_000
    assert SenderClock(offset_s=-1e12).of(10**18) == 0


def test_faults_on_the_link_leave_the_rendered_flight_where_it_is():
    config = SimConfig(duration_s=2.0)
    faulty = replace(config, message_loss=0.1, reorder=0.2, clock_offset_s=9.0, burst_loss=0.1)
    assert cache_path(faulty) == cache_path(config)
    assert cache_path(replace(config, seed=2)) != cache_path(config)


def test_no_wait_between_attempts_is_longer_than_two_seconds():
    rng = random.Random(1)
    waits_s = [Backoff().wait_s(attempt, rng) for attempt in range(40)]
    assert max(waits_s) <= 2.0
    assert 0.1 < waits_s[0] <= 0.25
