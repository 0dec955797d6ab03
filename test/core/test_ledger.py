# SPDX-License-Identifier: Apache-2.0
"""Taken is used plus dropped plus in flight, whatever happens."""

from __future__ import annotations

import math
import random
import threading

from worldsystem_core.latency import BUCKETS_S, LatencyHistogram
from worldsystem_core.ledger import StageLedger


def test_the_sum_holds_after_any_sequence_of_events():
    draw, ledger = random.Random(1), StageLedger("stage")
    for _ in range(5000):
        frame = draw.randrange(50)
        event = draw.choice(["take", "use", "late", "corrupt"])
        if event in ("take", "use"):
            getattr(ledger, event)(frame)
        else:
            ledger.drop(frame, event)
        state = ledger.state()
        assert state.in_flight >= 0
        assert state.taken == state.used + sum(state.dropped.values()) + state.in_flight


def test_settling_twice_or_without_taking_is_a_violation_and_changes_no_sum():
    ledger = StageLedger("stage")
    ledger.use(1)
    ledger.take(2)
    ledger.use(2)
    ledger.drop(2, "late")
    assert ledger.violations == 2
    assert (ledger.state().taken, ledger.state().used, ledger.state().dropped) == (1, 1, {})


def test_closing_the_account_leaves_nothing_in_flight():
    ledger = StageLedger("stage")
    for frame in range(3):
        ledger.take(frame)
    ledger.use(0)
    ledger.drop_in_flight("shutdown")
    assert ledger.state().dropped == {"shutdown": 2}
    assert ledger.state().in_flight == 0
    ledger.drop_in_flight("shutdown")
    assert ledger.state().dropped == {"shutdown": 2}


def test_threads_do_not_lose_counts():
    ledger = StageLedger("stage")

    def work(start):
        for frame in range(start, start + 1000):
            ledger.take(frame)
            ledger.use(frame)

    threads = [threading.Thread(target=work, args=(1000 * n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ledger.state().used == 4000
    assert not ledger.violations


def test_a_percentile_is_the_upper_edge_of_its_bucket():
    histogram = LatencyHistogram()
    assert math.isnan(histogram.percentile_s(50))
    for _ in range(99):
        histogram.add(0.010)
    histogram.add(10.0)
    edge = min(edge for edge in BUCKETS_S if edge >= 0.010)
    assert histogram.percentile_s(50) == edge
    assert histogram.percentile_s(100) >= 10.0
    histogram.add(1e9)
    assert histogram.percentile_s(100) == math.inf
    histogram.add(-1.0)
    assert histogram.counts()[0] == 1


def test_a_fault_closes_only_what_came_in_since():
    ledger = StageLedger("stage")
    ledger.take(1)
    ledger.use(1)
    ledger.take(2)
    before = ledger.taken
    ledger.take(3)
    ledger.drop_since(before, "failed")
    state = ledger.state()
    assert (state.taken, state.used, state.dropped, state.in_flight) == (3, 1, {"failed": 1}, 1)
    ledger.use(2)
    assert not ledger.violations


def test_a_stage_that_ended_early_lets_all_that_comes_go_for_that():
    ledger = StageLedger("stage")
    ledger.end_as("stage_failed")
    ledger.drop_untaken("queue_full")
    assert ledger.state().dropped == {"stage_failed": 1}


def test_a_frame_in_work_stays_in_work_when_one_is_let_go_untaken():
    """The same frame told again, say, while it is worked on: the one in work is settled later."""
    ledger = StageLedger("stage")
    ledger.take(1)
    ledger.drop_untaken("queue_full")
    state = ledger.state()
    assert (state.taken, state.dropped, state.in_flight) == (2, {"queue_full": 1}, 1)
    ledger.use(1)
    state = ledger.state()
    assert (state.used, state.dropped, state.in_flight) == (1, {"queue_full": 1}, 0)
    assert not ledger.violations


def test_threads_that_let_frames_go_untaken_lose_no_counts():
    ledger = StageLedger("stage")

    def let_go():
        for _ in range(1000):
            ledger.drop_untaken("queue_full")

    threads = [threading.Thread(target=let_go) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    state = ledger.state()
    assert (state.taken, state.dropped, state.in_flight) == (4000, {"queue_full": 4000}, 0)
