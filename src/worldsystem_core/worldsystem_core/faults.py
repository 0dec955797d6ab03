# SPDX-License-Identifier: Apache-2.0
"""How many faults a stage survives: one costs the frame at hand, many in a row end the stage."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

MOST_FAULTS = 5
WITHIN_S = 30.0


class LastFault:
    """What went wrong last, in words, for as long as it counts as wrong now."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._words = ""
        self._until_s = 0.0

    def note(self, words: str) -> None:
        """It went wrong once more."""
        self._words, self._until_s = words, self._clock() + WITHIN_S

    @property
    def recent(self) -> str:
        """The words while they are less than `WITHIN_S` old, else empty."""
        return self._words if self._clock() <= self._until_s else ""


class FaultRecord:
    """Counts unexpected errors and says when they are too many to go on."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.total = 0
        self.last = ""
        self._clock = clock
        self._times: deque[float] = deque(maxlen=MOST_FAULTS + 1)

    def survives(self, error: Exception) -> bool:
        """Count `error`; False once there were more than `MOST_FAULTS` within `WITHIN_S`."""
        self.total += 1
        self.last = f"{type(error).__name__}: {error}"
        self._times.append(self._clock())
        full = len(self._times) > MOST_FAULTS
        return not (full and self._times[-1] - self._times[0] <= WITHIN_S)

    @property
    def recent(self) -> str:
        """The last error in words while it is less than `WITHIN_S` old, else empty."""
        fresh = self._times and self._clock() - self._times[-1] <= WITHIN_S
        return self.last if fresh else ""
