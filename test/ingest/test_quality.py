# SPDX-License-Identifier: Apache-2.0
"""Bandwidth, jitter and loss of a link, on a clock that the test sets."""

from __future__ import annotations

import numpy as np
import pytest
from ingest_lab import encode
from test_session import Heard

from worldsystem_ingest.sender.feedback import trouble_of
from worldsystem_ingest.sender.quality import Bandwidth, Jitter, Loss


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def fed(bandwidth: Bandwidth, clock: Clock, seconds: int, mbps: float) -> None:
    for _ in range(seconds * 10):
        clock.now_s += 0.1
        bandwidth.add(round(mbps * 1e5 / 8))


@pytest.mark.parametrize(("mbps", "low"), [(2.0, True), (4.0, False)])
def test_bandwidth_is_low_when_ten_samples_average_under_three_mbps(mbps, low):
    clock = Clock()
    bandwidth = Bandwidth(clock)
    fed(bandwidth, clock, 45, mbps)
    assert bandwidth.average_mbps() is None
    assert not bandwidth.low
    fed(bandwidth, clock, 10, mbps)
    assert bandwidth.average_mbps() == pytest.approx(mbps, rel=0.05)
    assert bandwidth.now_mbps() == pytest.approx(mbps, rel=0.15)
    assert bandwidth.low is low


def test_silence_is_zero_and_not_low():
    clock = Clock()
    bandwidth = Bandwidth(clock)
    assert bandwidth.now_mbps() == 0.0
    fed(bandwidth, clock, 60, 5.0)
    clock.now_s += 10_000.0
    assert bandwidth.now_mbps() == 0.0
    assert not bandwidth.low
    assert bandwidth.total_bytes == pytest.approx(60 * 5e6 / 8, rel=0.01)


def test_the_wait_for_the_first_picture_is_no_low_bandwidth():
    now = [0.0]
    bandwidth = Bandwidth(lambda: now[0])
    now[0] = 500.0
    bandwidth.add(1000)
    assert bandwidth.average_mbps() is None
    assert not bandwidth.low


def test_jitter_is_that_of_rfc_3550():
    """J += (|D| - J) / 16, with D the difference of two delays (6.4.1)."""
    rng, jitter = np.random.default_rng(1), Jitter()
    assert jitter.jitter_ms is None
    sender_ns = np.arange(4000) * 33_000_000
    delays_ns = rng.normal(40e6, 15e6, 4000).astype(np.int64)
    for sender, delay in zip(sender_ns.tolist(), delays_ns.tolist(), strict=True):
        jitter.add(sender, sender + delay)
    wanted_ns = 0.0
    for difference_ns in np.abs(np.diff(delays_ns)).tolist():
        wanted_ns += (difference_ns - wanted_ns) / 16
    assert jitter.jitter_ms == pytest.approx(wanted_ns * 1e-6, rel=1e-9)


def test_a_steady_link_has_no_jitter_whatever_the_clocks_show_and_steps_do_not_count():
    jitter = Jitter()
    for n in range(100):
        step_ns = 3600 * 10**9 if n > 50 else 0
        jitter.add(n * 33 + 5 + step_ns, 10**18 + n * 33)
    assert jitter.jitter_ms == pytest.approx(0.0, abs=1e-6)


def test_loss_is_the_share_of_the_last_five_seconds_and_of_all():
    clock = Clock()
    loss = Loss(clock)
    assert (loss.recent, loss.total) == (0.0, 0.0)
    for second in range(20):
        for picture in range(10):
            loss.add(1 if second < 10 and picture == 0 else 0)
        clock.now_s += 1.0
    assert loss.recent == 0.0
    assert loss.total == pytest.approx(10 / 210)
    for _ in range(10):
        loss.add(1)
    assert loss.recent == pytest.approx(0.18, abs=0.05)


def test_b_pictures_of_a_steady_link_are_neither_jitter_nor_delay():
    session, data = Heard().session(), encode(1)[0].data
    began_ns, picture_ns = 1_780_000_000 * 10**9, 50_000_000
    for number in range(200):
        group, at = divmod(number, 4)
        session.take_access_unit(
            data=data,
            is_key=False,
            sender_ns=began_ns + (4 * group + (4, 2, 1, 3)[at]) * picture_ns,
            number=number,
            arrival_ns=began_ns + (number + 6) * picture_ns,
        )
    session.tick()
    assert trouble_of(session.quality) == ""
    assert session.quality.jitter_ms == pytest.approx(0.0, abs=5.0)  # of the first group
    assert session.quality.queue_delay_ms == pytest.approx(0.0, abs=5.0)


def test_a_sender_that_left_or_paused_has_no_low_bandwidth():
    clock = Clock()
    bandwidth = Bandwidth(clock)
    fed(bandwidth, clock, 60, 5.0)
    for _ in range(60):
        clock.now_s += 1.0
        assert not bandwidth.low
    fed(bandwidth, clock, 20, 5.0)
    assert not bandwidth.low
    fed(bandwidth, clock, 60, 2.0)
    assert bandwidth.low


def test_a_poor_link_that_stalls_for_moments_still_has_low_bandwidth():
    clock = Clock()
    bandwidth = Bandwidth(clock)
    fed(bandwidth, clock, 60, 0.5)
    assert bandwidth.low
    clock.now_s += 10.0
    fed(bandwidth, clock, 10, 0.5)
    assert bandwidth.low
