# SPDX-License-Identifier: Apache-2.0
"""Frames come in order, and none after the end."""

from __future__ import annotations

from worldsystem_core.errors import BackendError
from worldsystem_core.frames import Frame


class FrameOrder:
    """Refuses frames that are not newer than the last, and all once `closed`."""

    def __init__(self) -> None:
        self.closed = False
        self._last: tuple[int, int] | None = None

    def forget(self) -> None:
        """The next frame is newer than the last, whatever its id and stamp."""
        self._last = None

    def check(self, frame: Frame) -> None:
        """Take note of `frame`, or raise a `BackendError`."""
        if self.closed:
            raise BackendError("the reconstruction has finished; create a new back-end")
        if self._last and (frame.id <= self._last[0] or frame.stamp_ns < self._last[1]):
            raise BackendError(
                f"frame {frame.id} at {frame.stamp_ns} ns is not newer than frame "
                f"{self._last[0]} at {self._last[1]} ns; feed frames in order"
            )
        self._last = (frame.id, frame.stamp_ns)
