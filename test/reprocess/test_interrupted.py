# SPDX-License-Identifier: Apache-2.0
"""`reprocess` ends once, whoever asks for it, how often, and wherever the runs are."""

from __future__ import annotations

import errno
import fcntl
import signal
import sys
from collections.abc import Generator
from pathlib import Path
from types import SimpleNamespace

import pytest

from worldsystem.cli import main
from worldsystem.reprocess import commands
from worldsystem.reprocess.commands import _performed
from worldsystem.reprocess.plan import Settings, plan
from worldsystem.reprocess.pool import Room, on_ray
from worldsystem.reprocess.task import Outcome, sole_use


def test_a_second_ctrl_c_or_sigterm_does_not_cut_short_the_end_of_what_runs():
    ended = []

    def runs() -> Generator[Outcome, None, None]:
        try:
            signal.raise_signal(signal.SIGINT)
            yield Outcome("never", "finished", "")
        except KeyboardInterrupt:
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.raise_signal(number)
            ended.append("all of it")
            raise

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # CI may have it ignored
    try:
        assert _performed(runs()) == {}
    finally:
        signal.signal(signal.SIGINT, before)
    assert ended == ["all of it"]


class RayThatTakesSigterm:
    """Stands for the module: its `init` has SIGTERM exit at once, as Ray's own has."""

    def __init__(self) -> None:
        self.waits = 0

    def init(self, *_: object, **__: object) -> None:
        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(number))

    def nodes(self) -> list[dict]:
        return [{"Alive": True, "Resources": {"CPU": 8.0}}]

    def remote(self, **_: object):
        return lambda _: SimpleNamespace(remote=lambda *_: "a reference")

    def wait(self, going: list, **_: object) -> tuple[list, list]:
        self.waits += 1
        if self.waits == 1:
            signal.raise_signal(signal.SIGTERM)
        return going, []

    def shutdown(self) -> None:
        pass


def test_sigterm_ends_runs_on_ray_as_ctrl_c_does(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # set by us: put back after this
    monkeypatch.setitem(sys.modules, "ray", RayThatTakesSigterm())
    (tmp_path / "one.mp4").touch()
    tasks = plan([tmp_path / "one.mp4"], tmp_path / "out", Settings())
    room = Room(1, cpus=1.0, address="auto")
    assert _performed(on_ray(tasks, room, tmp_path / "stop")) == {}
    assert "the same command goes on" in capsys.readouterr().err
    assert (tmp_path / "stop").exists()


def test_the_sign_to_stop_lies_where_a_machine_of_a_cluster_finds_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("one.mp4").touch()
    signs = []

    def pool(tasks: list, room: Room, stopped: Path) -> Generator[Outcome, None, None]:
        signs.append(stopped)
        yield from ()

    monkeypatch.setattr(commands, "chosen_pool", lambda address, ray: pool)
    assert main(["reprocess", "one.mp4", "--out", "out"]) == 1
    assert signs[0].is_absolute()


def test_a_folder_on_a_file_system_without_locks_is_used_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def no_locks(handle: object, kind: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with sole_use(tmp_path / "out"):
        assert (tmp_path / "out").is_dir()
