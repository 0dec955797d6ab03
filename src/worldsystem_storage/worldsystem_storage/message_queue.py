# SPDX-License-Identifier: Apache-2.0
"""Messages that wait for the disk: bounded, never blocking their senders, taken by the batch.

To wake the writer for each message costs more than to write it. It is woken when a batch is there,
and comes by itself when it must flush.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from typing import NamedTuple

from worldsystem_storage.bag_metadata import Topic

_BATCH_BYTES = 1 << 20
_BATCH_SHARE = 8  # of the messages that may wait


class WaitingMessage(NamedTuple):
    """One message on its way to the disk."""

    topic: Topic
    cdr: bytes
    log_time_ns: int
    publish_time_ns: int


class MessageQueue:
    """When full, the oldest messages go and are counted by topic in `overflown`.

    What has been taken counts as waiting until `settle`; `waiting_bytes` tells all of it.
    """

    def __init__(self, most_messages: int, most_bytes: int) -> None:
        self._most_messages, self._most_bytes = most_messages, most_bytes
        self._batch_messages = max(1, most_messages // _BATCH_SHARE)
        self._batch_bytes = min(_BATCH_BYTES, max(1, most_bytes // _BATCH_SHARE))
        self._changed = threading.Condition()
        self._messages: deque[WaitingMessage] = deque()
        self._queued_bytes = 0
        self.waiting_bytes = 0
        self.offered: Counter[str] = Counter()
        self.overflown: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.closed = False

    def put(self, message: WaitingMessage) -> None:
        """Add `message`, never blocking; once closed it is counted in `refused`."""
        size, name = len(message.cdr), message.topic.name
        with self._changed:
            self.offered[name] += 1
            if self.closed:
                self.refused[name] += 1
                return
            while self._messages and self._is_too_much(size):
                oldest = self._messages.popleft()
                self._queued_bytes -= len(oldest.cdr)
                self.waiting_bytes -= len(oldest.cdr)
                self.overflown[oldest.topic.name] += 1
            self._messages.append(message)
            self._queued_bytes += size
            self.waiting_bytes += size
            if self._is_batch():
                self._changed.notify()

    def take(self, timeout_s: float) -> list[WaitingMessage]:
        """The oldest messages once a batch is there, or what there is after `timeout_s`."""
        with self._changed:
            self._changed.wait_for(lambda: self.closed or self._is_batch(), timeout_s)
            batch: list[WaitingMessage] = []
            size = 0
            while self._messages and size < self._batch_bytes:
                batch.append(self._messages.popleft())
                size += len(batch[-1].cdr)
            self._queued_bytes -= size
        return batch

    def settle(self, size_bytes: int) -> None:
        """So many bytes of what was taken wait no longer."""
        with self._changed:
            self.waiting_bytes -= size_bytes

    def close(self) -> None:
        """Take no more messages, and wake the writer; what waits can still be taken."""
        with self._changed:
            self.closed = True
            self._changed.notify_all()

    def _is_too_much(self, size: int) -> bool:
        too_many = len(self._messages) >= self._most_messages
        return too_many or self.waiting_bytes + size > self._most_bytes

    def _is_batch(self) -> bool:
        enough = len(self._messages) >= self._batch_messages
        return enough or self._queued_bytes >= self._batch_bytes
