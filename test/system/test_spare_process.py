# SPDX-License-Identifier: Apache-2.0
"""The process in reserve: its imports are done before it is needed, and it ends with its parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from worldsystem.graph import STAGES, Stage
from worldsystem.spare_process import Spare, SpareProcess

STAGE = """
    import sys
    from pathlib import Path

    BEFORE = [name for name in sys.argv[3:] if name in sys.modules]

    def main():
        comm = Path("/proc/self/comm").read_text().strip()
        Path(sys.argv[1]).write_text(" ".join([sys.argv[0], comm, *BEFORE]))
        sys.exit(int(sys.argv[2]))
"""
TESTER = Stage("tester", "none", "stage_of_a_test:Tester", "none")


def wait_until(condition, timeout_s=60.0):
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.fixture
def spare(tmp_path, monkeypatch):
    (tmp_path / "stage_of_a_test.py").write_text(textwrap.dedent(STAGE))
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    monkeypatch.setenv("PYTHONPATH", path)
    spare = SpareProcess()
    yield spare
    spare.end()


def test_it_becomes_a_stage_whose_imports_are_done(spare, tmp_path):
    wait_until(lambda: spare.ready)
    modules = [stage.module for stage in STAGES]
    process = spare.become(TESTER, [str(tmp_path / "told"), "3", *modules])
    assert process.wait(10.0) == 3
    assert (tmp_path / "told").read_text().split() == ["tester", "tester", *modules]


def test_a_stage_that_is_told_before_it_is_ready_comes_all_the_same(spare, tmp_path):
    process = spare.become(TESTER, [str(tmp_path / "told"), "0"])
    assert process.wait(60.0) == 0


def test_it_ends_when_its_parent_is_killed():
    parent = subprocess.Popen(
        [
            *(sys.executable, "-c"),
            "import time\nfrom worldsystem.spare_process import SpareProcess\n"
            "print(SpareProcess()._process.pid, flush=True)\ntime.sleep(60)",
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    pid = int(parent.stdout.readline())
    assert not is_gone(pid)
    parent.kill()
    parent.wait(10.0)
    wait_until(lambda: is_gone(pid), 10.0)


@pytest.fixture
def reserve():
    reserve = Spare()
    yield reserve
    reserve.end()


def test_there_is_one_in_reserve_some_time_after_the_last_was_taken(reserve):
    reserve.keep(0.0)
    assert reserve._process is None
    reserve.keep(Spare.LATER_S)
    first = reserve._process
    wait_until(lambda: first.ready)
    assert reserve.take() is first
    assert reserve.take() is None
    first.end()
    reserve.keep(100.0)
    assert reserve._process is None, "the stage that comes back has the processors"
    reserve.keep(100.0 + Spare.LATER_S)
    assert reserve._process is not None


def test_one_that_is_not_ready_makes_way_for_the_stage_that_starts_by_itself(reserve):
    reserve.keep(0.0)
    reserve.keep(Spare.LATER_S)
    half_made = reserve._process
    assert reserve.take() is None
    assert not half_made.alive
    reserve.keep(20.0)
    assert reserve._process is None, "another is made later"


def test_one_that_dies_in_reserve_is_not_given_away_and_another_is_made(reserve):
    reserve.keep(0.0)
    reserve.keep(Spare.LATER_S)
    dead = reserve._process
    os.kill(dead._process.pid, signal.SIGKILL)
    wait_until(lambda: not dead.alive, 10.0)
    assert reserve.take() is None
    reserve.keep(100.0)
    reserve.keep(100.0 + Spare.LATER_S)
    assert reserve._process is not dead
    assert reserve._process.alive
