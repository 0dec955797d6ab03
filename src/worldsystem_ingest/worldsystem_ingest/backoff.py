# SPDX-License-Identifier: Apache-2.0
"""How long to wait before the next attempt."""

from __future__ import annotations

import random
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
