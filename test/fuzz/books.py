# SPDX-License-Identifier: Apache-2.0
"""A sink whose books must balance: every picture ends once, stamps grow, numbers are finite."""

from __future__ import annotations

import math
import time
from dataclasses import astuple

from worldsystem_core.frames import Camera, EncodedFrame, Frame
from worldsystem_core.telemetry import Telemetry

_MOST_LOST = 20_000  # of which `FrameNumbers` tells


class Books:
    """Takes what a session yields and notes it; `check` raises where the account is wrong."""

    def __init__(self) -> None:
        self.passed_on: list[int] = []
        self.lost: list[int] = []
        self.delivered: list[int] = []
        self._newest_ns = -1

    def encoded(self, unit: EncodedFrame) -> None:
        assert unit.stamp_ns > self._newest_ns
        assert unit.data
        self._newest_ns = unit.stamp_ns
        self.passed_on.append(unit.id)

    def deliver(self, unit: EncodedFrame, after_loss: bool) -> None:
        assert isinstance(after_loss, bool)
        self.delivered.append(unit.id)

    def frame(self, frame: Frame) -> None:
        raise AssertionError("nothing is decoded here")

    def camera(self, camera: Camera, stream: str) -> None:
        assert 0 < camera.width <= 16384
        assert 0 < camera.height <= 16384
        assert all(math.isfinite(x) for x in (camera.fx, camera.fy, camera.cx, camera.cy))
        assert all(math.isfinite(x) for x in camera.distortion)

    def measured(self, sample: Telemetry, stream: str) -> None:
        assert abs(sample.stamp_ns - time.time_ns()) < 120 * 10**9
        for value in _numbers(astuple(sample)):
            assert not math.isinf(value)

    def dropped(self, frame_id: int, reason: str, stream: str) -> None:
        assert reason
        self.lost.append(frame_id)

    def check(self) -> None:
        """Each id from the first to the last ended once, and what was passed on was delivered."""
        assert self.passed_on == self.delivered
        assert len(self.lost) <= _MOST_LOST + 4096
        ends = sorted(self.passed_on + self.lost)
        if ends:
            assert ends == list(range(ends[0], ends[-1] + 1))


def _numbers(values: object) -> list[float]:
    if isinstance(values, (tuple, list)):
        return [number for value in values for number in _numbers(value)]
    return [float(values)] if isinstance(values, (int, float)) else []
