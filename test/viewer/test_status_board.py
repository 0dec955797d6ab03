# SPDX-License-Identifier: Apache-2.0
"""The status bar's values."""

from __future__ import annotations

import pytest

from worldsystem_core.latency import LatencyHistogram
from worldsystem_core.ledger import LedgerState, StageLedger, StageReport
from worldsystem_core.told_keyframes import TOLD_AGAIN
from worldsystem_viewer.status_board import StatusBoard


def report(*ages_s: float) -> StageReport:
    latency = LatencyHistogram()
    for age_s in ages_s:
        latency.add(age_s)
    state = StageLedger("mesher").state()
    counts = tuple(latency.counts())
    return StageReport(stamp_ns=1, ledger=state, violations=0, latency_counts=counts)


def test_the_median_time_to_the_map_is_told():
    board = StatusBoard()
    board.take(report(0.1, 0.2, 0.3))
    assert board.values()["latency_ms"] == pytest.approx(200, rel=0.5)


def test_a_recording_from_long_ago_has_no_time_to_the_map():
    board = StatusBoard()
    board.take(report(3000.0, 3001.0))
    assert "latency_ms" not in board.values()


def test_nothing_is_told_of_stages_that_are_silent():
    assert StatusBoard().values() == {"fps": 0.0, "dropped": 0}


def test_what_was_let_go_is_pictures_and_keyframes_each_once():
    """A broker that is away costs the bridge postings, and one that is told again costs nothing."""
    board = StatusBoard()
    for stage, drops in {
        "slam3r": {"queue_full": 3},
        "mesher": {"queue_full": 2, TOLD_AGAIN: 500},
        "bridge": {"queue_full": 9000},
    }.items():
        ledger = StageLedger(stage)
        for reason, count in drops.items():
            for _ in range(count):
                ledger.drop_untaken(reason)
        board.take(StageReport(stamp_ns=1, ledger=ledger.state(), violations=0, latency_counts=()))
    assert board.values()["dropped"] == 5


def test_a_tracker_begun_anew_has_no_rate_below_nothing_and_what_was_let_go_stays_counted():
    board = StatusBoard()

    def told(second: int, taken: int, used: int, dropped: int) -> dict[str, object]:
        ledger = LedgerState("slam3r", taken, used, {"queue_full": dropped})
        stamp_ns = second * 10**9
        board.take(StageReport(stamp_ns=stamp_ns, ledger=ledger, violations=0, latency_counts=()))
        return board.values()

    told(1, 300, 290, 10)
    assert told(2, 320, 305, 15) == {"fps": 15.0, "dropped": 15}
    assert told(12, 8, 6, 2) == {"fps": 0.0, "dropped": 17}
    assert told(13, 20, 18, 2) == {"fps": 12.0, "dropped": 17}


def test_a_tracker_that_is_silent_has_no_rate():
    now_s = [100.0]
    board = StatusBoard(clock=lambda: now_s[0])
    for second, used in ((1, 10), (2, 25)):
        ledger = LedgerState("slam3r", used, used)
        stamp_ns = second * 10**9
        board.take(StageReport(stamp_ns=stamp_ns, ledger=ledger, violations=0, latency_counts=()))
    now_s[0] += 5.0
    assert board.values()["fps"] == 15.0, "a busy stage may be late"
    now_s[0] += 6.0
    assert board.values()["fps"] == 0.0
