# SPDX-License-Identifier: Apache-2.0
"""What came of it, as a table and as JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from worldsystem.catalogue.runs import SUMMARY_FILE, Run, read_run
from worldsystem.reprocess.task import Outcome

RESULTS_FILE = "results.json"
_FIGURES = ("ate_percent", "mesh_fscore", "tracked_percent")


def table(outcomes: Iterable[Outcome]) -> str:
    """A line for each, in the order given."""
    rows: list[tuple[str, ...]] = [
        ("run", "state", "seconds", "keyframes", "triangles", *_FIGURES, "")
    ]
    for outcome in outcomes:
        run = _run(outcome)
        counts = (str(run.keyframes), str(run.triangles)) if run else ("–", "–")
        figures = tuple(_figure(run, name) for name in _FIGURES)
        took = f"{outcome.seconds:.0f}" if outcome.seconds else "–"
        rows.append((outcome.name, outcome.state, took, *counts, *figures, outcome.problem))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = (_line(row, widths) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def write_results(out: Path, outcomes: Iterable[Outcome]) -> Path:
    """Write `results.json` at once or not at all; what each run came to, in the order given."""
    entries = []
    for outcome in outcomes:
        run = _run(outcome)
        found = {"keyframes": run.keyframes, "triangles": run.triangles} if run else {}
        entries.append(asdict(outcome) | found | {"figures": run.figures if run else {}})
    path, part = out / RESULTS_FILE, out / f".{RESULTS_FILE}"
    part.write_text(json.dumps({"runs": entries}, indent=1) + "\n", encoding="utf-8")
    os.replace(part, path)
    return path


def _run(outcome: Outcome) -> Run | None:
    """What is in its folder; not where that is of an earlier run, which a failed one leaves."""
    folder = Path(outcome.folder)
    if outcome.state not in ("finished", "skipped"):
        return None
    return read_run(folder) if (folder / SUMMARY_FILE).is_file() else None


def _figure(run: Run | None, name: str) -> str:
    value = run.figures.get(name) if run else None
    return "–" if value is None else f"{value:.4g}"


def _line(row: tuple[str, ...], widths: list[int]) -> str:
    """The first two columns and the last begin where they begin; numbers end where they end."""
    last = len(row) - 1
    cells = (
        f"{cell:{'<' if column in (0, 1, last) else '>'}{width}s}"
        for column, (cell, width) in enumerate(zip(row, widths, strict=True))
    )
    return "  ".join(cells)
