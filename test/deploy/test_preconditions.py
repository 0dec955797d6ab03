# SPDX-License-Identifier: Apache-2.0
"""What a machine lacks is told before anything is fetched, and no right environment is removed."""

from __future__ import annotations

import errno
import fcntl
import importlib
import os
import re
import shutil
import sys
import venv
from pathlib import Path
from types import SimpleNamespace

import pytest

TOOLS = Path(__file__).parents[2] / "tools"
PACKAGES = [f"python3.{sys.version_info[1]}-dev", f"python3.{sys.version_info[1]}-venv"]


@pytest.fixture
def preconditions(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS))
    return importlib.import_module("preconditions")


@pytest.fixture
def environment(tmp_path) -> Path:
    """A virtual environment as the set-up makes it, in a checkout called "first"."""
    made = tmp_path / "first/.venv"
    venv.EnvBuilder(with_pip=False, symlinks=True).create(made)
    (made / "stamps").mkdir()
    (made / "stamps/environment").touch()
    return made


@pytest.mark.parametrize("name", ["my code", "a:b", 'a"b', "a'b"])
def test_a_path_that_cannot_be_built_in_is_named(preconditions, name):
    with pytest.raises(preconditions.SetupError, match=re.escape(f"/home/me/{name}/worldsystem")):
        preconditions.check_place(Path(f"/home/me/{name}/worldsystem"))


def test_an_ordinary_path_can_be_built_in(preconditions):
    preconditions.check_place(Path("/home/me/worldsystem-2.0_(new)"))


def test_a_first_set_up_needs_room_and_a_later_one_has_it_already(
    preconditions, monkeypatch, tmp_path
):
    disk = SimpleNamespace(total=500e9, free=2.5e9)
    monkeypatch.setattr(preconditions.shutil, "disk_usage", lambda path: disk)
    with pytest.raises(preconditions.SetupError, match=r"2\.5 GB are free.* needs about 15 "):
        preconditions.check_room(tmp_path, tmp_path / ".venv")
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv/pyvenv.cfg").touch()
    preconditions.check_room(tmp_path, tmp_path / ".venv")


@pytest.mark.parametrize(("total", "free"), [(500e9, 20e9), (0, 0)])
def test_enough_room_or_a_file_system_that_does_not_tell_is_no_obstacle(
    preconditions, monkeypatch, tmp_path, total, free
):
    disk = SimpleNamespace(total=total, free=free)
    monkeypatch.setattr(preconditions.shutil, "disk_usage", lambda path: disk)
    preconditions.check_room(tmp_path, tmp_path / ".venv")


def test_another_python_is_refused_and_told_where_a_right_one_is(preconditions, monkeypatch):
    newer = SimpleNamespace(version="3.13.5 (main)", version_info=(3, 13, 5))
    monkeypatch.setattr(preconditions, "sys", newer)
    with pytest.raises(preconditions.SetupError, match=r"Python 3\.13\.5 .* pyenv or uv"):
        preconditions.check_python()


@pytest.mark.parametrize(
    ("machine", "libc", "ros", "problem"),
    [
        ("x86_64", ("glibc", "2.35"), "", ""),
        ("x86_64", ("glibc", "2.41"), "", ""),
        ("x86_64", ("", ""), "", ""),
        ("aarch64", ("glibc", "2.39"), "jazzy", ""),
        ("aarch64", ("glibc", "2.39"), "", "this machine is aarch64"),
        ("x86_64", ("glibc", "2.31"), "", r"glibc 2\.31 is too old"),
        ("x86_64", ("glibc", "2.34"), "jazzy", r"glibc 2\.34 is too old"),
    ],
)
def test_a_machine_without_wheels_is_told_so(
    preconditions, monkeypatch, machine, libc, ros, problem
):
    monkeypatch.setattr(preconditions.platform, "machine", lambda: machine)
    monkeypatch.setattr(preconditions.platform, "libc_ver", lambda: libc)
    if not problem:
        preconditions.check_machine(ros)
        return
    with pytest.raises(preconditions.SetupError, match=problem):
        preconditions.check_machine(ros)


@pytest.mark.parametrize(
    ("headers", "ensurepip", "wanted"),
    [(True, True, []), (False, True, PACKAGES), (True, False, PACKAGES), (False, False, PACKAGES)],
)
def test_packages_of_this_python_are_asked_for_where_a_part_of_it_is_missing(
    preconditions, monkeypatch, tmp_path, headers, ensurepip, wanted
):
    if headers:
        (tmp_path / "Python.h").touch()
    monkeypatch.setattr(preconditions.sysconfig, "get_path", lambda name: str(tmp_path))
    found = SimpleNamespace() if ensurepip else None
    monkeypatch.setattr(preconditions.importlib.util, "find_spec", lambda name: found)
    assert preconditions.missing_for_python() == wanted


def test_an_environment_in_its_place_is_right_by_whatever_name(
    preconditions, environment, tmp_path
):
    assert not preconditions.made_elsewhere(environment)
    (tmp_path / "link").symlink_to(tmp_path / "first")
    assert not preconditions.made_elsewhere(tmp_path / "link/.venv")


def test_an_environment_made_through_a_link_is_right(preconditions, environment, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "first")
    told = environment / "pyvenv.cfg"
    told.write_text(told.read_text().replace(f"{tmp_path}/first/", f"{tmp_path}/link/"))
    assert f"{tmp_path}/link/.venv" in told.read_text()
    assert not preconditions.made_elsewhere(environment)


def test_an_environment_of_a_moved_or_copied_checkout_is_of_another_place(
    preconditions, environment, tmp_path
):
    shutil.copytree(tmp_path / "first", tmp_path / "copy", symlinks=True)
    assert preconditions.made_elsewhere(tmp_path / "copy/.venv")
    assert not preconditions.made_elsewhere(environment)
    (tmp_path / "first").rename(tmp_path / "second")
    assert preconditions.made_elsewhere(tmp_path / "second/.venv")


def test_an_environment_above_the_systems_packages_tells_its_place_too(preconditions, environment):
    told = environment / "pyvenv.cfg"
    told.write_text(told.read_text().replace(" -m venv ", " -m venv --system-site-packages "))
    assert not preconditions.made_elsewhere(environment)
    moved = environment.parent.rename(environment.parent.with_name("second"))
    assert preconditions.made_elsewhere(moved / ".venv")


def test_an_environment_of_another_python_is_not_built_upon(preconditions, environment):
    told = environment / "pyvenv.cfg"
    told.write_text(re.sub(r"(?m)^version = .*$", "version = 3.10.12", told.read_text()))
    assert preconditions.made_elsewhere(environment)


def test_an_environment_of_another_python_of_the_same_version_is_not_built_upon(
    preconditions, environment, tmp_path
):
    """As the system's and pyenv's: the libraries of one do not fit the other's program."""
    other = tmp_path / "python3"
    other.touch()
    told = environment / "pyvenv.cfg"
    own = Path(sys._base_executable).resolve()
    rest = re.sub(r"(?m)^executable = .*\n", "", told.read_text())
    told.write_text(f"{rest}executable = {own}\n")
    assert not preconditions.made_elsewhere(environment)
    told.write_text(f"{rest}executable = {other}\n")
    assert preconditions.made_elsewhere(environment)


@pytest.mark.parametrize(
    "told",
    [
        pytest.param("version = 3.9.2", id="venv"),
        pytest.param("version_info = 3.9.2.final.0", id="virtualenv"),
        pytest.param("uv = 0.5.1\nversion_info = 3.9.2", id="uv"),
    ],
)
def test_somebodys_environment_of_another_python_is_named_and_left_as_it_is(
    preconditions, tmp_path, told
):
    """`venv` would write over what it tells and leave its programs."""
    (tmp_path / "pyvenv.cfg").write_text(f"home = /usr/bin\n{told}\n")
    with pytest.raises(preconditions.SetupError, match=r"of Python 3\.9, .* move it away"):
        preconditions.check_environment(tmp_path)
    assert (tmp_path / "pyvenv.cfg").read_text() == f"home = /usr/bin\n{told}\n"


@pytest.mark.parametrize("kind", ["none", "of this Python", "of an earlier set-up", "of nobody"])
def test_an_environment_that_can_be_built_upon_or_removed_is_no_obstacle(
    preconditions, environment, tmp_path, kind
):
    told = environment / "pyvenv.cfg"
    if kind == "of an earlier set-up":
        told.write_text("version = 3.9.2\n")
    elif kind == "of nobody":
        (environment / "stamps/environment").unlink()
        told.write_bytes(b"\xff")
    elif kind == "of this Python":
        (environment / "stamps/environment").unlink()
    preconditions.check_environment(tmp_path / "none" if kind == "none" else environment)


@pytest.mark.parametrize("doubt", ["no stamp", "no place told", "nothing told"])
def test_in_doubt_an_environment_is_right(preconditions, environment, doubt):
    moved = environment.parent.rename(environment.parent.with_name("second")) / ".venv"
    told = moved / "pyvenv.cfg"
    if doubt == "no stamp":
        (moved / "stamps/environment").unlink()
    elif doubt == "no place told":
        told.write_text(re.sub(r"(?m)^command = .*\n", "", told.read_text()))
    else:
        told.unlink()
    assert not preconditions.made_elsewhere(moved)


def test_a_second_set_up_tells_that_it_waits_and_then_has_the_place_alone(preconditions, tmp_path):
    first = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(first, fcntl.LOCK_EX)
    told = []

    def tell() -> None:
        told.append("waiting")
        fcntl.flock(first, fcntl.LOCK_UN)

    with preconditions.alone(tmp_path, tell), pytest.raises(BlockingIOError):
        fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert told == ["waiting"]
    with preconditions.alone(tmp_path, tell):
        pass
    assert told == ["waiting"], "nobody was there any more"
    os.close(first)


def test_a_file_system_without_locks_is_no_obstacle(preconditions, monkeypatch, tmp_path):
    def no_locks(handle: int, kind: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(preconditions.fcntl, "flock", no_locks)
    with preconditions.alone(tmp_path, pytest.fail):
        pass
