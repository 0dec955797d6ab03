# SPDX-License-Identifier: Apache-2.0
"""When a browser is to be asked for a key frame, of which it sends none by itself."""

from __future__ import annotations

from collections.abc import Callable

_AGAIN_S = 1.0  # on a slow link a key frame takes its time, and asking twice gives two
_ANSWERED_S = 0.3
_FIRST_S = 0.2  # the first one may take some packets
_AT_LEAST_EVERY_S = 4.0


class KeyFrames:
    """Asks while one is wanted, once a second until it comes, and every four seconds anyway.

    A browser's group of pictures has no end, but consumers join, recordings are cut and loss is
    mended at key frames only.
    """

    def __init__(self, clock_s: Callable[[], float]) -> None:
        self._clock_s = clock_s
        self._wanted = True
        self._not_before_s: float | None = None
        self._came_s = 0.0

    def sending(self) -> None:
        """Packets arrive."""
        if self._not_before_s is None:
            self._not_before_s = self._clock_s() + _FIRST_S

    def want(self) -> None:
        """Pictures cannot be decoded until one comes."""
        self._wanted = True

    def came(self) -> None:
        """One arrived whole."""
        self._wanted = False
        self._came_s = now_s = self._clock_s()
        if self._not_before_s is not None:
            self._not_before_s = min(self._not_before_s, now_s + _ANSWERED_S)

    def due(self) -> bool:
        """Whether to ask now; the answer True counts as asked."""
        now_s = self._clock_s()
        if self._not_before_s is None or now_s < self._not_before_s:
            return False
        if not self._wanted and now_s - self._came_s < _AT_LEAST_EVERY_S:
            return False
        self._not_before_s = now_s + _AGAIN_S
        return True
