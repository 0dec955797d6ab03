# SPDX-License-Identifier: Apache-2.0
"""The set-up, where a shell already has the environment that an earlier one made."""

from __future__ import annotations

import importlib.util
import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CLEAN = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/root", "LANG": "C.UTF-8"}


@pytest.fixture(scope="module")
def setup():
    spec = importlib.util.spec_from_file_location("worldsystem_setup", ROOT / "tools/setup.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def sourced(environment: dict[str, str]) -> dict[str, str]:
    told = subprocess.run(
        ["bash", "-c", f". {ROOT}/tools/env.sh && env -0"],
        env=environment,
        capture_output=True,
        check=True,
        text=True,
    ).stdout
    return dict(line.split("=", 1) for line in told.split("\0") if line)


def ros_of(setup, environment: dict[str, str]) -> dict[str, str]:
    names = (*setup.PATHS_OF_ROS, "VIRTUAL_ENV", "ROS_DISTRO", "_ROS_WHEELS_BOOTSTRAP_COMPLETE")
    return {name: environment[name] for name in names if name in environment}


@pytest.mark.skipif(bool(os.environ.get("ROS_ROOT")), reason="a ROS of the system is in use")
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
