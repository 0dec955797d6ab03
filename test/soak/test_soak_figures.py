# SPDX-License-Identifier: Apache-2.0
"""The soak's arithmetic on made-up samples, whose growth and pace are known."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import bench_soak
import soak_figures as figures
from harness import Benchmark
from soak_samples import Account, ProcessSample, Sample, account_from, processes_of

MONITOR_PAGE = """
worldsystem_frames_used_total{stage="ingest"} 130.0
worldsystem_frames_used_total{stage="slam3r"} 120.0
worldsystem_frames_in_flight{stage="slam3r"} 3.0
worldsystem_frames_in_flight{stage="mesher"} -2.0
worldsystem_ledger_violations_total{stage="slam3r"} 1.0
worldsystem_process_allocated_bytes{stage="slam3r"} 4e+06
worldsystem_process_allocated_bytes{stage="mesher"} 5e+06
worldsystem_frames_dropped_total{stage="slam3r",reason="queue_full"} 7.0
worldsystem_node_fact{stage="splats",fact="memory_bytes"} 6.0
worldsystem_latency_seconds_bucket{stage="mesher",le="0.1"} 1.0
worldsystem_latency_seconds_bucket{stage="mesher",le="0.5"} 4.0
worldsystem_latency_seconds_bucket{stage="mesher",le="+Inf"} 4.0
worldsystem_latency_seconds_bucket{stage="slam3r",le="0.1"} 9.0
"""


def flight(
    *, count: int = 101, period_s: float = 72.0, mb_per_h: float = 0.0, late_fps: float = 10.0
) -> list[Sample]:
    """Two hours; 1000 MB at the start, 10 frames a second up to the last tenth of the time."""
    samples = []
    for t_s in period_s * np.arange(count):
        late_s = max(0.0, t_s - 0.9 * period_s * (count - 1))
        tracked = round(10.0 * (t_s - late_s) + late_fps * late_s)
        process = ProcessSample("system", 1000.0 + mb_per_h * t_s / 3600.0, 40, 90)
        account = Account(tracked=tracked, mesher_mb=100.0)
        samples.append(Sample(float(t_s), {7: process}, account))
    return samples


def found_by(samples: list[Sample], unexplained: float = 0.0) -> dict[str, tuple[float, str]]:
    bench = Benchmark("soak")
    figures.add_figures(bench, samples, unexplained)
    return {f.id.removeprefix("soak."): (f.value, f.note) for f in bench.figures}


def test_a_straight_line_has_its_slope_and_no_error() -> None:
    found = figures.slope([0.0, 1800.0, 3600.0], [200.0, 201.0, 202.0])
    assert found.percent_per_h == pytest.approx(1.0)
    assert found.error_percent_per_h == pytest.approx(0.0, abs=1e-9)
    assert (found.begin, found.end) == pytest.approx((200.0, 202.0))


def test_the_standard_error_is_that_of_the_textbook() -> None:
    # x = 0 … 3 h, y = 100 + (1, -1, -1, 1): slope 0, residuals ±1: s² = 4 / 2, Σ(x - x̄)² = 5
    found = figures.slope([0.0, 3600.0, 7200.0, 10800.0], [101.0, 99.0, 99.0, 101.0])
    assert found.percent_per_h == pytest.approx(0.0, abs=1e-9)
    assert found.error_percent_per_h == pytest.approx(np.sqrt(2.0 / 5.0))


def test_samples_that_follow_each_other_count_once_for_the_standard_error() -> None:
    rng = np.random.default_rng(0)
    t_s = np.arange(0.0, 7200.0, 5.0)
    found = []
    for _ in range(200):  # memory that is up or down for five minutes at a time
        values = 1000.0 + np.repeat(rng.normal(0.0, 20.0, 24), 60)
        found.append(figures.slope(t_s, values))
    scatter = np.std([each.percent_per_h for each in found])
    told = np.mean([each.error_percent_per_h for each in found])
    assert told == pytest.approx(scatter, rel=0.15)


def test_the_series_tells_the_means_of_what_changes() -> None:
    samples = flight(count=11, period_s=60.0, mb_per_h=60.0)
    samples = [
        replace(s, account=Account(facts={"splats.splats": s.t_s, "splats.voxel": 0.1}))
        for s in samples
    ]
    head, *rows = figures.series(samples)
    assert head == ["minute", "system.resident", "splats.splats"]
    assert rows == [["2.5", "1002", "120"], ["7.5", "1007", "420"], ["12.5", "1010", "600"]]


@pytest.mark.parametrize("values", [[], [1.0, 2.0], [1.0, np.nan, 2.0, np.nan]])
def test_too_few_values_have_no_slope(values: list[float]) -> None:
    assert np.isnan(figures.slope(np.arange(len(values)), values).percent_per_h)


def test_growth_before_the_warm_up_is_over_does_not_count() -> None:
    samples = flight()
    young = [s for s in samples if s.t_s < 720.0]
    for sample in young:
        sample.processes[7] = ProcessSample("system", 10.0, 1, 1)
    found = found_by(samples)
    assert found["memory_slope.system"][0] == pytest.approx(0.0, abs=1e-9)
    assert found["threads_grown"][0] == found["files_grown"][0] == 0


def test_a_process_that_grows_misses_its_target_and_one_that_does_not_meets_it() -> None:
    value, note = found_by(flight(mb_per_h=20.0))["memory_slope.system"]
    # of the 1004 MB that there are when the warm-up of 0.2 h is over
    assert value == pytest.approx(100.0 * 20.0 / 1004.0)
    assert "misses the target ≤ 0.5" in note
    assert "meets the target ≤ 0.5" in found_by(flight())["memory_slope.system"][1]


def test_of_several_processes_the_one_that_grows_most_is_named() -> None:
    samples = flight(mb_per_h=20.0)
    for sample in samples:
        sample.processes[9] = ProcessSample("rerun", 50.0 + 5.0 * sample.t_s / 3600.0, 4, 9)
        sample.processes[10] = ProcessSample("simulator", 300.0, 4, 9)
    value, note = found_by(samples)["runtime.soak_memory_slope_percent_h"]
    assert value == pytest.approx(100.0 * 5.0 / 51.0)
    assert note.endswith("rerun")
    assert np.isnan(found_by(flight(count=1))["runtime.soak_memory_slope_percent_h"][0])


def test_what_the_mesher_holds_is_told_apart() -> None:
    samples = flight(mb_per_h=20.0)
    samples = [
        Sample(s.t_s, s.processes, Account(s.account.tracked, mesher_mb=100 + 20 * s.t_s / 3600))
        for s in samples
    ]
    found = found_by(samples)
    assert found["mesher_memory_grown"][0] == pytest.approx(36.0)  # 20 MB/h for 1.8 h
    assert found["memory_slope.system_without_mesher"][0] == pytest.approx(0.0, abs=1e-9)


def test_the_pace_of_the_last_tenth_is_held_against_the_second() -> None:
    value, note = found_by(flight(late_fps=9.0))["fps_end_over_start"]
    assert value == pytest.approx(0.9)
    assert "misses the target ≥ 0.95" in note
    assert "meets" in found_by(flight())["fps_end_over_start"][1]
    assert found_by(flight())["fps"][0] == pytest.approx(10.0)


def test_a_process_that_dies_is_counted_and_one_that_takes_its_place_has_its_own_line() -> None:
    samples = flight()
    for number, sample in enumerate(samples):  # dies at 40 %, and the reserve goes on with its work
        alive = number < 40
        if alive:
            sample.processes[8] = ProcessSample("reconstruction", 450.0, 4, 9)
        label, memory_mb = ("reserve", 270.0) if alive else ("reconstruction", 450.0)
        sample.processes[9] = ProcessSample(label, memory_mb, 4, 9)
    samples[50].processes[11] = ProcessSample("sh", 1.0, 1, 3)
    found = found_by(samples)
    assert found["processes_ended"] == (1, "reconstruction")
    assert found["memory_slope.reconstruction"][0] == 0.0
    assert "memory_slope.reserve" not in found
    assert found_by(flight())["processes_ended"][0] == 0


def test_two_processes_of_one_name_have_columns_of_their_own_in_the_series() -> None:
    samples = flight(count=3)
    for sample in samples:
        sample.processes[8] = ProcessSample("reserve", 270.0, 4, 9)
        sample.processes[9] = ProcessSample("reserve", 280.0, 4, 9)
    head, first, *_ = figures.series(samples)
    row = dict(zip(head, first, strict=True))
    assert (row["reserve.resident"], row["reserve_2.resident"]) == ("270", "280")


def test_a_short_flight_says_that_its_error_is_too_small() -> None:
    assert (
        "as if samples were independent"
        in (found_by(flight(count=101, period_s=5.0, mb_per_h=9.0))["memory_slope.system"][1])
    )
    assert "five-minute means" in found_by(flight(mb_per_h=9.0))["memory_slope.system"][1]


def test_a_process_that_was_there_for_a_moment_is_not_judged() -> None:
    samples = flight()
    samples[50].processes[8] = ProcessSample("sh", 1.0, 1, 3)
    for sample in samples:
        sample.processes[9] = ProcessSample("rerun", 50.0, 4, 9)
        sample.processes[10] = ProcessSample("rerun", 60.0, 4, 9)
    assert list(figures.memory_slopes(samples)) == ["system", "rerun", "rerun_2"]


def test_unexplained_frames_are_those_of_the_summary_and_of_the_accounts() -> None:
    assert found_by(flight(), 2.0)["unexplained_frames"][0] == 2
    value, note = found_by(flight(), float("nan"))["unexplained_frames"]
    assert np.isnan(value)
    assert "not judged" in note


def test_a_fault_in_an_account_that_the_summary_tells_of_too_counts_once() -> None:
    samples = flight()
    at_fault = replace(samples[-1].account, faults=3)
    samples[-1] = replace(samples[-1], account=at_fault)
    for of_the_summary, in_all in ((0.0, 3), (3.0, 3), (5.0, 5)):
        assert found_by(samples, of_the_summary)["unexplained_frames"][0] == in_all


def test_a_soak_stopped_at_its_first_sample_still_has_figures_and_none_without() -> None:
    assert np.isnan(found_by(flight(count=1))["fps_end_over_start"][0])
    assert found_by([]) == {}


def test_latency_is_that_of_what_came_out_in_between() -> None:
    edges = (0.1, 0.2, float("inf"))
    first = Sample(0.0, {}, Account(latency_edges_s=edges, latency_counts=(0.0, 50.0, 0.0)))
    last = Sample(9.0, {}, Account(latency_edges_s=edges, latency_counts=(100.0, 53.0, 0.0)))
    assert figures.latency_p95_ms(first, last) == pytest.approx(100.0)
    assert np.isnan(figures.latency_p95_ms(first, first))


def test_both_pages_make_an_account() -> None:
    account = account_from(MONITOR_PAGE, "worldsystem_mesh_memory_bytes 3e+06\n")
    assert account.tracked == 120
    assert account.faults == 3  # a violation, and two frames settled that were never taken
    assert account.dropped == {"slam3r.queue_full": 7}
    assert account.latency_edges_s == (0.1, 0.5, float("inf"))
    assert account.latency_counts == (1.0, 3.0, 0.0)
    assert account.mesher_mb == 3.0
    assert account.allocated_mb == 5.0
    assert account.facts == {"splats.memory_bytes": 6.0}
    assert np.isnan(account_from("", "").mesher_mb)


def test_this_process_is_seen_with_its_memory_threads_and_files() -> None:
    import os

    seen = processes_of(os.getpid())[os.getpid()]
    assert seen.label == "system"
    assert 5 < seen.anonymous_mb < seen.memory_mb
    assert seen.threads >= 1
    assert seen.files >= 3
    assert processes_of(2**22 + 1) == {}  # above the highest id there is


@pytest.mark.parametrize("text", ["two", "0", "-1", "nan", "inf"])
def test_hours_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="not a number of hours"):
        bench_soak.hours(text)
    assert bench_soak.hours("0.1") == 0.1
