# SPDX-License-Identifier: Apache-2.0
"""A share of a page's line in bytes a second, of which a little may come at once."""

from __future__ import annotations

import math

_BURST_S = 0.5


class LineShare:
    """`mbps` [Mbit/s] on average, 0: no limit. Debts are allowed and paid before the next."""

    def __init__(self, mbps: float) -> None:
        self._rate = 1e6 * mbps / 8.0
        self._tokens = self._rate * _BURST_S
        self._last_s: float | None = None

    def ready(self, now_s: float) -> bool:
        """Whether something may be sent now."""
        if not self._rate:
            return True
        gained = 0.0 if self._last_s is None else self._rate * max(0.0, now_s - self._last_s)
        self._last_s = now_s
        self._tokens = min(self._tokens + gained, self._rate * _BURST_S)
        return self._tokens > 0

    def room(self) -> float:
        """Bytes that may be sent without a debt."""
        return self._tokens if self._rate else math.inf

    def charge(self, size: int) -> None:
        """`size` bytes were sent."""
        self._tokens -= size
