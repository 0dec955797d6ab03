# SPDX-License-Identifier: Apache-2.0
"""Servers on free loopback ports."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from worldsystem_viewer.config import ViewerConfig
from worldsystem_viewer.page_server import PageServer
from worldsystem_viewer.picture import PictureEncoder


@pytest.fixture
def encoded_ns(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The stamps of the pictures that were encoded, by any server."""
    stamps_ns: list[int] = []
    encode = PictureEncoder._encoded

    def counted(self: PictureEncoder, rgb: np.ndarray, stamp_ns: int, labels: object) -> object:
        stamps_ns.append(stamp_ns)
        return encode(self, rgb, stamp_ns, labels)

    monkeypatch.setattr(PictureEncoder, "_encoded", counted)
    return stamps_ns


@pytest.fixture
def page_server() -> Iterator[PageServer]:
    server = PageServer(ViewerConfig(web_port=0, max_clients=3))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def forgetful_server() -> Iterator[PageServer]:
    """One that remembers no past, and so has no use for a picture that nobody looks at."""
    server = PageServer(ViewerConfig(web_port=0, max_clients=3, history_mb=0.0))
    server.start()
    yield server
    server.stop()
