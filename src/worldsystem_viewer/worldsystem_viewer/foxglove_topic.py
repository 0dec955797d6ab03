# SPDX-License-Identifier: Apache-2.0
"""One topic of ROS messages that Foxglove's clients may subscribe to."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from worldsystem_core.latched_parts import LatchedParts


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
        self._kept = None if part_of is None else LatchedParts(part_of)
        self._lock = threading.Lock()

    @property
    def is_wanted(self) -> bool:
        """Whether anybody has subscribed."""
        return bool(self._channel.has_sinks())

    def log(self, cdr: bytes, log_time_ns: int) -> None:
        """Send a message to all who have subscribed."""
        if self._kept is None:
            self._channel.log(cdr, log_time=log_time_ns)
            return
        part = self._kept.part_of(cdr)
        with self._lock:
            self._kept.keep(part, cdr)
            self._channel.log(cdr, log_time=log_time_ns)

    def log_again(self, log_time_ns: int) -> None:
        """Send what is kept, oldest first; never behind something newer of the same part."""
        with self._lock:
            for cdr in [] if self._kept is None else self._kept.messages:
                self._channel.log(cdr, log_time=log_time_ns)

    def close(self) -> None:
        """Withdraw the topic."""
        self._channel.close()
