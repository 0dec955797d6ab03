# SPDX-License-Identifier: Apache-2.0
"""What every benchmark shares: figures with their spread, written as `results/<name>.json`."""

from __future__ import annotations

import json
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

QUICK = os.environ.get("QUICK") == "1"
QUICK_MARK, _QUICKLY = "QUICK=1", ", QUICK=1"
RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Figure:
    """One number: its value, its unit, over how many runs, and the lowest and highest of them.

    `of`: commit, day and machine, where they are not those of its file: it was measured before.
    """

    id: str
    value: float
    unit: str
    n: int = 1
    spread: tuple[float, ...] = ()
    note: str = ""
    of: str = ""


@dataclass
class Benchmark:
    """Collects the figures of one file and writes them with machine, commit and command.

    Ids begin with `id_prefix`, or with the file's name where that is empty.
    """

    name: str
    figures: list[Figure] = field(default_factory=list)
    id_prefix: str = ""

    def add(
        self,
        id: str,
        values: float | Sequence[float],
        unit: str,
        *,
        note: str = "",
        id_prefix: str = "",
    ) -> None:
        """Add a figure; of several values the median is reported, with the extremes as spread, and
        nothing (NaN) where one of them is that.

        `id_prefix`: one that has another than the file's others.
        """
        runs = [float(v) for v in (values if isinstance(values, Sequence) else [values])]
        whole = not any(map(math.isnan, runs))  # one that gave nothing is no run to leave out
        spread = (min(runs), max(runs)) if whole and len(runs) > 1 else ()
        value = statistics.median(runs) if whole else math.nan
        full_id = f"{id_prefix or self.id_prefix or self.name}.{id}"
        figure = Figure(full_id, value, unit, len(runs), spread, note)
        self.figures.append(figure)
        print(f"{figure.id:45s} {figure.value:12.4g} {unit:10s} {note}", flush=True)

    @property
    def path(self) -> Path:
        """`results/<name>.json`, or `<name>$BENCH_SUFFIX.json`."""
        return RESULTS / f"{self.name}{os.environ.get('BENCH_SUFFIX', '')}.json"

    def keep_others(self) -> None:
        """Take over, before those measured now, the other figures of the last run, each with what
        it is of: for a run of some parts."""
        if not self.path.is_file():
            return
        content = json.loads(self.path.read_text())
        of = _origin(content["commit"], content["date"], content["machine"])
        of += _QUICKLY if QUICK_MARK in content["command"] else ""
        if of == _origin(commit(), today(), machine()) + (_QUICKLY if QUICK else ""):
            of = ""
        measured = {figure.id for figure in self.figures}
        before = [Figure(**{"of": of} | result) for result in content["results"]]
        self.figures[:0] = [figure for figure in before if figure.id not in measured]

    def write(self) -> Path:
        """Write the figures and return their path."""
        RESULTS.mkdir(exist_ok=True)
        path = self.path
        content = {
            "machine": machine(),
            "commit": commit(),
            "command": command(self.name),
            "date": today(),
            "results": [_entry(figure) for figure in self.figures],
        }
        path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
        return path


def _origin(commit: str, day: str, machine: str) -> str:
    return f"commit {commit}, {day}, {machine}"


def today() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d")


def _entry(figure: Figure) -> dict[str, Any]:
    """As it is written; `of` only where it tells something."""
    return {key: value for key, value in asdict(figure).items() if value or key != "of"}


def machine() -> str:
    """Processor, cores and Python, enough to compare figures by."""
    cpu = "unknown processor"
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                cpu = line.split(":", 1)[1].strip()
                break
    return f"{cpu}, {os.cpu_count()} cores, Python {platform.python_version()}"


def command(name: str) -> str:
    """What makes this file again; a script that runs several benchmarks names itself."""
    given = os.environ.get("BENCH_COMMAND", f"make bench NAME={name}")
    return given + (f" {QUICK_MARK}" if QUICK else "")


def commit() -> str:
    """Short hash of the checked-out commit, with `+` when files differ from it."""
    try:
        run = ["git", "describe", "--always", "--dirty=+", "--exclude=*"]
        return subprocess.run(run, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def timed_ms(function: Callable[[], object], runs: int) -> list[float]:
    """Wall time of each of `runs` calls [ms]; the caller warms up first."""
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        function()
        times.append(1e3 * (time.perf_counter() - start))
    return times
