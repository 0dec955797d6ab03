# SPDX-License-Identifier: Apache-2.0
"""What is seen of a run adds up, and a mesh from blocks becomes one surface."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from worldsystem.observer import Observer, welded
from worldsystem.report.summary import summarise
from worldsystem_core.latency import LatencyHistogram
from worldsystem_core.ledger import LedgerState, StageLedger, StageReport
from worldsystem_core.reconstruction import ScaleState
from worldsystem_core.surface import Mesh
from worldsystem_core.trajectory import StampedPoses

SECOND_NS = 10**9


def report(stage: str, at_s: int, taken: int, used: int, **dropped: int) -> StageReport:
    return StageReport(
        stamp_ns=at_s * SECOND_NS,
        ledger=LedgerState(stage, taken, used, dropped),
        violations=0,
        latency_counts=tuple(LatencyHistogram().counts()),
    )


def test_a_runs_time_counts_from_its_first_frame_to_the_last_one_tracked(tmp_path):
    observer = Observer()
    for at_s, frames in ((100, 0), (160, 5), (170, 150), (180, 150), (200, 150)):
        observer.stage(report("ingest", at_s, frames, frames))
        observer.stage(report("slam3r", at_s, frames, frames))
    record = observer.record(tmp_path, source="sim", backend="geometric")
    assert record.duration_s == pytest.approx(10.0)
    assert record.fps == pytest.approx(15.0)


def test_the_rate_does_not_jump_when_an_account_comes_late(monkeypatch):
    """Ten frames a second, told of every second or third second only."""
    observer, now = Observer(), [100.0]
    monkeypatch.setattr("worldsystem.observer.time.time_ns", lambda: int(now[0] * SECOND_NS))
    rates = []
    for second in range(100, 130):
        now[0] = float(second)
        if second % 5 in (0, 2):
            frames = 1 + 10 * (second - 100)
            observer.stage(report("slam3r", second, frames, frames))
        rates.append(observer.tick().fps)
    assert all(5.0 <= rate <= 14.0 for rate in rates[6:])


def test_drops_are_named_by_stage_and_reason_and_frames_that_vanish_are_unexplained(tmp_path):
    observer = Observer()
    observer.stage(report("ingest", 1, 10, 9, corrupt=1))
    observer.stage(report("slam3r", 1, 8, 6, queue_full=2))
    assert observer.dropped() == {"ingest.corrupt": 1, "slam3r.queue_full": 2}
    record = observer.record(tmp_path, source="x", backend="geometric", frames_sent=12)
    assert record.unexplained_frames == (12 - 10) + (9 - 8)


def test_welding_merges_rims_and_changes_no_triangle():
    square = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 0, 0], [1, 1, 0], [0, 1, 0]])
    mesh = Mesh(
        vertices=square.astype(np.float32),
        colours=np.arange(18, dtype=np.uint8).reshape(6, 3),
        faces=np.array([[0, 1, 2], [3, 4, 5]], np.int32),
    )
    whole = welded(mesh)
    assert len(whole.vertices) == 4
    np.testing.assert_array_equal(whole.vertices[whole.faces], mesh.vertices[mesh.faces])
    assert len(welded(Mesh.empty()).faces) == 0


def test_the_account_goes_on_when_a_stage_is_begun_anew(tmp_path):
    observer = Observer(delivered_by_reference=False)
    observer.stage(report("ingest", 1, 100, 100))
    observer.stage(report("slam3r", 1, 40, 37, queue_full=2))  # one was being worked on
    observer.path(path_at(1, 2, 3))
    observer.began_anew("slam3r")
    observer.stage(report("slam3r", 2, 20, 20))
    observer.stage(report("slam3r", 6, 50, 50))
    observer.stage(report("slam3r", 9, 50, 50))
    observer.path(path_at(3, 4))
    record = observer.record(tmp_path, source="sim", backend="geometric", frames_sent=100)
    (slam3r,) = (ledger for ledger in record.ledgers if ledger.stage == "slam3r")
    assert slam3r.dropped == {"queue_full": 2, "killed": 1, "not_delivered": 10}
    assert (slam3r.taken, slam3r.used, slam3r.in_flight) == (100, 87, 0)
    assert record.unexplained_frames == 0
    assert record.poses.stamps_ns.tolist() == [1, 2, 3, 4]
    assert record.duration_s == pytest.approx(5.0), "until the last was tracked, in any life"


def path_at(*stamps: int) -> StampedPoses:
    return StampedPoses(np.array(stamps), np.tile(np.eye(4), (len(stamps), 1, 1)))


def test_a_keyframe_that_is_told_again_is_counted_once_and_awaited_twice(tmp_path):
    """Whoever was begun anew has all told again, and every stage hears that."""
    observer = Observer(delivered_by_reference=False)
    for number in (3, 4, 5_000, 3, 4, 5_000):
        observer.keyframe(number)
    observer.stage(report("mesher", 1, 6, 6))
    record = observer.record(tmp_path, source="x", backend="geometric")
    assert observer.tick().keyframes == record.keyframe_count == 3
    assert record.expected["mesher"] == 6


def test_frames_that_a_stage_settled_twice_are_unexplained_and_said_of_which_stage(tmp_path):
    account = StageLedger("slam3r")
    account.take(1)
    account.use(1)
    account.use(1)
    account.drop(7, "never_taken")
    observer = Observer()
    state = account.state()
    observer.stage(replace(report("slam3r", 1, 0, 0), ledger=state, violations=account.violations))
    run = observer.record(tmp_path, source="x", backend="geometric")
    assert run.unexplained_frames == 2
    assert "account of stage 'slam3r' is at fault with 2 frames" in " ".join(summarise(run).notes)
    assert not run.adds_up(state)


def test_keyframes_told_by_several_threads_are_all_counted():
    """Threads change after every few steps, which they do rarely otherwise."""
    observer, count = Observer(), 8_000
    usual_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as tellers:
            told = tellers.map(observer.keyframe, range(count))
            counted = [observer.keyframes for _ in range(200)]
            assert len(list(told)) == count
    finally:
        sys.setswitchinterval(usual_s)
    assert counted == sorted(counted)
    assert observer.keyframes == observer.keyframes_told == count


def test_the_rate_is_found_again_after_the_clock_was_set_back(monkeypatch):
    observer, now = Observer(), [0.0]
    monkeypatch.setattr("worldsystem.observer.time.time_ns", lambda: int(now[0] * SECOND_NS))
    rates = []
    for second in range(60):
        now[0] = 10_000.0 + second - (3_600.0 if second >= 30 else 0.0)
        frames = 1 + 10 * second
        observer.stage(report("slam3r", int(now[0]), frames, frames))
        rates.append(observer.tick().fps)
    assert rates[1:30] == pytest.approx([10.0] * 29)
    assert rates[31:] == pytest.approx([10.0] * 29)
    assert len(observer._used_at) < 10


def test_the_path_of_a_life_before_goes_with_the_map_that_is_forgotten():
    observer = Observer(delivered_by_reference=False)
    observer.path(path_at(1, 2))
    observer.began_anew("slam3r")
    observer.path(path_at(3))
    assert observer.poses.stamps_ns.tolist() == [1, 2, 3]
    observer.path(StampedPoses(np.zeros(0, np.int64), np.zeros((0, 4, 4))))
    assert len(observer.poses) == 0
    observer.path(path_at(5, 6))
    assert observer.poses.stamps_ns.tolist() == [5, 6]


def test_a_path_of_before_is_not_joined_with_one_in_another_unit():
    observer = Observer(delivered_by_reference=False)
    observer.path(path_at(1, 2))
    observer.began_anew("slam3r")
    observer.path(path_at(3))
    observer.path(replace(path_at(3, 4), scale=ScaleState.METRIC))
    assert observer.poses.scale is ScaleState.METRIC
    assert observer.poses.stamps_ns.tolist() == [3, 4]


def test_the_latency_over_the_run_is_of_what_came_last_and_not_of_all_before():
    observer, mapped = Observer(), LatencyHistogram()
    for delay_s, count in ((0.1, 100), (5.0, 10)):
        for _ in range(count):
            mapped.add(delay_s)
        told = replace(report("mesher", 1, 110, 110), latency_counts=tuple(mapped.counts()))
        observer.stage(told)
        observer.tick()
    observer.tick()  # nothing came since
    shown = [sample.latency_s for sample in observer.samples]
    assert shown == pytest.approx([0.1, 5.0, 5.0], rel=0.25)


def test_a_mesher_that_was_begun_anew_by_hand_costs_no_sample():
    """Nobody says so there: its histogram is empty at first, and then counts from nothing."""
    observer = Observer()
    for delays_s in ([0.1] * 100, [], [5.0]):
        mapped = LatencyHistogram()
        for delay_s in delays_s:
            mapped.add(delay_s)
        told = replace(report("mesher", 1, 110, 110), latency_counts=tuple(mapped.counts()))
        observer.stage(told)
        observer.tick()
    shown = [sample.latency_s for sample in observer.samples]
    assert shown == pytest.approx([0.1, 0.1, 5.0], rel=0.25)


def test_frames_of_a_path_that_was_thinned_out_or_begun_anew_count_as_tracked(tmp_path):
    observer = Observer()
    for stage in ("ingest", "slam3r"):
        observer.stage(report(stage, 1, 12, 12))
    observer.path(path_at(1, 2, 3, 4))
    observer.path(path_at(1, 3, 4, 5, 6))  # too long: the second has gone
    observer.path(StampedPoses(np.zeros(0, np.int64), np.zeros((0, 4, 4))))  # a reset
    observer.path(path_at(3, 4, 5, 6))  # told again
    observer.path(StampedPoses(np.zeros(0, np.int64), np.zeros((0, 4, 4))))
    observer.path(path_at(7, 8, 9, 10, 11, 12))
    run = observer.record(tmp_path, source="x", backend="geometric")
    (share,) = [v.value for v in summarise(run).verdicts if v.id == "demo.tracked_percent"]
    assert share == 100.0


def test_the_samples_of_a_run_of_hours_leave_none_of_its_hours_out(monkeypatch):
    observer, now = Observer(), [100.0]
    monkeypatch.setattr("worldsystem.observer.time.time_ns", lambda: int(now[0] * SECOND_NS))
    monkeypatch.setattr("worldsystem.observer._MAX_SAMPLES", 400)
    observer.stage(report("slam3r", 100, 1, 1))
    for second in range(8_000):
        now[0] = 100.0 + second
        observer.tick()
    t_s = np.array([sample.t_s for sample in observer.samples])
    assert len(t_s) <= 400
    assert np.diff(t_s).max() < 0.1 * t_s[-1]
