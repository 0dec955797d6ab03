# SPDX-License-Identifier: Apache-2.0
"""The process in reserve: its imports are done before it is needed, and it ends with its parent."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from worldsystem.graph import STAGES, Stage
from worldsystem.spare_process import LOADED_LATER, SpareProcess, Spares, load, load_until_told

STAGE = """
    import sys
    from pathlib import Path

    BEFORE = [name for name in sys.argv[3:] if name in sys.modules]

    def main():
        comm = Path("/proc/self/comm").read_text().strip()
        Path(sys.argv[1]).write_text(" ".join([sys.argv[0], comm, *BEFORE]))
        sys.exit(int(sys.argv[2]))
"""
TESTER = Stage("tester", "none", "stage_of_a_test:Tester", "none", "none")


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
    process = spare.become(TESTER, [str(tmp_path / "told"), "0", *(s.module for s in STAGES)])
    assert process.wait(60.0) == 0
    assert (tmp_path / "told").read_text().split()[:2] == ["tester", "tester"]


def test_one_that_is_told_while_it_imports_makes_no_other_stages_imports(monkeypatch):
    tells, line = socket.socketpair()
    loaded = []

    def load_and_be_told(name: str) -> None:
        loaded.append(name)
        if name == "second":
            tells.sendall(b"\n")

    monkeypatch.setattr("worldsystem.spare_process.load", load_and_be_told)
    with tells, line:
        load_until_told(line, ["first", "second", "third"])
        load_until_told(line, ["what is loaded later"])
    assert loaded == ["first", "second"]


@pytest.mark.parametrize("name", LOADED_LATER)
def test_what_is_loaded_later_exists(name):
    load(name)


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
    reserve = Spares()
    yield reserve
    reserve.end()


def test_two_are_in_reserve_some_time_after_the_last_was_taken(reserve):
    reserve.keep(0.0)
    assert not reserve._processes
    reserve.keep(Spares.LATER_S)
    (first,) = reserve._processes
    reserve.keep(Spares.LATER_S)
    assert reserve._processes == [first], "they are made one after the other"
    wait_until(lambda: first.ready)
    reserve.keep(Spares.LATER_S)
    second = reserve._processes[-1]
    wait_until(lambda: second.ready)
    reserve.keep(1000.0)
    assert reserve._processes == [first, second]
    assert [reserve.take(), reserve.take(), reserve.take()] == [first, second, None]
    first.end()
    second.end()
    reserve.keep(2000.0)
    assert not reserve._processes, "the stage that comes back has the processors"
    reserve.keep(2000.0 + Spares.LATER_S)
    assert len(reserve._processes) == 1


class ReadyAtOnce:
    ready = alive = True

    def end(self) -> None:
        """Nothing runs."""


def test_deaths_one_after_the_other_do_not_put_the_next_off_for_ever(monkeypatch):
    """One dies every seven seconds for two minutes."""
    monkeypatch.setattr("worldsystem.spare_process.SpareProcess", ReadyAtOnce)
    reserve, taken_s = Spares(), []
    for now_s in range(120):
        reserve.keep(float(now_s))
        if now_s % 7 == 0 and reserve.take() is not None:
            taken_s.append(now_s)
    assert len(taken_s) >= 8
    assert max(np.diff(taken_s)) <= 2 * 7


def test_one_that_is_half_made_is_left_alone_when_another_is_ready(reserve):
    reserve.keep(0.0)
    reserve.keep(Spares.LATER_S)
    (first,) = reserve._processes
    wait_until(lambda: first.ready)
    reserve.keep(Spares.LATER_S)
    second = reserve._processes[-1]
    assert reserve.take() is first
    first.end()
    assert second.alive
    assert reserve._processes == [second]


def test_one_that_is_not_ready_is_given_when_no_other_is(reserve):
    reserve.keep(0.0)
    reserve.keep(Spares.LATER_S)
    (half_made,) = reserve._processes
    assert reserve.take() is half_made
    assert half_made.alive
    half_made.end()
    reserve.keep(20.0)
    assert not reserve._processes, "another is made later"


class DeadAtOnce:
    ready = alive = False
    made = 0

    def __init__(self) -> None:
        DeadAtOnce.made += 1

    def end(self) -> None:
        """It has."""


def test_reserves_that_die_at_once_are_not_made_again_and_again(monkeypatch):
    monkeypatch.setattr("worldsystem.spare_process.SpareProcess", DeadAtOnce)
    reserve = Spares()
    for tick in range(1000):
        reserve.keep(0.1 * tick)
    assert 5 <= DeadAtOnce.made <= 10


def test_a_machine_that_can_start_no_process_has_no_reserve_and_goes_on(monkeypatch, caplog):
    def refused() -> SpareProcess:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr("worldsystem.spare_process.SpareProcess", refused)
    reserve = Spares()
    reserve.keep(0.0)
    reserve.keep(Spares.LATER_S)
    assert reserve.take() is None
    assert "no process in reserve" in caplog.text


def test_one_that_dies_in_reserve_is_not_given_away_and_another_is_made(reserve):
    reserve.keep(0.0)
    reserve.keep(Spares.LATER_S)
    (dead,) = reserve._processes
    os.kill(dead._process.pid, signal.SIGKILL)
    wait_until(lambda: not dead.alive, 10.0)
    assert reserve.take() is None
    reserve.keep(100.0)
    reserve.keep(100.0 + Spares.LATER_S)
    (other,) = reserve._processes
    assert other is not dead
    assert other.alive
