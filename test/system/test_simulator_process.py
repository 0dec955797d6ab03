# SPDX-License-Identifier: Apache-2.0
"""The simulator beside a run ends with it, in order, however the run ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest
from test_spare_process import is_gone, wait_until

from worldsystem import pipeline
from worldsystem.graph import Choice
from worldsystem_core.errors import WorldSystemError
from worldsystem_core.frames import Frame
from worldsystem_ingest.sink import Sink, Summary
from worldsystem_sim.truth import SCENE_FILE

RUN = """
    import sys, time
    from pathlib import Path
    from worldsystem.graph import Choice
    from worldsystem.simulator_process import SimulatorProcess

    small = {"simulator": {"width": 160, "height": 96, "loop": True}, "ingest": {"port": 1}}
    flight = Choice(out=Path(sys.argv[1]), duration_s=10.0, extra=small)
    simulator = SimulatorProcess(flight)
    while "flying" not in simulator.message:
        time.sleep(0.01)
    print(simulator._process.pid, flush=True)
    time.sleep(600)
"""


def test_a_run_that_is_killed_has_its_simulator_land_and_tell_the_truth(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLDSYSTEM_CACHE", str(tmp_path / "cache"))
    command = [sys.executable, "-c", textwrap.dedent(RUN), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as run:
        simulator = int(run.stdout.readline())
        run.kill()
    try:
        wait_until(lambda: is_gone(simulator), 20.0)
    finally:
        if not is_gone(simulator):
            os.kill(simulator, signal.SIGKILL)  # it would fly on for ever
    assert (tmp_path / "truth" / SCENE_FILE).exists()


class Crashed:
    """A simulator that sent some pictures and then failed."""

    ended = True

    def __init__(self, choice: Choice) -> None:
        pass

    def stop(self) -> None:
        pass

    def raise_failure(self) -> None:
        raise WorldSystemError("the simulator failed: it fell")


class FewPictures:
    live = False

    def run(self, sink: Sink, stop: threading.Event) -> Summary:
        for number in range(3):
            rgb = np.full((120, 160, 3), 100, np.uint8)
            sink.frame(Frame(id=number, stamp_ns=number * 10**8, rgb=rgb))
        return Summary(3)


def test_what_a_simulator_sent_before_it_failed_is_kept_without_ros_too(tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "SimulatorProcess", Crashed)
    monkeypatch.setattr(pipeline, "open_source", lambda *_: FewPictures())
    with pytest.raises(WorldSystemError, match="it fell"):
        pipeline.run_pipeline(Choice(out=tmp_path / "run"))
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["ledger"][0]["used"] == 3
    assert (tmp_path / "run" / "report.html").exists()
