# SPDX-License-Identifier: Apache-2.0
"""A ROS context of its own per test, on a domain nobody else uses."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

rclpy = pytest.importorskip("rclpy", reason="ROS is not set up: run these through `make test`")
for needed, name in (("foxglove", "foxglove-sdk"), ("mcap_ros2", "mcap-ros2-support")):
    pytest.importorskip(needed, reason=f"{name} is not installed")
for folder in Path(__file__).parents[:2]:
    sys.path.insert(0, str(folder))


@pytest.fixture
def context():
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=110 + os.getpid() % 20)
    yield context
    rclpy.try_shutdown(context=context)
