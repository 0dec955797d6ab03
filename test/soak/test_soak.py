# SPDX-License-Identifier: Apache-2.0
"""A soak of the real system, much shorter than it is made for."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.ros, pytest.mark.timeout(600)]


@contextlib.contextmanager
def begun(tmp_path: Path, hours: str) -> Iterator[subprocess.Popen[str]]:
    """`make soak` of a short flight, with its file in `tmp_path`."""
    code = (
        "import sys, pathlib, harness; harness.RESULTS = pathlib.Path(sys.argv[1]); "
        "import bench_soak; sys.exit(bench_soak.main(sys.argv[2:]))"
    )
    options = [str(tmp_path), "--hours", hours, "--lap", "10"]
    soak = subprocess.Popen(
        [sys.executable, "-c", code, *options],
        env=os.environ | {"PYTHONPATH": f"{ROOT / 'benchmarks'}:{os.environ['PYTHONPATH']}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield soak
    finally:
        if soak.poll() is None:
            soak.send_signal(signal.SIGINT)  # it ends its run, which has a session of its own
            with contextlib.suppress(subprocess.TimeoutExpired):
                soak.communicate(timeout=60.0)
            soak.kill()


def written(tmp_path: Path) -> dict[str, dict]:
    content = json.loads((tmp_path / "soak.json").read_text())
    return {result["id"].removeprefix("soak."): result for result in content["results"]}


def test_a_short_soak_flies_more_than_once_and_writes_its_file(tmp_path: Path) -> None:
    pytest.importorskip("rclpy", reason="ROS is not set up: run this through `make test-all`")
    with begun(tmp_path, "0.008") as soak:
        output, _ = soak.communicate(timeout=550)
    assert soak.returncode == 0, output
    found = written(tmp_path)
    assert found["hours"]["value"] == pytest.approx(0.008, abs=0.001)
    assert found["unexplained_frames"]["value"] == 0, output
    assert found["fps"]["value"] > 0
    assert {"memory_slope.system", "memory_slope.simulator", "memory_slope.rerun"} <= found.keys()


def test_ctrl_c_writes_what_there_is(tmp_path: Path) -> None:
    pytest.importorskip("rclpy", reason="ROS is not set up: run this through `make test-all`")
    with begun(tmp_path, "5") as soak:
        assert any("Ctrl-C" in line for line in soak.stdout), "it never tracked a frame"
        time.sleep(12.0)
        soak.send_signal(signal.SIGINT)
        output, _ = soak.communicate(timeout=500)
    assert soak.returncode == 0, output
    assert 0 < written(tmp_path)["hours"]["value"] < 0.02
