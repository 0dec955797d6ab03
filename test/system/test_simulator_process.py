# SPDX-License-Identifier: Apache-2.0
"""The simulator beside a run ends with it, in order, however the run ends."""

from __future__ import annotations

import subprocess
import sys
import textwrap

from test_spare_process import is_gone, wait_until

from worldsystem_sim.truth import SCENE_FILE

RUN = """
    import sys, time
    from pathlib import Path
    from worldsystem.graph import Choice
    from worldsystem.simulator_process import SimulatorProcess

    small = {"simulator": {"width": 160, "height": 96}, "ingest": {"port": 1}}
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
    wait_until(lambda: is_gone(simulator), 20.0)
    assert (tmp_path / "truth" / SCENE_FILE).exists()
