# SPDX-License-Identifier: Apache-2.0
"""Servers on free loopback ports."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from worldsystem_viewer.config import ViewerConfig
from worldsystem_viewer.page_server import PageServer


@pytest.fixture
def page_server() -> Iterator[PageServer]:
    server = PageServer(ViewerConfig(web_port=0, max_clients=3))
    server.start()
    yield server
    server.stop()
