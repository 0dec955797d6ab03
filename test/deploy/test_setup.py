# SPDX-License-Identifier: Apache-2.0
"""The set-up: its steps, and a shell that already has the environment that an earlier one made."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CLEAN = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/root", "LANG": "C.UTF-8"}
BESIDE_ROS = "ROS_DISTRO" in os.environ and "_ROS_WHEELS_BOOTSTRAP_COMPLETE" not in os.environ
# The checkout's own environment is for shells that have the ROS that it was set up beside.
NEW_SHELL = CLEAN | ({"ROS_DISTRO": os.environ["ROS_DISTRO"]} if BESIDE_ROS else {})


@pytest.fixture(scope="module")
def setup():
    spec = importlib.util.spec_from_file_location("worldsystem_setup", ROOT / "tools/setup.py")
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "tools"))
        spec.loader.exec_module(module)
    return module


@pytest.fixture
def checkout(setup, monkeypatch, tmp_path) -> Path:
    """An empty one, for the set-up to work in."""
    monkeypatch.setattr(setup, "ROOT", tmp_path)
    monkeypatch.setattr(setup, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(setup, "STAMPS", tmp_path / ".venv/stamps")
    monkeypatch.setattr(setup, "LOG", tmp_path / ".venv/setup.log")
    monkeypatch.setattr(setup, "ENV_FILE", tmp_path / ".venv/worldsystem-env.sh")
    (tmp_path / ".venv").mkdir()
    return tmp_path


def sourced(environment: dict[str, str]) -> dict[str, str]:
    told = subprocess.run(
        ["bash", "-c", f". {ROOT}/tools/env.sh && env -0"],
        env=environment,
        capture_output=True,
        check=True,
        text=True,
    ).stdout
    return dict(line.split("=", 1) for line in told.split("\0") if line)


IN_ZSH = pytest.param(
    ["zsh", "-f", "-c", '. "$1" && env -0', "zsh"],
    marks=pytest.mark.skipif(not shutil.which("zsh"), reason="zsh is not installed"),
    id="zsh",
)
AS_IN_ZSH = pytest.param(
    ["bash", "-c", 'unset BASH_VERSION; eval "$(cat "$0")" && env -0'],
    id="a bash that knows no more than zsh",
)


@pytest.mark.parametrize("shell", [IN_ZSH, AS_IN_ZSH])
def test_the_environment_is_found_by_a_shell_that_calls_itself_as_what_it_sources(shell, tmp_path):
    told = subprocess.run(
        [*shell, f"{ROOT}/tools/env.sh"],
        env=NEW_SHELL,
        cwd=tmp_path,
        capture_output=True,
        check=True,
        text=True,
    ).stdout
    assert f"VIRTUAL_ENV={sourced(NEW_SHELL)['VIRTUAL_ENV']}" in told.split("\0")


def test_where_cd_tells_where_it_went_the_environment_is_found_too(tmp_path):
    (tmp_path / "elsewhere/tools").mkdir(parents=True)
    made = tmp_path / "checkout/.venv/worldsystem-env.sh"
    made.parent.mkdir(parents=True)
    made.write_text("export WORLDSYSTEM_FOUND=yes\n")
    (tmp_path / "checkout/tools").mkdir()
    shutil.copy(ROOT / "tools/env.sh", tmp_path / "checkout/tools")
    told = subprocess.run(
        ["bash", "-c", ". tools/env.sh && env -0"],
        env=CLEAN | {"CDPATH": f"{tmp_path}/elsewhere:{tmp_path}/checkout"},
        cwd=tmp_path / "checkout",
        capture_output=True,
        check=True,
        text=True,
    )
    assert "WORLDSYSTEM_FOUND=yes" in told.stdout.split("\0")
    assert f"{tmp_path}/checkout/config/fastdds.xml" in told.stdout


def ros_of(setup, environment: dict[str, str]) -> dict[str, str]:
    names = (*setup.PATHS_OF_ROS, "VIRTUAL_ENV", "ROS_DISTRO", "_ROS_WHEELS_BOOTSTRAP_COMPLETE")
    return {name: environment[name] for name in names if name in environment}


@pytest.mark.skipif(BESIDE_ROS, reason="a ROS of the system is in use")
def test_to_set_up_in_a_shell_that_has_our_environment_is_to_set_up_in_a_new_one(setup):
    environment = sourced(CLEAN)
    assert environment["ROS_DISTRO"] == "jazzy"
    setup.forget_own_environment(environment)
    assert ros_of(setup, environment) == ros_of(setup, CLEAN)


def test_a_ros_of_the_system_stays_sourced(setup):
    system = {
        **CLEAN,
        "ROS_DISTRO": "kilted",
        "AMENT_PREFIX_PATH": "/opt/ros/kilted",
        "PYTHONPATH": "/opt/ros/kilted/lib/python3.12/site-packages",
    }
    ours = f"{ROOT}/install/worldsystem"
    both = system | {
        "AMENT_PREFIX_PATH": f"{ours}:/opt/ros/kilted",
        "VIRTUAL_ENV": str(ROOT / ".venv"),
    }
    setup.forget_own_environment(both)
    assert both == system


def test_somebody_elses_virtual_environment_is_left_alone(setup):
    environment = CLEAN | {"VIRTUAL_ENV": "/home/me/venv", "ROS_DISTRO": "jazzy"}
    before = dict(environment)
    setup.forget_own_environment(environment)
    assert environment == before


def test_in_a_shell_with_another_checkouts_environment_nothing_is_set_up(setup, monkeypatch):
    monkeypatch.setenv("VIRTUAL_ENV", "/home/me/other/.venv")
    monkeypatch.setenv("ROS_DISTRO", "jazzy")
    monkeypatch.setenv("AMENT_PREFIX_PATH", "/home/me/other/.venv")
    monkeypatch.setenv("_ROS_WHEELS_BOOTSTRAP_COMPLETE", "1")
    setup.forget_own_environment(os.environ)
    with pytest.raises(setup.SetupError, match=r"of /home/me/other/\.venv is sourced; use a new"):
        setup.sourced_ros()


@pytest.mark.parametrize("removed", ["install", "build", ".venv/worldsystem-env.sh", "nothing"])
def test_what_was_cleaned_up_is_made_again(setup, checkout, removed):
    (checkout / "build").mkdir()
    (checkout / "install").mkdir()
    for made in ("install/local_setup.bash", ".venv/worldsystem-env.sh"):
        (checkout / made).touch()
    for step in ("libraries", "workspace", "all"):
        setup.mark_current(step, [])
    if removed != "nothing":
        (checkout / removed).rename(checkout / "away")
    current = {step: setup.step_is_current(step, []) for step in ("libraries", "workspace", "all")}
    assert current == {
        "libraries": True,
        "workspace": removed not in ("install", "build"),
        "all": removed == "nothing",
    }


def test_a_patch_of_python_makes_no_step_due_and_another_python_makes_all(setup, monkeypatch):
    """A patch keeps the place and the first two numbers, which libraries are built for."""
    before = setup.digest([])
    monkeypatch.setattr(setup.sys, "version", "3.99.1 (main, another day)")
    assert setup.digest([]) == before
    monkeypatch.setattr(setup.sys, "version_info", (3, 99, 1))
    assert setup.digest([]) != before
    monkeypatch.undo()
    monkeypatch.setattr(setup.sys, "_base_executable", "/opt/other/bin/python3")
    assert setup.digest([]) != before


def test_a_checkout_that_another_set_up_may_work_in_is_held_alone(setup, checkout, monkeypatch):
    def is_current(name, inputs):
        other = os.open(checkout, os.O_RDONLY)
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(other)
        return True

    monkeypatch.setattr(setup, "everything", list)
    monkeypatch.setattr(setup, "forget_own_environment", lambda environment: None)
    monkeypatch.setattr(setup, "step_is_current", is_current)
    monkeypatch.setattr("sys.argv", ["setup.py"])
    assert setup.main() == 0
    after = os.open(checkout, os.O_RDONLY)
    fcntl.flock(after, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(after)


@pytest.mark.parametrize("moved", [True, False])
def test_what_was_made_in_another_place_is_removed_and_nothing_else(
    setup, checkout, monkeypatch, moved
):
    for name in ("build", "install", "runs", ".venv/stamps"):
        (checkout / name).mkdir()
    (checkout / ".venv/stamps/environment").touch()
    monkeypatch.setattr(setup.preconditions, "made_elsewhere", lambda environment: moved)
    setup.forget_another_place("")
    left = {path.name for path in checkout.iterdir()}
    assert left == ({"runs"} if moved else {".venv", "build", "install", "runs"})


CHECKS = ("check_place", "check_room", "check_python", "check_environment", "check_machine")


@pytest.mark.parametrize("check", CHECKS)
def test_where_it_cannot_set_up_it_installs_and_removes_nothing(
    setup, checkout, monkeypatch, check
):
    def refuse(*_):
        raise setup.SetupError("not here")

    for name in CHECKS:
        monkeypatch.setattr(setup.preconditions, name, lambda *_: None)
    monkeypatch.setattr(setup.preconditions, check, refuse)
    monkeypatch.setattr(setup.preconditions, "made_elsewhere", lambda environment: True)
    monkeypatch.setattr(setup, "ensure_system_packages", lambda: pytest.fail("it installs"))
    monkeypatch.setattr(setup, "sourced_ros", lambda: "")
    with pytest.raises(setup.SetupError, match="not here"):
        setup.set_up()
    assert (checkout / ".venv").is_dir()


def test_what_python_lacks_is_installed(setup, monkeypatch):
    installed = []
    monkeypatch.setattr(setup.preconditions, "missing_for_python", lambda: ["python3.11-venv"])
    monkeypatch.setattr(setup.preconditions, "missing_libraries", list)
    monkeypatch.setattr(setup.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(setup, "install_apt", lambda packages, why: installed.append(packages))
    setup.ensure_system_packages()
    assert installed == [["python3.11-venv"]]


def test_what_a_killed_set_up_left_of_its_downloads_is_removed(setup, checkout, monkeypatch):
    left = checkout / ".venv/downloads-of-the-killed"
    left.mkdir()
    (left / "torch.whl").touch()
    for step in ("run", "check", "install", "repair_cmake_paths"):
        monkeypatch.setattr(setup, step, lambda *_: None)
    monkeypatch.setattr(setup, "output", lambda *_: "")
    setup.install_libraries("")
    assert not list((checkout / ".venv").glob("downloads-*"))


def test_apt_asks_nothing(setup, checkout, monkeypatch):
    ran = []
    monkeypatch.setattr(setup, "run", lambda *words: ran.append(words))
    monkeypatch.setattr(setup, "update_apt", lambda: None)
    monkeypatch.setattr(setup.os, "geteuid", lambda: 0)
    monkeypatch.setattr(setup.shutil, "which", lambda name: f"/usr/bin/{name}")
    setup.install_apt(["tzdata"], "no time zones")
    [(command, _, environment)] = ran
    assert command[-1] == "tzdata"
    assert environment["DEBIAN_FRONTEND"] == "noninteractive"
    assert environment["PATH"] == os.environ["PATH"]


@pytest.mark.usefixtures("checkout")
def test_who_asks_something_in_the_set_up_gets_no_answer(setup):
    asked, answer = os.pipe()
    os.write(answer, b"yes\n")
    os.close(answer)
    terminal = os.dup(0)
    os.dup2(asked, 0)
    try:
        with pytest.raises(setup.SetupError, match="nobody answered"):
            setup.run(["sh", "-c", "read reply"], "nobody answered")
    finally:
        os.dup2(terminal, 0)
        os.close(terminal)
        os.close(asked)


MEETING = """#!/bin/sh
case $3 in
  core.*) sleep 0.1; touch core.done; exit ;;
esac
[ -e core.done ] || { echo "$3 came before the core"; exit 1; }
touch "$3.begun"
for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
  [ -e left.precompile.begun ] && [ -e right.precompile.begun ] && met=yes && break
  sleep 0.1
done
echo "$3 met the other: $met"
[ "$3 $met" = "left.precompile yes" ]
"""


def test_kernels_of_several_packages_compile_side_by_side_and_the_failed_one_is_named(
    setup, checkout, monkeypatch
):
    """Each waits for the other to begin, which never comes when they go one after the other."""
    (checkout / "tools").mkdir()
    (checkout / "tools/env.sh").write_text(MEETING)
    (checkout / "tools/env.sh").chmod(0o755)
    monkeypatch.setattr(setup, "KERNEL_PACKAGES", ("core", "left", "right"))
    monkeypatch.setattr(setup.os, "cpu_count", lambda: 2)
    with pytest.raises(setup.SetupError) as failed:
        setup.compile_kernels()
    message = str(failed.value)
    assert "kernels of right did not compile" in message
    assert "right.precompile met the other: yes" in message
    assert "left" not in message


def test_the_environment_of_a_path_with_signs_of_the_shell_is_written(setup, checkout, monkeypatch):
    root = checkout / "worldsystem(2)"
    (root / "install").mkdir(parents=True)
    (root / "install/local_setup.bash").write_text("export WORLDSYSTEM_FOUND=yes\n")
    monkeypatch.setattr(setup, "ROOT", root)
    setup.write_environment("")
    lines = (checkout / ".venv/worldsystem-env.sh").read_text().splitlines()
    assert "export WORLDSYSTEM_FOUND=yes" in lines


@pytest.fixture
def written(setup, checkout, monkeypatch):
    """The environment of an empty workspace, made in a shell without paths of its own."""
    (checkout / "install").mkdir()
    (checkout / "install/local_setup.bash").touch()
    for name in (*setup.PATHS_OF_ROS, "VIRTUAL_ENV", "ROS_DISTRO"):
        if name != "PATH":
            monkeypatch.delenv(name, raising=False)
    setup.write_environment("")

    def sourced_over(**shell: str) -> dict[str, list[str]]:
        told = subprocess.run(
            ["bash", "-c", f"set -eu; . {setup.ENV_FILE}; . {setup.ENV_FILE}; env -0"],
            env=CLEAN | shell,
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        lines = (line.split("=", 1) for line in told.split("\0") if line)
        return {name: value.split(":") for name, value in lines}

    return sourced_over


def test_what_a_shell_has_in_its_paths_stays_behind_ours(written, checkout):
    found = written(LD_LIBRARY_PATH="/opt/cuda/lib", PATH="/my/bin:/usr/bin:/bin")
    assert found["LD_LIBRARY_PATH"][0] == str(checkout / ".venv/lib")
    assert found["LD_LIBRARY_PATH"][-1] == "/opt/cuda/lib"
    assert found["PATH"][-3:] == ["/my/bin", "/usr/bin", "/bin"]


def test_a_shell_without_paths_gets_ours_and_not_the_folder_it_is_in(written, checkout):
    found = written()
    assert set(found["LD_LIBRARY_PATH"]) == {str(checkout / ".venv/lib")}
    assert set(found["AMENT_PREFIX_PATH"]) == {str(checkout / ".venv")}


def test_the_wheels_are_not_mixed_with_a_ros_that_is_sourced_later(written, checkout):
    found = written(ROS_DISTRO="kilted", AMENT_PREFIX_PATH="/opt/ros/kilted", PYTHONPATH="/opt/ros")
    assert found["ROS_DISTRO"] == ["jazzy"]
    assert set(found["AMENT_PREFIX_PATH"]) == {str(checkout / ".venv")}
    assert "PYTHONPATH" not in found


@pytest.mark.usefixtures("checkout")
def test_where_it_cannot_set_up_it_installs_nothing_for_the_tests_either(setup, monkeypatch):
    def refuse() -> None:
        raise setup.SetupError("another Python")

    installed = []
    monkeypatch.setattr(setup, "forget_own_environment", lambda environment: None)
    monkeypatch.setattr(setup, "everything", list)
    monkeypatch.setattr(setup.preconditions, "check_room", lambda *_: None)
    monkeypatch.setattr(setup.preconditions, "check_python", refuse)
    monkeypatch.setattr(setup, "ensure_browser", lambda: installed.append("browser"))
    monkeypatch.setattr(setup, "ensure_test_peers", lambda: installed.append("peers"))
    monkeypatch.setattr("sys.argv", ["setup.py", "--with-browser", "--with-test-peers"])
    assert setup.main() == 1
    assert installed == []


@pytest.mark.usefixtures("checkout")
def test_what_the_disk_refuses_is_told_in_one_line(setup, monkeypatch, capsys):
    def refuse() -> None:
        raise PermissionError(13, "Permission denied", "/checkout/.venv/worldsystem-env.sh")

    monkeypatch.setattr(setup, "forget_own_environment", lambda environment: None)
    monkeypatch.setattr(setup, "everything", list)
    monkeypatch.setattr(setup, "set_up", refuse)
    monkeypatch.setattr("sys.argv", ["setup.py"])
    assert setup.main() == 1
    told = "setup: [Errno 13] Permission denied: '/checkout/.venv/worldsystem-env.sh'\n"
    assert capsys.readouterr().err == told
