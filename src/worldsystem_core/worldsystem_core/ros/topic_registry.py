# SPDX-License-Identifier: Apache-2.0
"""Who publishes and who listens to a topic in this process; `reference_topic` keeps it."""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from typing import Any

_REMEMBERED = 256

Key = tuple[int, str]
"""A DDS domain, and a topic's resolved name."""


class TopicRegistry:
    """By topic: publishers, those of them that DDS offers, subscriptions and how many there ever
    were, each latched publisher's last object, when the last publisher left (Unix time), and the
    newest messages sent. Hold `lock` to read or change more than one thing."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.publishers: dict[Key, int] = defaultdict(int)
        self.offered: dict[Key, int] = defaultdict(int)
        self.subscribed: dict[Key, int] = defaultdict(int)
        self.subscriptions: dict[Key, list[Any]] = defaultdict(list)
        self.latched: dict[Key, dict[Any, Any]] = defaultdict(dict)
        self.left_ns: dict[Key, int] = defaultdict(int)
        self.sent: dict[Key, deque[bytes]] = defaultdict(lambda: deque(maxlen=_REMEMBERED))

    def remember(self, key: Key, depth: int) -> None:
        """Know as many own messages again as can be on their way: `depth` at the writer's end, and
        as many at the reader's."""
        with self.lock:
            if (self.sent[key].maxlen or 0) < 2 * depth:
                self.sent[key] = deque(self.sent[key], 2 * depth)
