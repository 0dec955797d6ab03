# SPDX-License-Identifier: Apache-2.0
"""One checkout, set up beside a ROS and without it, and shells that have another than it was."""

from __future__ import annotations

import importlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CLEAN = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/root", "LANG": "C.UTF-8"}


@pytest.fixture
def tool(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    return importlib.import_module


@pytest.mark.parametrize("whose", ["ours", "somebody's"])
@pytest.mark.parametrize(
    ("built_with", "ros", "anew"),
    [
        (".venv", "", False),
        (".venv", "jazzy", True),
        ("/opt/ros/jazzy", "jazzy", False),
        ("/opt/ros/jazzy", "kilted", True),
        ("/opt/ros/jazzy", "", True),
    ],
)
def test_what_was_built_with_another_ros_is_made_anew(
    tool, monkeypatch, tmp_path, whose, built_with, ros, anew
):
    """CMake keeps the places that it found, and colcon does not ask it again."""
    setup = tool("setup")
    monkeypatch.setattr(setup, "ROOT", tmp_path)
    monkeypatch.setattr(setup, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(setup, "STAMPS", tmp_path / ".venv/stamps")
    monkeypatch.setenv("AMENT_PREFIX_PATH", f"/home/me/other/install:/opt/ros/{ros}")
    (tmp_path / ".venv/stamps").mkdir(parents=True)
    if whose == "ours":
        (tmp_path / ".venv/stamps/environment").touch()
    (tmp_path / "install").mkdir()
    cache = tmp_path / "build/worldsystem_msgs/CMakeCache.txt"
    cache.parent.mkdir(parents=True)
    cache.write_text(f"ament_cmake_DIR:PATH={tmp_path / built_with}/share/ament_cmake/cmake\n")
    setup.forget_another_place(ros)
    kept = {".venv"} if whose == "somebody's" else set()
    left = {path.name for path in tmp_path.iterdir()}
    assert left == (kept if anew else {".venv", "build", "install"})


def test_a_checkout_under_another_name_is_the_same_one(tool, tmp_path):
    """CMake may tell the place of what it found with links followed, or as it was told."""
    preconditions = tool("preconditions")
    cache = tmp_path / "real/build/worldsystem_msgs/CMakeCache.txt"
    cache.parent.mkdir(parents=True)
    (tmp_path / "link").symlink_to("real")
    for written, asked in (("real", "link"), ("link", "real"), ("link", "link")):
        place = f"{tmp_path}/{written}/.venv"
        cache.write_text(f"ament_cmake_DIR:PATH={place}/share/ament_cmake/cmake\n")
        build, environment = tmp_path / asked / "build", tmp_path / asked / ".venv"
        assert not preconditions.built_with_another_ros(build, [str(environment)])


@pytest.mark.parametrize("sourced", ["", "kilted", "jazzy"])
def test_a_shell_without_the_ros_of_the_set_up_is_told_so_and_runs_nothing(tool, tmp_path, sourced):
    setup = tool("setup")
    (tmp_path / "install").mkdir()
    (tmp_path / "install/local_setup.bash").write_text("export WORLDSYSTEM_FOUND=yes\n")
    (tmp_path / ".venv").mkdir()
    (tmp_path / "tools").mkdir()
    shutil.copy(ROOT / "tools/env.sh", tmp_path / "tools")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setup, "ROOT", tmp_path)
        patch.setattr(setup, "VENV", tmp_path / ".venv")
        patch.setattr(setup, "ENV_FILE", tmp_path / ".venv/worldsystem-env.sh")
        setup.write_environment("jazzy")
    environment = CLEAN | ({"ROS_DISTRO": sourced} if sourced else {})

    def told(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=20
        )

    ran = told("tools/env.sh", "echo", "ran")
    stays = told("bash", "-c", '. tools/env.sh; echo "${WORLDSYSTEM_FOUND-not found}"')
    if sourced == "jazzy":
        assert (ran.stdout, stays.stdout) == ("ran\n", "yes\n")
        return
    assert (ran.returncode, ran.stdout, stays.stdout) == (1, "", "not found\n")
    for each in (ran, stays):
        assert "set up beside ROS 2 jazzy: source its setup.bash first" in each.stderr


def test_colcon_that_looks_through_the_whole_checkout_begins_no_set_up(tmp_path):
    """It runs each `setup.py` that it comes upon, to learn the name of a package."""
    tools = Path(shutil.copytree(ROOT / "tools", tmp_path / "tools"))
    (tools / "setup.py").write_text("open('begun', 'w').close()\n")
    shutil.copytree(ROOT / "src/worldsystem_msgs", tmp_path / "src/worldsystem_msgs")
    done = subprocess.run(
        [sys.executable, "-m", "colcon", "list"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "worldsystem_msgs" in done.stdout, done.stderr
    assert not (tools / "begun").exists()
    assert "Exception in package identification" not in done.stderr


def test_a_program_of_the_set_up_that_fails_is_told_with_what_it_said(tool):
    setup = tool("setup")
    with pytest.raises(setup.SetupError, match=r"^sh -c .* failed:\nno NumPy for this Python$"):
        setup.output(["sh", "-c", "echo no NumPy for this Python >&2; exit 1"])
