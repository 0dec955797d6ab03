# SPDX-License-Identifier: Apache-2.0
"""The whole system on the simulated drone, as `make demo` runs it: accuracy, speed and losses."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from harness import QUICK, Benchmark

DURATION_S = 30 if QUICK else 60


def main() -> None:
    """Run one demo and report the figures of its summary."""
    bench = Benchmark("demo")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        command = [sys.executable, "-m", "worldsystem.cli", "demo", "--duration", str(DURATION_S)]
        subprocess.run([*command, "--out", str(out)], check=True, stdout=subprocess.DEVNULL)
        summary = json.loads((out / "summary.json").read_text())
    note = f"{DURATION_S} s at 15 fps, 640×360, one run, all viewers on"
    for entry in summary["results"]:
        name = entry["id"].removeprefix("demo.")
        bench.add(name, entry["value"], entry["unit"], note=note)
    bench.write()


if __name__ == "__main__":
    main()
