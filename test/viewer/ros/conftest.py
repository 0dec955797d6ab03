# SPDX-License-Identifier: Apache-2.0
"""What is here needs ROS, and what it is compared with."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="ROS is not set up: run these through `make test`")
for needed, name in (("foxglove", "foxglove-sdk"), ("mcap_ros2", "mcap-ros2-support")):
    pytest.importorskip(needed, reason=f"{name} is not installed")
for folder in Path(__file__).parents[:2]:
    sys.path.insert(0, str(folder))
