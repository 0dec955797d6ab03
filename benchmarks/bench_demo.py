# SPDX-License-Identifier: Apache-2.0
"""The whole system on the simulated drone, as `make demo` runs it: accuracy, speed and losses."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from harness import QUICK, Benchmark

DURATION_S, RUNS = (30, 1) if QUICK else (60, 3)


def main() -> None:
    """Run the demo and report the figures of its summaries: runs of the same code differ."""
    bench = Benchmark("demo")
    summaries = [fly() for _ in range(RUNS)]
    note = f"{DURATION_S} s at 15 fps, 640×360, all viewers on"
    for entry in summaries[0]:
        same = [e["value"] for summary in summaries for e in summary if e["id"] == entry["id"]]
        values = [math.nan if value is None else value for value in same]  # could not be measured
        bench.add(entry["id"].removeprefix("demo."), values, entry["unit"], note=note)
    bench.write()


def fly() -> list[dict[str, Any]]:
    """One demo; the results of its summary."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        command = [sys.executable, "-m", "worldsystem.cli", "demo", "--duration", str(DURATION_S)]
        subprocess.run([*command, "--out", str(out)], check=True, stdout=subprocess.DEVNULL)
        results: list[dict[str, Any]] = json.loads((out / "summary.json").read_text())["results"]
    return results


if __name__ == "__main__":
    main()
