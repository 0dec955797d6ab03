# SPDX-License-Identifier: Apache-2.0
"""How long to wait before the next attempt, and how often to speak of it."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable

Jitter = Callable[[], float]


class Backoff:
    """Waits that double from `first_s` to `most_s`, each shortened at random by up to a half.

    The randomness keeps many clients from coming back to a server at the same moment.
    """

    def __init__(self, first_s: float, most_s: float, jitter: Jitter = random.random) -> None:
        self._first_s = first_s
        self._most_s = most_s
        self._jitter = jitter
        self.failures = 0

    def next_s(self) -> float:
        """How long to wait after one more failure."""
        wait_s = min(self._most_s, self._first_s * 2.0 ** min(self.failures, 30))
        self.failures += 1
        return wait_s * (1.0 - 0.5 * self._jitter())

    def succeeded(self) -> None:
        """Begin anew with the shortest wait."""
        self.failures = 0


class SparseWarnings:
    """Logs a failure that repeats: at once when it is another one, else once a minute."""

    def __init__(self, log: logging.Logger, every_s: float = 60.0) -> None:
        self._log = log
        self._every_s = every_s
        self._last = ""
        self._last_s = 0.0

    def warn(self, what: str, wait_s: float) -> None:
        """`what` failed and is tried again in `wait_s`."""
        now_s = time.monotonic()
        repeats = what == self._last and now_s - self._last_s < self._every_s
        level = logging.DEBUG if repeats else logging.WARNING
        self._log.log(level, "%s; trying again in %.1f s", what, wait_s)
        if not repeats:
            self._last, self._last_s = what, now_s

    def over(self, what: str) -> None:
        """It works again, if it ever did not."""
        if self._last:
            self._log.info("%s", what)
        self._last = ""
