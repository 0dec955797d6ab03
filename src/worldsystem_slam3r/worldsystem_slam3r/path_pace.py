# SPDX-License-Identifier: Apache-2.0
"""How often the path is told, which is told whole each time."""

from __future__ import annotations

POSES_PER_S = 5000
"""What is told on average: 0.4 MB a second, however long the run."""


class PathPace:
    """Asked every `period_s`; a path of more than `POSES_PER_S` poses is due more seldom."""

    def __init__(self, period_s: float) -> None:
        self._period_s = period_s
        self._wait_s = 0.0

    def is_due(self, poses: int) -> bool:
        """Whether a path of so many poses is to be told now."""
        self._wait_s = min(self._wait_s, poses / POSES_PER_S) - self._period_s
        if not poses or self._wait_s > 0.0:
            return False
        self._wait_s = poses / POSES_PER_S
        return True
