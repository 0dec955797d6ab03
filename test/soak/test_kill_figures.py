# SPDX-License-Identifier: Apache-2.0
"""What is said of many kills, on made-up ones."""

from __future__ import annotations

import math
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import bench_kills
from harness import Benchmark
from kills_campaign import Kill


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
