# SPDX-License-Identifier: Apache-2.0
"""A second process of the reconstruction, which waits for the first to die."""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import filmed_room
import pytest

from worldsystem_core.errors import BackendError
from worldsystem_slam3r.apart.channel import Channel
from worldsystem_slam3r.apart.client import RunningApart, reserve
from worldsystem_slam3r.apart.process import Reserve, WorkerProcess
from worldsystem_slam3r.apart.worker import _asked
from worldsystem_slam3r.backend import load_backend
from worldsystem_slam3r.config import Slam3rConfig
from worldsystem_slam3r.running import reserve_for, start_backend

CONFIG = Slam3rConfig(synchronous=True, own_process=True)


@pytest.fixture
def kept():
    made = reserve("geometric")
    yield made
    made.end()


def until(done, limit_s: float = 60.0) -> None:
    deadline = time.monotonic() + limit_s
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def ended(pid: int) -> bool:
    return not os.path.exists(f"/proc/{pid}/cwd")


def name_of(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


def wait_until_loaded(kept: Reserve) -> None:
    """It says so, and nobody has read that yet."""
    assert select.select([kept._process.channel._end], [], [], 60.0)[0]


def made(kept: Reserve) -> int:
    kept.keep(0.0)
    assert kept.pid is None, "the start belongs to those at work"
    kept.keep(Reserve.LATER_S)
    assert kept.pid is not None
    return kept.pid


@pytest.mark.parametrize("loaded", [True, False], ids=["loaded", "half made"])
def test_the_one_in_reserve_becomes_the_worker_and_does_its_work(kept, loaded):
    waiting = made(kept)
    if loaded:
        wait_until_loaded(kept)
        assert name_of(waiting) == "slam3r_reserve"
    running = start_backend(CONFIG, lambda: None, first_id=7, reserve=kept)
    try:
        assert running.pid == waiting
        assert name_of(waiting) == "slam3r_worker"
        assert kept.pid is None, "and another comes only later"
        film = filmed_room.frames(filmed_room.sideways_poses(4), filmed_room.camera(64, 36))
        answers = [answer for frame in film for answer in running.feed(frame)] + running.finish()
        assert [answer.frame_id for answer in answers if answer.frame_id >= 0] == [0, 1, 2, 3]
        assert all(answer.failure is None for answer in answers)
    finally:
        running.close()
    assert ended(waiting)


def libraries_of(pid: int) -> set[str]:
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    return {line.split()[-1] for line in lines if ".so" in line}


def test_what_is_in_reserve_has_loaded_all_that_opening_loads(kept):
    waiting = made(kept)
    wait_until_loaded(kept)
    loaded = libraries_of(waiting)
    running = start_backend(CONFIG, lambda: None)
    needed = libraries_of(running.pid)
    running.close()
    assert any("llvmlite" in library for library in needed)
    assert needed <= loaded


OPENING = """
import sys
from worldsystem_slam3r.backend import load_backend, open_backend
from worldsystem_slam3r.config import Slam3rConfig

if "load" in sys.argv:
    load_backend("geometric")
before = set(sys.modules)
from numba.core import event

with event.install_recorder("numba:compiler_lock") as compiled:
    open_backend("geometric", Slam3rConfig(synchronous=True))
print(len(set(sys.modules) - before), len(compiled.buffer))
"""


@pytest.mark.parametrize("loads", [True, False])
def test_what_is_loaded_opens_without_importing_or_compiling_anything(loads):
    command = [sys.executable, "-c", OPENING, *["load"] * loads]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=90, check=True)
    imported, compiled = map(int, ran.stdout.split())
    assert (imported == 0) is loads
    assert (compiled == 0) is loads


def test_one_that_died_is_not_taken_and_another_is_made_later(kept):
    first = made(kept)
    os.kill(first, signal.SIGKILL)
    until(lambda: ended(first))
    assert kept.pid is None
    assert kept.take() is None
    kept.keep(100.0)
    assert kept.pid is None
    kept.keep(100.0 + Reserve.LATER_S)
    assert kept.pid not in (None, first)


def test_one_that_dies_as_it_is_taken_makes_room_for_a_new_one(kept, monkeypatch):
    waiting = made(kept)
    os.kill(waiting, signal.SIGKILL)
    until(lambda: ended(waiting))
    monkeypatch.setattr(WorkerProcess, "alive", property(lambda _: True))
    running = start_backend(CONFIG, lambda: None, reserve=kept)
    assert running.pid != waiting
    assert running.name == "geometric"
    running.close()


def test_what_fails_as_it_is_loaded_is_met_by_who_opens_it(monkeypatch):
    def fail(name: str) -> None:
        raise OSError(f"{name}: a library is broken")

    monkeypatch.setattr("worldsystem_slam3r.apart.worker.load_backend", fail)
    monkeypatch.setattr("worldsystem_slam3r.apart.worker.name_process", lambda name: None)
    ours, theirs = (Channel(end) for end in socket.socketpair())
    ours.send("load", "geometric")
    ours.send("open", [CONFIG, 7, logging.INFO])
    assert _asked(theirs) == (CONFIG, 7, logging.INFO)
    assert ours.receive()[0] == "loaded"


def test_one_that_is_not_needed_ends(kept):
    waiting = made(kept)
    kept.end()
    assert ended(waiting)
    assert kept.take() is None


def test_one_in_reserve_ends_with_the_process_that_made_it():
    code = (
        "import time\n"
        "from worldsystem_slam3r.apart.client import reserve\n"
        "kept = reserve('geometric')\n"
        "kept.keep(0.0)\n"
        "kept.keep(1000.0)\n"
        "print(kept.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    waiting = int(parent.stdout.readline())
    until(lambda: name_of(waiting) == "slam3r_reserve")
    parent.kill()
    until(lambda: ended(waiting))
    assert parent.communicate(timeout=10.0)[1] == ""


def test_what_cannot_be_opened_is_told_as_without_a_reserve(kept):
    with pytest.raises(BackendError, match="'nonsense' is not known"):
        RunningApart(replace(CONFIG, backend="nonsense"), lambda: None, process=_taken(kept))


def _taken(kept: Reserve):
    made(kept)
    return kept.take()


@pytest.mark.parametrize("name", ["geometric", "slam3r", "slam3r_tiny", "da3", "auto", "nonsense"])
def test_loading_fails_for_no_back_end(name):
    load_backend(name)


def test_only_a_back_end_with_its_own_process_has_one_in_reserve():
    assert reserve_for(CONFIG) is not None
    assert reserve_for(replace(CONFIG, own_process=False)) is None
    assert reserve_for(replace(CONFIG, spare_process=False)) is None


@pytest.mark.ros
def test_a_stage_whose_worker_dies_goes_on_with_the_one_in_reserve(context, monkeypatch):
    from rclpy.parameter import Parameter

    from worldsystem_slam3r.node import Slam3rNode

    monkeypatch.setattr(Reserve, "LATER_S", 0.0)
    settings = [Parameter("own_process", value=True), Parameter("synchronous", value=True)]
    stage = Slam3rNode(context=context, parameter_overrides=settings)
    try:
        stage._keep_reserve()
        waiting = stage._reserve.pid
        film = filmed_room.frames(filmed_room.sideways_poses(8), filmed_room.camera(64, 36))
        os.kill(stage.worker_pid, signal.SIGKILL)
        for frame in film:
            stage._on_frame(frame)
        stage._take(stage._running.settle())
        assert stage.worker_pid == waiting
        stage._keep_reserve()
        assert stage._reserve.pid not in (None, waiting)
        another = stage._reserve.pid
        stage.input_ended()
        assert ended(another), "at the end nobody needs it"
        stage._keep_reserve()
        assert stage._reserve.pid is None
    finally:
        stage.close()
