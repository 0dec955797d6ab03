# SPDX-License-Identifier: Apache-2.0
"""What tests of a node's threads share."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from worldsystem_core.config import Config
from worldsystem_core.frames import Frame


@dataclass(frozen=True)
class NoSettings(Config):
    """Nothing to set."""


def a_frame(number: int) -> Frame:
    return Frame(id=number, stamp_ns=number, rgb=np.zeros((2, 2, 3), np.uint8))


def wait_until(condition: Callable[[], object], timeout_s: float = 10.0) -> None:
    """Fails where `condition` does not come to hold in time."""
    deadline = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)
    assert condition()
