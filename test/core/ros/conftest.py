# SPDX-License-Identifier: Apache-2.0
"""What is here needs ROS."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

pytest.importorskip("rclpy", reason="ROS is not set up: run these through `make test`")

from worldsystem_core.ros import reference_topic


@pytest.fixture
def fresh_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is linked to any topic in this process."""
    monkeypatch.setattr(reference_topic, "_registry", reference_topic.TopicRegistry())
