# SPDX-License-Identifier: Apache-2.0
"""What is said of many kills, on made-up ones."""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import bench_kills
from harness import Benchmark
from kills_campaign import Campaign, Kill
from kills_keyframes import SeenKeyframes


def worst_of(kills: list[Kill]) -> dict[str, tuple[float, str]]:
    bench = Benchmark("kills")
    bench_kills.add_worst(bench, kills, "")
    return {f.id: (f.value, f.note) for f in bench.figures}


def test_the_longest_return_and_the_longest_silence_are_told_with_whose_they_are() -> None:
    kills = [
        Kill("mesher", back_s=3.0, stalls_s={"slam3r output": 0.4, "viewer sign": 1.2}),
        Kill("viewer", back_s=1.0, stalls_s={"slam3r output": 2.5, "mesher sign": 1.1}),
    ]
    found = worst_of(kills)
    assert found["runtime.restart_s_max"][0] == 3.0
    assert found["runtime.restart_s_max"][1].endswith("all 2 returns: mesher")
    assert found["runtime.stall_s_max"][0] == 2.5
    assert "slam3r output, when viewer was killed" in found["runtime.stall_s_max"][1]


def test_one_that_never_came_back_is_no_short_return() -> None:
    found = worst_of([Kill("mesher", back_s=3.0), Kill("viewer")])
    assert math.isnan(found["runtime.restart_s_max"][0])
    assert found["runtime.restart_s_max"][1].endswith("viewer")
    assert math.isnan(found["runtime.stall_s_max"][0])


class Struck:
    """A campaign whose run ends by itself with the second kill."""

    def __init__(self) -> None:
        self.struck: list[str] = []

    def strike(self, stage: str) -> Kill:
        self.struck.append(stage)
        if len(self.struck) == 2:
            raise RuntimeError("the run ended; its words: boom")
        return Kill(stage, back_s=1.0, lost_s=0.5, stalls_s={"viewer sign": 1.2})


def test_kills_before_the_end_of_a_run_that_died_are_told_and_the_last_is_a_miss() -> None:
    kills: list[Kill] = []
    order = ["slam3r", "slam3r", "slam3r"]
    broken = bench_kills.strike_all(Struck(), order, kills, time.monotonic() + 9.0)
    assert "boom" in broken
    assert len(kills) == 2
    results = bench_kills.Results()
    results.kills = kills
    bench = Benchmark("kills")
    bench_kills.report(bench, results)
    found = {figure.id: figure for figure in bench.figures}
    assert found["kills.slam3r_back_s"].value == 1.0
    assert "1 of 2 came back" in found["kills.slam3r_back_s"].note
    for missed in ("kills.slam3r_lost_s", "runtime.restart_s_max", "kills.unexplained_frames"):
        assert math.isnan(found[missed].value)


def test_a_stage_that_never_came_back_is_told_so() -> None:
    results = bench_kills.Results()
    results.kills = [Kill("mesher"), Kill("viewer", back_s=1.0)]
    bench = Benchmark("kills")
    bench_kills.report(bench, results)
    found = {figure.id: figure.value for figure in bench.figures}
    assert math.isnan(found["kills.mesher_back_s"])
    assert found["kills.viewer_back_s"] == 1.0
    assert math.isnan(found["runtime.restart_s_max"])


def test_who_is_not_there_is_not_killed_and_never_came_back(monkeypatch) -> None:
    monkeypatch.setattr("kills_campaign.APART_S", 0.0)

    class Empty:
        def stages(self) -> dict[str, int]:
            return {}

    campaign = Campaign(Empty(), None, seed=1, pause_s=0.0)
    assert math.isnan(campaign.strike("mesher").back_s)


def test_a_keyframe_is_not_lost_for_which_another_stands_in_whether_or_not_it_was_told_again() -> (
    None
):
    seen = SeenKeyframes()
    for number in range(5):
        seen.told(number, 10 * number)
    seen.gone(0, has_heir=True)
    seen.begin_anew()
    assert seen.there() == {}
    seen.told(1, 10)
    seen.gone(1, has_heir=True)
    seen.gone(2, has_heir=True)  # before it was told again
    seen.gone(3, has_heir=False)  # withdrawn: it had not been saved
    seen.told(4, 99)  # another one, with the number of one that is lost
    seen.gone(4, has_heir=True)
    assert seen.replaced() == {0, 10, 20, 99}
