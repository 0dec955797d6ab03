# SPDX-License-Identifier: Apache-2.0
"""What is here needs ROS."""

from __future__ import annotations

import pytest

pytest.importorskip("rclpy", reason="ROS is not set up: run these through `make test`")
