# SPDX-License-Identifier: Apache-2.0
"""Bandwidth over samples of five seconds, on a clock that the test sets."""

from __future__ import annotations

import pytest

from worldsystem_ingest.quality import Bandwidth


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
