# SPDX-License-Identifier: Apache-2.0
"""How long each target was fuzzed in all, in a file like those of the benchmarks."""

from __future__ import annotations

import fcntl
import json
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from harness import commit, machine

_COMMAND = 'make fuzz ARGS="--results benchmarks/results/fuzz.json", several times'


@dataclass(frozen=True)
class Run:
    """One target's search: how long, how often it ran, and what code the corpus reaches."""

    target: str
    seconds: int
    executions: int
    counters: int
    features: int

    def __str__(self) -> str:
        rate = self.executions / max(1, self.seconds)
        return (
            f"{self.target:14} {self.seconds} s, {self.executions} executions ({rate:.0f}/s), "
            f"{self.counters} counters, {self.features} features"
        )


def add_to_account(run: Run, results: Path) -> None:
    """Add a run's time and executions to what `results` says of its target."""
    results.touch()
    with results.open("r+") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        text = stream.read()
        figures = {f["id"]: f for f in json.loads(text)["results"]} if text else {}
        name = f"fuzz.{run.target}_min"
        before = figures.get(name, {"value": 0.0, "n": 0})
        figures[name] = {
            "id": name,
            "value": round(before["value"] + run.seconds / 60, 2),
            "unit": "min",
            "n": before["n"] + run.executions,
            "spread": [],
            "note": f"{run.counters} counters, {run.features} features reached; `of`: executions",
        }
        content = {
            "machine": machine(),
            "commit": commit(),
            "command": _COMMAND,
            "date": datetime.now(UTC).strftime("%Y-%m-%d"),
            "results": [figures[key] for key in sorted(figures)],
        }
        stream.seek(0)
        stream.truncate()
        stream.write(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
