# SPDX-License-Identifier: Apache-2.0
"""What dead processes left in shared memory goes, and nothing that a living one has or takes."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from worldsystem_core import stale_segments
from worldsystem_core.stale_segments import clean_stale_segments

PORT, SEGMENT = "fastrtps_port26161", "fastrtps_0123456789abcdef"
OWNER = """
    import fcntl, os, sys
    file = os.open(sys.argv[1], os.O_RDONLY | os.O_CREAT)
    fcntl.flock(file, fcntl.LOCK_EX if sys.argv[1].endswith("_el") else fcntl.LOCK_SH)
    print("has it", flush=True)
    sys.stdin.read()
"""


def left_behind(folder: Path, name: str, *locks: str) -> list[Path]:
    """A port or a segment with its files, all an hour old."""
    paths = [folder / name, *(folder / f"{name}{lock}" for lock in locks)]
    if "port" in name:
        paths.append(folder / f"sem.{name}_mutex")
    for path in paths:
        path.write_bytes(b"x")
        os.utime(path, (1.0, 1.0))
    return paths


def owner_of(lock: Path) -> subprocess.Popen[str]:
    """A process that lives and has that lock."""
    command = [sys.executable, "-c", textwrap.dedent(OWNER), str(lock)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    owner = subprocess.Popen(command, text=True, **pipes)
    assert owner.stdout.readline() == "has it\n"
    return owner


def before_each_removal(monkeypatch: pytest.MonkeyPatch, act: Callable[[Path], None]) -> None:
    """Let another process do something in the very moment in which a file goes."""
    unlink = Path.unlink

    def interrupted(path: Path, missing_ok: bool = False) -> None:
        act(path)
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", interrupted)


def test_what_a_killed_process_left_is_freed_and_only_once_it_is_dead(tmp_path):
    port = left_behind(tmp_path, PORT, "_el")
    segment = left_behind(tmp_path, SEGMENT, "_el")
    owners = [owner_of(tmp_path / f"{name}_el") for name in (PORT, SEGMENT)]
    assert clean_stale_segments(tmp_path) == 0
    assert all(path.exists() for path in port + segment)
    for owner in owners:
        owner.kill()
        owner.communicate()
    assert clean_stale_segments(tmp_path) == 2
    assert not list(tmp_path.iterdir())


def test_a_port_that_several_read_stays_while_one_of_them_lives(tmp_path):
    port = left_behind(tmp_path, PORT, "_sl")
    first, second = owner_of(tmp_path / f"{PORT}_sl"), owner_of(tmp_path / f"{PORT}_sl")
    first.kill()
    first.communicate()
    assert clean_stale_segments(tmp_path) == 0
    assert all(path.exists() for path in port)
    second.kill()
    second.communicate()
    assert clean_stale_segments(tmp_path) == 1


@pytest.mark.parametrize("held", ["_el", "_sl"])
def test_of_two_locks_one_that_is_held_is_enough(tmp_path, held):
    port = left_behind(tmp_path, PORT, "_el", "_sl")
    owner = owner_of(tmp_path / f"{PORT}{held}")
    assert clean_stale_segments(tmp_path) == 0
    assert all(path.exists() for path in port)
    owner.kill()
    owner.communicate()


def test_a_process_that_starts_meanwhile_cannot_take_over_what_is_about_to_go(
    tmp_path, monkeypatch
):
    """It has opened the lock file already, and tries for it while the files are deleted."""
    left_behind(tmp_path, PORT, "_el")
    newcomer = os.open(tmp_path / f"{PORT}_el", os.O_RDONLY)
    refused = []

    def try_for_it(path: Path) -> None:
        try:
            fcntl.flock(newcomer, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            refused.append(path.name)

    before_each_removal(monkeypatch, try_for_it)
    assert clean_stale_segments(tmp_path) == 1
    os.close(newcomer)
    assert refused == [PORT, f"sem.{PORT}_mutex", f"{PORT}_el"]


def test_a_lock_that_was_replaced_since_it_was_opened_frees_nothing(tmp_path, monkeypatch):
    """The old one is free, but the file of that name is a living process's by now."""
    port = left_behind(tmp_path, PORT, "_el")
    lock, owners = tmp_path / f"{PORT}_el", []
    take = stale_segments._take

    def replaced_first(file: int, path: Path) -> bool:
        lock.unlink()
        owners.append(owner_of(lock))
        return take(file, path)

    monkeypatch.setattr(stale_segments, "_take", replaced_first)
    assert clean_stale_segments(tmp_path) == 0
    assert all(path.exists() for path in port)
    owners[0].kill()
    owners[0].communicate()


def test_a_lock_file_that_is_new_is_left_to_the_one_who_makes_it(tmp_path):
    left_behind(tmp_path, SEGMENT)
    (tmp_path / f"{SEGMENT}_el").touch()
    assert clean_stale_segments(tmp_path) == 0
    assert (tmp_path / SEGMENT).exists()


def test_files_of_others_and_a_missing_folder_are_no_trouble(tmp_path):
    for name in ("fastrtps_notes", "sem.other", "fastrtps_port123456_el", "PostgreSQL.1"):
        left_behind(tmp_path, name)
    (tmp_path / f"{PORT}_el").symlink_to(tmp_path / "sem.other")
    before = sorted(tmp_path.iterdir())
    assert clean_stale_segments(tmp_path) == 0
    assert sorted(tmp_path.iterdir()) == before
    assert clean_stale_segments(tmp_path / "none") == 0
