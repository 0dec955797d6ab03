# SPDX-License-Identifier: Apache-2.0
"""Settings of the process that ROS's defaults get wrong for large messages.

glibc hands each large buffer back to the kernel, so that a full-HD message costs thousands of page
faults: a hop takes 14 ms instead of 4.5 (docs/decisions/002-dds-profile.md). Processes that were
killed leave others asleep.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

from ament_index_python.packages import (
    PackageNotFoundError,
    get_package_prefix,
    get_package_share_path,
)

from worldsystem_core.dds_domain import asked_domain
from worldsystem_core.freed_memory import hand_back_freed_memory, keep_freed_memory
from worldsystem_core.interpreter import share_interpreter
from worldsystem_core.lost_wakes import watch_for_lost_wakes

_PROFILE_VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")

log = logging.getLogger(__name__)


def tune_process() -> None:
    """Apply the settings; call first thing in `main`, before large buffers exist."""
    share_interpreter()
    hand_back_freed_memory()
    keep_freed_memory()
    watch_for_lost_wakes()


def installed_executable(package: str, name: str) -> Path:
    """Where the program `name` of a ROS package is; raises `PackageNotFoundError` (a KeyError)."""
    return Path(get_package_prefix(package)) / "lib" / package / name


def use_dds_profile() -> None:
    """Point Fast DDS (2.x and 3.x) to the shipped profile unless the user has set one.

    Call it before `rclpy.init`. Without it a process talks to every network that the machine is on.
    """
    asked_domain()  # one that is none is told before ROS would end in a traceback
    try:
        profile = get_package_share_path("worldsystem") / "config" / "fastdds.xml"
    except PackageNotFoundError:
        log.warning("package `worldsystem` is not installed: DDS is as ROS has it, on all networks")
        return
    for name in _PROFILE_VARIABLES:
        os.environ.setdefault(name, str(profile))
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "SYSTEM_DEFAULT")
