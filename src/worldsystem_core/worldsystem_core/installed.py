# SPDX-License-Identifier: Apache-2.0
"""Where an installation by `pip` put what ROS looks for, so that no script needs to be sourced."""

from __future__ import annotations

import os
import sys
from importlib import metadata
from pathlib import Path

_VARIABLE = "AMENT_PREFIX_PATH"
_MARKER = Path("share") / "ament_index" / "resource_index" / "packages" / "worldsystem_msgs"


def find_installed_prefix() -> None:
    """Tell ROS of this Python's own prefix, if our messages were installed there.

    Call it before ROS is begun; children inherit it. Shared libraries there are found because the
    wheels of ROS start Python again with their folder in LD_LIBRARY_PATH.
    """
    prefixes = [prefix for prefix in os.environ.get(_VARIABLE, "").split(os.pathsep) if prefix]
    if (Path(sys.prefix) / _MARKER).is_file() and sys.prefix not in prefixes:
        os.environ[_VARIABLE] = os.pathsep.join([*prefixes, sys.prefix])


def installed_version() -> str:
    """The version that is installed; `unknown` in a checkout that was never built."""
    try:
        return metadata.version("worldsystem")
    except metadata.PackageNotFoundError:
        return "unknown"
