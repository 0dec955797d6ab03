# SPDX-License-Identifier: Apache-2.0
"""Where this environment's message definitions lie, for recorders and bridges."""

from __future__ import annotations

import os
from pathlib import Path


def share_folders() -> list[Path]:
    """The `share` folder of every prefix in the environment, nearest overlay first."""
    prefixes = os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)
    return [Path(prefix) / "share" for prefix in prefixes if prefix]


def type_name(ros_type: type) -> str:
    """`package/msg/Type` of a message class."""
    package = ros_type.__module__.partition(".")[0]
    return f"{package}/msg/{ros_type.__name__}"
