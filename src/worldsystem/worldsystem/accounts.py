# SPDX-License-Identifier: Apache-2.0
"""A stage's account over all its lives: one that was killed begins to count from nothing."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

from worldsystem_core.ledger import LedgerState, StageReport

KILLED = "killed"
"""Why frames go that a stage was working on when its process ended."""

NOT_DELIVERED = "not_delivered"
"""Why frames go between processes: the stage was down, or too slow to take them from the transport,
which keeps the newest few."""


@dataclass
class StageAccount:
    """Sums up the reports of one stage."""

    newest: StageReport | None = None
    _before: LedgerState | None = None
    _latency_before: tuple[int, ...] = ()
    _violations_before: int = 0
    _has_begun_anew: bool = False

    def begin_anew(self) -> None:
        """The stage's process was started again; its next report counts from nothing."""
        self._has_begun_anew = True

    def add(self, report: StageReport) -> None:
        """Take the stage's newest report."""
        if self._has_begun_anew and self.newest is not None:
            self._before = self.ledger
            self._latency_before = self.latency_counts
            self._violations_before = self.violations
            open_frames = self._before.in_flight
            if open_frames > 0:
                dropped = Counter(self._before.dropped) + Counter({KILLED: open_frames})
                self._before = replace(self._before, dropped=dict(dropped))
        self._has_begun_anew = False
        self.newest = report

    @property
    def ledger(self) -> LedgerState:
        """Everything that it took, used and let go, in all its lives."""
        assert self.newest is not None  # an account is made for a report
        now, before = self.newest.ledger, self._before
        if before is None:
            return now
        return LedgerState(
            now.stage,
            before.taken + now.taken,
            before.used + now.used,
            dict(Counter(before.dropped) + Counter(now.dropped)),
        )

    @property
    def latency_counts(self) -> tuple[int, ...]:
        """The histograms of all its lives, added up."""
        counts = () if self.newest is None else self.newest.latency_counts
        if not self._latency_before:
            return tuple(counts)
        return tuple(a + b for a, b in zip(self._latency_before, counts, strict=True))

    @property
    def violations(self) -> int:
        """Frames settled twice or never taken."""
        return self._violations_before + (0 if self.newest is None else self.newest.violations)

    def closed(self, expected: int | None, untold: int = 0) -> LedgerState:
        """The account at the end: of the frames that it should have taken, those that nobody took
        were `not_delivered`; it passed on `untold` more than it came to tell of."""
        ledger = self.ledger
        ledger = replace(ledger, taken=ledger.taken + untold, used=ledger.used + untold)
        missing = 0 if expected is None else expected - ledger.taken
        if missing <= 0:
            return ledger
        dropped = Counter(ledger.dropped) + Counter({NOT_DELIVERED: missing})
        return replace(ledger, taken=ledger.taken + missing, dropped=dict(dropped))
