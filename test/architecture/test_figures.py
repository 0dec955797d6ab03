# SPDX-License-Identifier: Apache-2.0
"""The README's figures are measured ones, and one that misses what is asked is shown as missed."""

from __future__ import annotations

import importlib.util
import json
import math
import re
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = tomllib.loads((ROOT / "benchmarks" / "targets.toml").read_text(encoding="utf-8"))["room"]
ROWS = [row for room in ROOMS for row in room["figures"]]


def loaded() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tables", ROOT / "tools" / "tables.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


tables = loaded()


def results_with(folder: Path, value: float) -> Path:
    figure = {"id": "a.ms", "value": value, "unit": "ms", "n": 1, "spread": [], "note": ""}
    (folder / "a.json").write_text(json.dumps({"results": [figure]}))
    return folder


def room(**more: str) -> list[dict[str, Any]]:
    return [{"name": "Room", "figures": [{"file": "a", "id": "a.ms", "says": "time", **more}]}]


def test_what_is_asked_can_be_judged() -> None:
    for row in ROWS:
        assert tables.meets(1.0, row.get("asked", "≥ 0")) in (True, False)


def test_a_figure_stands_in_the_readme_once() -> None:
    named = [(row["file"], row["id"]) for row in ROWS]
    assert len(set(named)) == len(named)


@pytest.mark.parametrize(
    ("value", "asked", "met"),
    [
        (5.0, "≤ 5", True),
        (5.004, "≤ 5", True),  # 5 is shown
        (5.01, "≤ 5", False),
        (0.949, "≥ 0.95", False),
        (0.0, "= 0", True),
        (1.0, "= 0", False),
        (math.nan, "≤ 5", False),
        (math.inf, "≥ 5", False),
    ],
)
def test_a_figure_is_judged_by_the_digits_that_are_shown(
    value: float, asked: str, met: bool
) -> None:
    assert tables.meets(value, asked) is met


def test_one_that_misses_is_marked_and_one_that_meets_is_not(tmp_path: Path) -> None:
    results = results_with(tmp_path, 12.0)
    missed = tables.headlines(room(asked="≤ 10"), results)
    assert "| **12 ms** | ≤ 10, missed |" in missed
    assert "| 12 ms | ≤ 20 |" in tables.headlines(room(asked="≤ 20"), results)
    assert "| 12 ms |  |" in tables.headlines(room(), results)


@pytest.mark.parametrize(
    ("asked", "spread", "shown"),
    [
        ("≤ 20", [3.0, 24.0], "| **24 ms** | ≤ 20, missed |"),
        ("= 0", [0.0, 12.0], "| **12 ms** | = 0, missed |"),
        ("≥ 10", [3.0, 24.0], "| **3 ms** | ≥ 10, missed |"),
        ("≤ 20", [12.0, math.nan], "| **– ms** | ≤ 20, missed |"),
        ("≤ 20", [], "| 12 ms | ≤ 20 |"),
    ],
)
def test_a_figure_may_be_judged_by_its_worst_run(
    tmp_path: Path, asked: str, spread: list[float], shown: str
) -> None:
    results = results_with(tmp_path, 12.0)
    content = json.loads((results / "a.json").read_text())
    content["results"][0]["spread"] = spread
    (results / "a.json").write_text(json.dumps(content))
    rooms = room(asked=asked)
    rooms[0]["figures"][0]["worst"] = True
    assert shown in tables.headlines(rooms, results)


def test_a_figure_that_nobody_measured_cannot_be_shown(tmp_path: Path) -> None:
    results = results_with(tmp_path, 12.0)
    wrong = room()
    wrong[0]["figures"][0]["id"] = "a.s"
    with pytest.raises(tables.FigureMissing, match=r"'a\.s' of .*a\.json, which does not have it"):
        tables.headlines(wrong, results)


def test_a_missing_result_is_named_with_what_to_do_and_no_page_is_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pages = [ROOT / "README.md", ROOT / "docs" / "figures.md"]
    before = [page.read_bytes() for page in pages]
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    assert tables.main([]) == 1
    said = capsys.readouterr().err
    file = ROWS[0]["file"]
    assert f"'{ROWS[0]['id']}' of {tmp_path / file}.json, which is not there" in said
    assert "WORLDSYSTEM_DATA" in said
    assert f"git checkout benchmarks/results/{file}.json" in said
    assert [page.read_bytes() for page in pages] == before


@pytest.mark.parametrize(
    ("command", "of", "shown"),
    [
        ("make bench NAME=a", "", True),
        ("make bench NAME=a QUICK=1", "", False),
        ("make bench NAME=a", "commit aaaa, 2026-01-01, a machine, QUICK=1", False),
        ("make bench NAME=a QUICK=1", "commit aaaa, 2026-01-01, a machine", True),
    ],
)
def test_a_figure_of_a_quick_run_is_not_shown_whoever_kept_it(
    tmp_path: Path, command: str, of: str, shown: bool
) -> None:
    results = results_with(tmp_path, 12.0)
    content = json.loads((results / "a.json").read_text()) | {"command": command}
    content["results"][0] |= {"of": of} if of else {}
    (results / "a.json").write_text(json.dumps(content))
    if shown:
        assert "| 12 ms |" in tables.headlines(room(), results)
    else:
        with pytest.raises(tables.FigureMissing, match="is of a quick run"):
            tables.headlines(room(), results)


def test_no_row_says_how_many_kills_there_were_but_the_figures_of_it() -> None:
    rows = [row for row in ROWS if row["file"] == "kills"]
    assert {"kills.kills", "kills.composed_kills"} <= {row["id"] for row in rows}
    for row in rows:  # a campaign ends early where the machine is slow
        assert not re.search(r"\d+ (kills|times)|of \d+$", row["says"]), row["says"]
