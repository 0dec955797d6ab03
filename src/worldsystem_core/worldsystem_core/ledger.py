# SPDX-License-Identifier: Apache-2.0
"""The frame ledger: every frame a stage takes ends as used, or as dropped for a named reason."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field


@dataclass(frozen=True)
class LedgerState:
    """A stage's account at one moment: `taken == used + sum(dropped) + in_flight`, always."""

    stage: str
    taken: int
    used: int
    dropped: dict[str, int] = field(default_factory=dict)

    @property
    def in_flight(self) -> int:
        return self.taken - self.used - sum(self.dropped.values())


class StageLedger:
    """Counts what one stage takes in, uses and lets go; safe to call from any thread.

    A frame may be settled once. Settling it twice or settling one that was never taken is counted
    in `violations`, so that a test or the report can show a fault in the accounting itself.
    """

    def __init__(self, stage: str) -> None:
        self.stage = stage
        self.violations = 0
        self._lock = threading.Lock()
        self._open: dict[int, int] = {}  # and how many had been taken before each
        self._taken = 0
        self._only_reason = ""
        self._used = 0
        self._dropped: Counter[str] = Counter()

    def take(self, frame_id: int) -> None:
        """A frame came in."""
        with self._lock:
            if frame_id in self._open:
                self.violations += 1
                return
            self._open[frame_id] = self._taken
            self._taken += 1

    def use(self, frame_id: int) -> None:
        """The frame was worked into this stage's result."""
        with self._lock:
            if self._settled(frame_id):
                self._used += 1

    def drop(self, frame_id: int, reason: str) -> None:
        """The frame was let go; `reason` is a short snake_case name."""
        with self._lock:
            if self._settled(frame_id):
                self._dropped[self._only_reason or reason] += 1

    def drop_untaken(self, reason: str) -> None:
        """A frame is let go before any work on it (lost on the link, no room in the inbox): taken
        and dropped at once. It needs no id: the same frame, which came before, may be in work."""
        with self._lock:
            self._taken += 1
            self._dropped[self._only_reason or reason] += 1

    @property
    def taken(self) -> int:
        """Frames that came in so far."""
        return self._taken

    def drop_since(self, taken: int, reason: str) -> None:
        """Let go what is open of all that came in after the first `taken` frames."""
        with self._lock:
            newer = [frame for frame, before in self._open.items() if before >= taken]
            for frame in newer:
                del self._open[frame]
            self._dropped[reason] += len(newer)
            if not self._dropped[reason]:
                del self._dropped[reason]

    def end_as(self, reason: str) -> None:
        """From now on every frame that is let go goes for `reason`: the stage has ended early."""
        with self._lock:
            self._only_reason = reason

    def drop_in_flight(self, reason: str) -> None:
        """Close the account: whatever is neither used nor dropped goes for `reason`."""
        with self._lock:
            self._dropped[reason] += len(self._open)
            self._open.clear()
            if not self._dropped[reason]:
                del self._dropped[reason]

    def state(self) -> LedgerState:
        """The account now."""
        with self._lock:
            return LedgerState(self.stage, self._taken, self._used, dict(self._dropped))

    def _settled(self, frame_id: int) -> bool:
        if frame_id not in self._open:
            self.violations += 1
            return False
        del self._open[frame_id]
        return True


@dataclass(frozen=True, kw_only=True)
class StageReport:
    """A stage's account with its latency histogram, as published each second and at the end.

    `latency_counts` counts durations from capture to this stage's output in the buckets of
    `worldsystem_core.latency.BUCKETS_S`.
    """

    stamp_ns: int
    ledger: LedgerState
    violations: int
    latency_counts: tuple[int, ...]
