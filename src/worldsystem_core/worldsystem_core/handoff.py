# SPDX-License-Identifier: Apache-2.0
"""Bounded hand-off between threads: a late item is worth less than a fresh one."""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")
_order = itertools.count()


class Handoff(Generic[T]):
    """A queue that never blocks its producer: when full, the oldest item goes and is counted.

    `on_drop` is called with each dropped item, outside the lock.
    """

    def __init__(self, capacity: int, on_drop: Callable[[T], None] | None = None) -> None:
        if capacity < 1:
            raise ValueError(f"capacity must be at least 1, not {capacity}")
        self._capacity = capacity
        self._on_drop = on_drop
        self._items: deque[tuple[int, float, T]] = deque()  # order, when it came [s], item
        self._changed = threading.Condition()
        self._closed = False
        self.paced = False
        """Whether whoever put the newest item waits for room: nothing is late then."""
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._items)

    @property
    def oldest(self) -> float:
        """When the oldest item came, among all items of all queues: smaller is earlier, infinite
        means that nothing waits."""
        with self._changed:
            return self._items[0][0] if self._items else math.inf

    @property
    def closed(self) -> bool:
        return self._closed

    def put(self, item: T) -> None:
        """Add `item`, never blocking; after `close` the item itself counts as dropped."""
        lost = [item]
        with self._changed:
            self.paced = False
            if not self._closed:
                lost = self._make_room() if len(self._items) >= self._capacity else []
                self._append(item)
            self.dropped += len(lost)
            self._changed.notify_all()
        if self._on_drop:
            for gone in lost:
                self._on_drop(gone)

    def put_waiting(self, item: T, timeout_s: float) -> bool:
        """Add `item` once there is room; False when there was none within `timeout_s`.

        For producers that can wait, such as a file being read: nothing is dropped.
        """
        with self._changed:
            room = self._changed.wait_for(
                lambda: self._closed or len(self._items) < self._capacity, timeout_s
            )
            if not room or self._closed:
                return False
            self.paced = True
            self._append(item)
            self._changed.notify_all()
        return True

    def get(self, timeout_s: float) -> T | None:
        """The oldest item, or None after `timeout_s` or once closed and empty."""
        with self._changed:
            self._changed.wait_for(lambda: bool(self._items) or self._closed, timeout_s)
            if not self._items:
                return None
            _, _, item = self._items.popleft()
            self._changed.notify_all()
        return item

    def wait_empty(self, timeout_s: float) -> bool:
        """Wait until every item has been taken; False when that took longer than `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while self._items:
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                self._changed.wait(left)
        return True

    def take_first(self, which: Callable[[T], bool]) -> list[T]:
        """What has waited longest, as far as `which` picks one after another; waits for nothing."""
        taken = []
        with self._changed:
            while self._items and which(self._items[0][2]):
                taken.append(self._items.popleft()[2])
            if taken:
                self._changed.notify_all()
        return taken

    def take_late(self, after_s: float, which: Callable[[T], bool]) -> list[T]:
        """Let go of what `which` picks and has waited longer than `after_s`, oldest first.

        The newest one picked stays, however late. `on_drop` is not called: the reason differs.
        """
        came_by = time.monotonic() - after_s
        with self._changed:
            picked = [entry for entry in self._items if which(entry[2])]
            late = [entry for entry in picked[:-1] if entry[1] < came_by]
            if late:
                gone = {order for order, _, _ in late}
                self._items = deque(entry for entry in self._items if entry[0] not in gone)
                self.dropped += len(late)
                self._changed.notify_all()
        return [item for _, _, item in late]

    def drop_all(self) -> None:
        """Let go of everything that waits."""
        with self._changed:
            lost = [item for _, _, item in self._items]
            self._items.clear()
            self.dropped += len(lost)
            self._changed.notify_all()
        if self._on_drop:
            for item in lost:
                self._on_drop(item)

    def close(self) -> None:
        """Take no more items and wake every waiting thread; what is queued can still be got."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _make_room(self) -> list[T]:
        """Let go of an item for the one that comes, and return what went; under the lock."""
        return [self._items.popleft()[2]]

    def _append(self, item: T) -> None:
        self._items.append((next(_order), time.monotonic(), item))
