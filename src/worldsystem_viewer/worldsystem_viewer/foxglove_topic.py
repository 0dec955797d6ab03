# SPDX-License-Identifier: Apache-2.0
"""One topic of ROS messages that Foxglove's clients may subscribe to."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

_MOST_PARTS = 64


class OfferedTopic:
    """A topic's channel; of a latched one also what it told last, for those who come later.

    Publishers of a latched topic may each tell a part of it: `part_of` a message names which, and
    the newest of each is kept. Safe from any thread.
    """

    def __init__(
        self,
        channel: Any,  # foxglove.Channel, which is optional
        part_of: Callable[[bytes], str] | None = None,
    ) -> None:
        self._channel = channel
        self._part_of = part_of
        self._lock = threading.Lock()
        self._newest: dict[str, bytes] = {}

    @property
    def is_wanted(self) -> bool:
        """Whether anybody has subscribed."""
        return bool(self._channel.has_sinks())

    def log(self, cdr: bytes, log_time_ns: int) -> None:
        """Send a message to all who have subscribed."""
        if self._part_of is None:
            self._channel.log(cdr, log_time=log_time_ns)
            return
        part = self._part_of(cdr)
        with self._lock:
            self._newest.pop(part, None)
            self._newest[part] = cdr
            if len(self._newest) > _MOST_PARTS:
                del self._newest[next(iter(self._newest))]
            self._channel.log(cdr, log_time=log_time_ns)

    def log_again(self, log_time_ns: int) -> None:
        """Send what is kept, oldest first; never behind something newer of the same part."""
        with self._lock:
            for cdr in self._newest.values():
                self._channel.log(cdr, log_time=log_time_ns)

    def close(self) -> None:
        """Withdraw the topic."""
        self._channel.close()
