# SPDX-License-Identifier: Apache-2.0
"""How fast one sender may send: what comes faster is left in its socket, not dropped."""

from __future__ import annotations

import asyncio
import time

_BURST_S = 0.5
_LONGEST_WAIT_S = 5.0  # a heartbeat's answer waits as long behind the data
_MESSAGE_BYTES = 512  # what a message costs beside its bytes
_SHARE = 0.5  # of the network thread that one sender may use


class Pace:
    """Counts what one sender costs, in bytes and in time, and says when to read on."""

    def __init__(self, max_mbps: float) -> None:
        self._byte_s = 8e-6 / max_mbps
        self._paid_until_s = 0.0

    async def after(self, size_bytes: int, busy_s: float) -> None:
        """Wait after a message of `size_bytes` that took `busy_s` of the thread's time.

        Others get their turn in any case. Half a second's worth may come at once.
        """
        now_s = time.monotonic()
        cost_s = max((size_bytes + _MESSAGE_BYTES) * self._byte_s, busy_s / _SHARE)
        self._paid_until_s = max(self._paid_until_s, now_s - _BURST_S) + cost_s
        await asyncio.sleep(min(max(self._paid_until_s - now_s, 0.0), _LONGEST_WAIT_S))
