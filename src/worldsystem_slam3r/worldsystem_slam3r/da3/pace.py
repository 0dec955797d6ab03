# SPDX-License-Identifier: Apache-2.0
"""Every how many frames one goes into the window, so that the network keeps up with the video."""

from __future__ import annotations

import math

_SMOOTHING = 0.5


class Pace:
    """Learns how long a window takes and how fast frames come; `step` follows, within limits.

    With `fixed` > 0 it never changes.
    """

    def __init__(self, fixed: int, least: int, most: int) -> None:
        self.step = fixed or least
        self._fixed = bool(fixed)
        self._least, self._most = least, most
        self._window_s: float | None = None
        self.skipped = 0

    def learn(self, window_s: float, fresh: int, frame_s: float) -> None:
        """A window with `fresh` new pictures took `window_s`; frames are `frame_s` apart."""
        before = self._window_s if self._window_s is not None else window_s
        self._window_s = _SMOOTHING * window_s + (1 - _SMOOTHING) * before
        if self._fixed or frame_s <= 0:
            return
        wanted = math.ceil(self._window_s / (max(fresh, 1) * frame_s))
        self.step = min(self._most, max(self._least, wanted))
