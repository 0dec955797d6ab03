# SPDX-License-Identifier: Apache-2.0
"""What a benchmark of some parts writes of the others."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import harness
from harness import Benchmark


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    monkeypatch.setattr(harness, "machine", lambda: "a machine")


def measured(values: dict[str, float], commit: str, *, parts: bool = False) -> dict[str, Any]:
    harness.commit = lambda: commit
    bench = Benchmark("room")
    for name, value in values.items():
        bench.add(name, value, "ms")
    if parts:
        bench.keep_others()
    content = json.loads(bench.write().read_text())
    return {figure["id"]: figure for figure in content["results"]}


def test_figures_of_other_parts_stay_and_say_what_they_are_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(harness, "commit", harness.commit)  # put back at the end
    measured({"a": 1.0, "b": 2.0}, "aaaa")
    found = measured({"b": 3.0}, "bbbb", parts=True)
    assert found["room.b"]["value"] == 3.0
    assert "of" not in found["room.b"]
    assert found["room.a"]["of"] == f"commit aaaa, {harness.today()}, a machine"
    again = measured({"b": 4.0}, "cccc", parts=True)
    assert again["room.a"]["of"].startswith("commit aaaa")


def test_a_run_of_all_parts_leaves_nothing_of_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "commit", harness.commit)
    measured({"a": 1.0, "b": 2.0}, "aaaa")
    assert list(measured({"b": 3.0}, "bbbb")) == ["room.b"]


def test_parts_measured_at_one_commit_say_nothing_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "commit", harness.commit)
    measured({"a": 1.0}, "aaaa")
    found = measured({"b": 3.0}, "aaaa", parts=True)
    assert list(found) == ["room.a", "room.b"]
    assert "of" not in found["room.a"]


def test_a_soak_of_the_page_says_its_length_and_counts_in_megabytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import bench_viewer
    import viewer_in_browser
    import viewer_soak

    class Page:
        def evaluate(self, _: str) -> float:
            return 3e6

    assert viewer_in_browser.heap_mb(Page()) == 3.0
    monkeypatch.setattr(viewer_soak, "_read", lambda pid, name: b"9 1000 0")
    monkeypatch.setattr(viewer_soak, "_PAGE_BYTES", 4000)
    assert viewer_soak._resident_mb(1) == 4.0

    kept = {key: value for key, value in os.environ.items() if not key.startswith("BENCH_")}
    monkeypatch.setattr(os, "environ", kept)
    monkeypatch.setattr(sys, "argv", ["bench_viewer.py", "soak"])
    monkeypatch.setattr(bench_viewer, "SOAK_MIN", 30.0)
    monkeypatch.setattr(bench_viewer, "share_interpreter", lambda: None)
    monkeypatch.setattr(bench_viewer, "precompile", lambda: None)
    monkeypatch.setattr(bench_viewer, "film", lambda *_, **__: iter(()))
    monkeypatch.setattr(bench_viewer.gc, "freeze", lambda: None)
    monkeypatch.setitem(bench_viewer.PARTS, "soak", lambda bench, moments: None)
    bench_viewer.main()
    content = json.loads((tmp_path / "viewer_soak.json").read_text())
    assert content["command"].startswith('SOAK_MIN=30 make bench NAME=viewer ARGS="soak"')
