# SPDX-License-Identifier: Apache-2.0
"""A queue of access units for one consumer, which loses whole groups of pictures when full."""

from __future__ import annotations

import threading
from collections import Counter, deque

from worldsystem_core.frames import EncodedFrame
from worldsystem_ingest.sink import NO_KEY_FRAME, STOPPED


class GopQueue:
    """Bounded by pictures and bytes; what comes out can always be decoded. Safe for threads.

    Whatever goes in comes out or is counted in `lost` by its reason; `reason` is the one for
    what does not fit, which the consumer sets as it goes.
    """

    def __init__(self, most_frames: int, most_bytes: int, reason: str) -> None:
        self._most_frames = most_frames
        self._most_bytes = most_bytes
        self._units: deque[EncodedFrame] = deque()
        self._bytes = 0
        self._waiting_for: str | None = NO_KEY_FRAME
        self._closed = False
        self._changed = threading.Condition()
        self._lost: Counter[str] = Counter()
        self.reason = reason

    def __len__(self) -> int:
        return len(self._units)

    def lost(self) -> dict[str, int]:
        """Pictures lost so far, by reason."""
        with self._changed:
            return dict(self._lost)

    def put(self, unit: EncodedFrame) -> None:
        """Add `unit`, never blocking."""
        with self._changed:
            if self._closed:
                self._lost[STOPPED] += 1
            elif self._waiting_for and not unit.is_key:
                self._lost[self._waiting_for] += 1
            elif self._has_room_for(unit):
                self._waiting_for = None
                self._units.append(unit)
                self._bytes += len(unit.data)
                self._changed.notify_all()
            else:
                self._lost[self.reason] += 1
                self._waiting_for = self.reason

    def get(self, timeout_s: float) -> EncodedFrame | None:
        """The oldest unit, or None after `timeout_s`."""
        with self._changed:
            self._changed.wait_for(lambda: bool(self._units) or self._closed, timeout_s)
            return self._pop() if self._units else None

    def put_back(self, unit: EncodedFrame) -> None:
        """Make `unit`, which was got last, the oldest again, even when that is one too many."""
        with self._changed:
            if self._closed:
                self._lost[STOPPED] += 1
                return
            self._units.appendleft(unit)
            self._bytes += len(unit.data)

    def skip_to_newest_key_frame(self, reason: str) -> None:
        """Lose what comes before the last key frame that is here; all, when there is none."""
        with self._changed:
            keys = [at for at, unit in enumerate(self._units) if unit.is_key]
            if not keys:
                self._waiting_for = self._waiting_for or reason
            self._lose(keys[-1] if keys else len(self._units), reason)

    def lose(self, reason: str) -> None:
        """Count a unit that was got and is lost all the same."""
        with self._changed:
            self._lost[reason] += 1

    def close(self) -> None:
        """Lose what is left, take no more, and wake the consumer."""
        with self._changed:
            self._closed = True
            self._lose(len(self._units), STOPPED)
            self._changed.notify_all()

    def _has_room_for(self, unit: EncodedFrame) -> bool:
        """Older groups make room for newer ones."""
        if self._full_with(unit):
            keys = [at for at, queued in enumerate(self._units) if queued.is_key]
            self._lose(len(self._units) if unit.is_key else keys[-1] if keys else 0, self.reason)
        return not self._full_with(unit)

    def _full_with(self, unit: EncodedFrame) -> bool:
        too_many = len(self._units) >= self._most_frames
        return too_many or (bool(self._units) and self._bytes + len(unit.data) > self._most_bytes)

    def _lose(self, count: int, reason: str) -> None:
        if count:
            self._lost[reason] += count
        for _ in range(count):
            self._pop()

    def _pop(self) -> EncodedFrame:
        unit = self._units.popleft()
        self._bytes -= len(unit.data)
        return unit
