# SPDX-License-Identifier: Apache-2.0
"""One short run of the whole system that several tests look at."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    pytest.importorskip("rclpy", reason="ROS is not set up: run this through `make test`")
    from demo_run import watched_demo

    return watched_demo(tmp_path_factory.mktemp("run") / "out")
