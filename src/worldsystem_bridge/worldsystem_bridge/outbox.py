# SPDX-License-Identifier: Apache-2.0
"""What waits for the broker: a bounded queue whose every end is counted in a ledger."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

from worldsystem_bridge.exchanges import Message
from worldsystem_core.handoff import Handoff
from worldsystem_core.ledger import StageLedger

Job = Callable[[], list[Message]]


@dataclass
class Posting:
    """Something to be told: `job` makes its messages once the broker is there to take them.

    What is `passing` tells of one frame alone: the next one makes up for it.
    """

    number: int
    job: Job
    passing: bool = False
    messages: list[Message] | None = field(default=None)

    def made(self) -> list[Message]:
        """Its messages, made when first asked for."""
        if self.messages is None:
            self.messages = self.job()
        return self.messages


class _Waiting(Handoff[Posting]):
    """When full, the oldest of what is passing goes; where nothing is, the oldest of all."""

    def _make_room(self) -> list[Posting]:
        for at, (_, _, posting) in enumerate(self._items):
            if posting.passing:
                del self._items[at]
                return [posting]
        return super()._make_room()

    def oldest_number(self) -> int | None:
        """Of the posting that has waited longest; None when none waits."""
        with self._changed:
            return self._items[0][2].number if self._items else None


class Outbox:
    """Bounded; when full, the oldest posting goes, if any is passing the oldest of those, and is
    counted as `queue_full`, those that are not passing also in `crowded_out`."""

    def __init__(self, capacity: int, ledger: StageLedger) -> None:
        self.ledger = ledger
        self.crowded_out = 0
        self.newest = 0
        self._numbers = itertools.count(1)
        self._waiting = _Waiting(capacity, self._crowded_out)

    def __len__(self) -> int:
        return len(self._waiting)

    def post(self, job: Job, *, passing: bool = False) -> None:
        """Queue `job`; never blocks."""
        posting = Posting(next(self._numbers), job, passing)
        self.newest = posting.number
        self.ledger.take(posting.number)
        self._waiting.put(posting)

    def holds_up_to(self, number: int) -> bool:
        """Whether posting `number`, or one before it, still waits."""
        oldest = self._waiting.oldest_number()
        return oldest is not None and oldest <= number

    def get(self, timeout_s: float) -> Posting | None:
        """The oldest posting, or None after `timeout_s`."""
        return self._waiting.get(timeout_s)

    def sent(self, posting: Posting) -> None:
        """The broker has all of it."""
        self.ledger.use(posting.number)

    def refused(self, posting: Posting, reason: str) -> None:
        """It will not be sent."""
        self.ledger.drop(posting.number, reason)

    def close(self, reason: str) -> None:
        """Take nothing more; what waits is let go for `reason`."""
        self._waiting.close()
        while (posting := self._waiting.get(0.0)) is not None:
            self.refused(posting, reason)

    def _crowded_out(self, posting: Posting) -> None:
        self.crowded_out += not posting.passing
        self.ledger.drop(posting.number, "queue_full")
