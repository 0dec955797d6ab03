# SPDX-License-Identifier: Apache-2.0
"""The whole system live, with so many pages open and with none."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench_soak import free_ports
from harness import QUICK

DURATION_S, PAIRS = (20, 1) if QUICK else (60, 3)
START_S = 120.0
_POLL_S = 0.2


def flights(viewers: int) -> list[tuple[dict[str, float], dict[str, float]]]:
    """Figures of the demo (`demo.*` of its summary) alone and watched, in turns."""
    return [(flight(0), flight(viewers)) for _ in range(PAIRS)]


def flight(viewers: int) -> dict[str, float]:
    """One demo, watched by pages from the moment on in which the port is open."""
    ports = free_ports()
    settings = [f"{name}={port}" for name, port in ports.items()]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        command = [sys.executable, "-m", "worldsystem.cli", "demo", "--duration", str(DURATION_S)]
        demo = subprocess.Popen(
            [*command, "--out", str(out), "--set", *settings], stdout=subprocess.DEVNULL
        )
        crowd = _crowd(ports["viewer.web_port"], viewers, demo) if viewers else None
        try:
            if demo.wait(START_S + 10 * DURATION_S):
                raise RuntimeError(f"the demo ended with code {demo.returncode}")
            if crowd is not None and crowd.poll() not in (None, 0):
                raise RuntimeError(f"the pages ended with code {crowd.returncode}")
        finally:
            for process in (demo, crowd):
                if process is not None:
                    process.kill()
                    process.wait(10.0)
        results = json.loads((out / "summary.json").read_text())["results"]
    values = {entry["id"]: entry["value"] for entry in results}
    return {key: math.nan if value is None else float(value) for key, value in values.items()}


def _crowd(port: int, viewers: int, demo: subprocess.Popen[bytes]) -> subprocess.Popen[bytes]:
    """Pages are on other machines: here they shall take only what is left."""
    script = str(Path(__file__).parent / "viewer_crowd.py")
    command = ["nice", "-n", "19", sys.executable, script, str(port), str(viewers)]
    deadline_s = time.monotonic() + START_S
    while demo.poll() is None and time.monotonic() < deadline_s:
        crowd = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert crowd.stdout is not None
        if crowd.stdout.readline().strip() == b"connected":
            return crowd
        crowd.wait(10.0)  # nobody listens yet
        time.sleep(_POLL_S)
    demo.kill()
    raise RuntimeError("no page was let in")
