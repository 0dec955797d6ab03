# SPDX-License-Identifier: Apache-2.0
"""A look from outside at whether the bag grows while messages come."""

from __future__ import annotations

import logging
import time

from worldsystem_storage.bag_writer import BagState

log = logging.getLogger(__name__)


class GrowthWatchdog:
    """Tells a recording that has silently stopped, for whatever reason, by the file's size.

    `flush_s` is how long messages may wait in memory, and the file as it is, while all is well; it
    is told after `limit_s` more. `look` once a second, with the clock in seconds for tests.
    """

    def __init__(self, limit_s: float, flush_s: float = 0.0) -> None:
        self._limit_s, self._flush_s = limit_s, flush_s
        self._grown_bytes = -1
        self._grew_at_s = 0.0
        self._offered_then = 0
        self.problem = ""

    def look(self, state: BagState, now_s: float | None = None) -> str:
        """What is wrong, in words; empty while the bag grows or nothing comes."""
        now_s = time.monotonic() if now_s is None else now_s
        offered = sum(count.offered for count in state.topics.values())
        if state.grown_bytes != self._grown_bytes or offered == self._offered_then:
            self._grown_bytes, self._grew_at_s = state.grown_bytes, now_s
            self._offered_then = offered
        still_s = now_s - self._grew_at_s
        is_late = max(still_s - self._flush_s, state.stalled_s) > self._limit_s
        words = self._words(state, offered, max(still_s, state.stalled_s))
        self._tell(words if is_late else "")
        return self.problem

    def _words(self, state: BagState, offered: int, still_s: float) -> str:
        if state.stopped:
            return state.stopped
        return (
            f"{offered - self._offered_then} messages came in the last {still_s:.0f} s, but the "
            f"bag does not grow; {state.waiting_bytes / 1e6:.0f} MB wait for the disk"
        )

    def _tell(self, problem: str) -> None:
        if problem and not self.problem:
            log.error("%s", problem)
        if self.problem and not problem:
            log.warning("the bag grows again")
        self.problem = problem
