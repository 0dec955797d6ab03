# SPDX-License-Identifier: Apache-2.0
"""What grows with the map takes a share of the time, and no more."""

from __future__ import annotations

import pytest

from worldsystem_core.sparing import Sparing


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def work(sparing: Sparing, clock: Clock, cost_s: float) -> None:
    with sparing.work():
        clock.now_s += cost_s


def waited_s(sparing: Sparing, clock: Clock) -> float:
    """How long it takes until the work is due again, a millisecond at a time."""
    sparing.wanted, began_s = True, clock.now_s
    while not sparing.is_due:
        clock.now_s += 0.001
    return clock.now_s - began_s


@pytest.mark.parametrize("share", [0.05, 0.1, 0.5])
def test_work_that_gets_dearer_takes_no_more_than_its_share(share):
    clock = Clock()
    sparing, spent_s, cost_s = Sparing(share, clock=clock), 0.0, 0.001
    while clock.now_s < 1000.0 or not sparing.is_due:
        sparing.wanted = True
        if sparing.is_due:
            work(sparing, clock, cost_s)
            spent_s += cost_s
            cost_s *= 1.05
        clock.now_s += 0.066  # a picture comes
        sparing.wanted = True
    assert 0.5 * share < spent_s / clock.now_s <= share
    assert cost_s > 1.0, "it was done though it had become dear"


def test_cheap_work_and_that_with_the_whole_share_is_always_due():
    clock = Clock()
    for share, cost_s in ((0.1, 0.0), (1.0, 5.0)):
        sparing = Sparing(share, clock=clock)
        assert not sparing.is_due, "nobody wants it"
        for _ in range(3):
            sparing.wanted = True
            assert sparing.is_due
            work(sparing, clock, cost_s)
            assert not sparing.wanted


@pytest.mark.parametrize(("cost_s", "every_s"), [(0.001, 0.5), (0.1, 2.5), (1.0, 4.0)])
def test_cheap_work_waits_the_least_time_and_dear_work_the_most(cost_s, every_s):
    clock = Clock()
    sparing = Sparing(0.04, least_s=0.5, most_s=4.0, clock=clock)
    work(sparing, clock, cost_s)
    assert cost_s + waited_s(sparing, clock) == pytest.approx(every_s, abs=0.002)


def test_waiting_costs_nothing_where_the_cost_is_told_by_another_clock():
    clock, processor = Clock(), Clock()
    sparing = Sparing(0.1, clock=clock, spent=processor)
    with sparing.work():
        clock.now_s += 0.9  # it waits for a lock
        processor.now_s += 0.1
    assert waited_s(sparing, clock) == pytest.approx(0.1, abs=0.002)


def test_work_that_fails_is_not_done_again_at_once():
    def failing() -> None:
        clock.now_s += 1.0
        raise OSError("no space left")

    clock = Clock()
    sparing = Sparing(0.1, clock=clock)
    with pytest.raises(OSError, match="no space"), sparing.work():
        failing()
    assert waited_s(sparing, clock) == pytest.approx(9.0, abs=0.002)
