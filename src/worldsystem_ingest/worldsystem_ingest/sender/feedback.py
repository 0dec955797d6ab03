# SPDX-License-Identifier: Apache-2.0
"""What a sender is told about its link: when a key frame is needed, which bit rate it carries."""

from __future__ import annotations

import time
from collections.abc import Callable

from worldsystem_ingest.sender.quality import LinkQuality

Say = Callable[[dict[str, object]], None]
_KEY_FRAME_FIRST_S, _KEY_FRAME_MOST_S = 1.0, 8.0
_MOST_LOSS = 0.02
_MOST_QUEUE_MS = 200.0
_MOST_JITTER_MS = 100.0
_LOWER_FACTOR, _RAISE_FACTOR, _RAISE_KBPS = 0.7, 1.05, 100.0
_LEAST_KBPS = 300.0
_LOWER_EVERY_S, _RAISE_EVERY_S = 3.0, 5.0
_RELAPSE_S = 60.0
_SETTLE_S = 5.0  # a new connection begins with pictures that the break held up


class KeyFrameRequests:
    """Asks for a key frame while one is needed: again after 1 s, then more rarely, up to 8 s."""

    def __init__(self, say: Say, now_s: Callable[[], float] = time.monotonic) -> None:
        self._say = say
        self._now_s = now_s
        self._reason = ""
        self._wait_s = _KEY_FRAME_FIRST_S
        self._not_before_s = 0.0
        self.asked = 0

    def needed(self, reason: str) -> None:
        """Pictures are being lost until a key frame comes."""
        self._reason = reason
        self.tick()

    def came(self) -> None:
        """A key frame arrived."""
        self._reason = ""
        self._wait_s = _KEY_FRAME_FIRST_S
        self._not_before_s = min(self._not_before_s, self._now_s() + _KEY_FRAME_FIRST_S)

    def connected(self) -> None:
        """Another connection: what was asked before may not have arrived."""
        self._wait_s = _KEY_FRAME_FIRST_S
        self._not_before_s = 0.0

    def tick(self) -> None:
        """Ask if it is time to."""
        now_s = self._now_s()
        if not self._reason or now_s < self._not_before_s:
            return
        self._say({"type": "request_key_frame", "reason": self._reason})
        self.asked += 1
        self._not_before_s = now_s + self._wait_s
        self._wait_s = min(2 * self._wait_s, _KEY_FRAME_MOST_S)


class BitrateControl:
    """Lowers the sender's bit rate by 30 % when the link chokes; raises it slowly when it is clean.

    Nothing is asked for until the link first chokes, and nothing after the rate is back at what the
    sender sent of itself. The rate asked for never falls under 300 kbit/s.
    """

    def __init__(self, say: Say, now_s: Callable[[], float] = time.monotonic) -> None:
        self._say = say
        self._now_s = now_s
        self._limit_kbps: float | None = None
        self._free_kbps = 0.0
        self._lower_after_s = 0.0
        self._raise_after_s = 0.0
        self._freed_at_s = -_RELAPSE_S

    @property
    def asked_kbps(self) -> int | None:
        """The rate that the sender should keep to; None when it is free."""
        return None if self._limit_kbps is None else round(self._limit_kbps)

    def connected(self) -> None:
        """A new connection, whose sender may not know the rate."""
        self._lower_after_s = self._now_s() + _SETTLE_S
        if self._limit_kbps is not None:
            self._ask("reconnected")

    def forget(self) -> None:
        """Another sender begins, about which nothing is known."""
        self._limit_kbps = None
        self._free_kbps = 0.0
        self._freed_at_s = -_RELAPSE_S

    def judge(self, quality: LinkQuality) -> None:
        """Decide by the link's state; call about once a second."""
        now_s, came_kbps = self._now_s(), 1e3 * quality.bandwidth_mbps
        if came_kbps <= 0:
            return
        reason = trouble_of(quality)
        if reason:
            self._raise_after_s = now_s + _RAISE_EVERY_S
            if now_s >= self._lower_after_s:
                self._lower(came_kbps, came_kbps / max(0.05, 1.0 - quality.loss), reason)
        elif self._limit_kbps is not None and now_s >= self._raise_after_s:
            self._raise()

    def _lower(self, came_kbps: float, sent_kbps: float, reason: str) -> None:
        now_s = self._now_s()
        if self._limit_kbps is None:  # the second time at once, the sender wants more than it got
            again = now_s < self._freed_at_s + _RELAPSE_S
            self._free_kbps = max(sent_kbps, 2 * self._free_kbps if again else _LEAST_KBPS)
        before_kbps = min(came_kbps, self._limit_kbps or came_kbps)
        limit_kbps = max(_LEAST_KBPS, _LOWER_FACTOR * before_kbps)
        self._lower_after_s = now_s + _LOWER_EVERY_S
        if limit_kbps != self._limit_kbps:
            self._limit_kbps = limit_kbps
            self._ask(reason)

    def _raise(self) -> None:
        assert self._limit_kbps is not None
        self._limit_kbps = max(self._limit_kbps * _RAISE_FACTOR, self._limit_kbps + _RAISE_KBPS)
        self._limit_kbps = min(self._limit_kbps, self._free_kbps)
        self._raise_after_s = self._now_s() + _RAISE_EVERY_S
        self._ask("clean")
        if self._limit_kbps == self._free_kbps:
            self._limit_kbps = None
            self._freed_at_s = self._now_s()

    def _ask(self, reason: str) -> None:
        self._say({"type": "set_bitrate", "kbps": self.asked_kbps, "reason": reason})


def trouble_of(quality: LinkQuality) -> str:
    """What is wrong with a link that carries more than it can; empty when nothing is."""
    if quality.loss > _MOST_LOSS:
        return "loss"
    if quality.queue_delay_ms is not None and quality.queue_delay_ms > _MOST_QUEUE_MS:
        return "delay"
    if quality.jitter_ms is not None and quality.jitter_ms > _MOST_JITTER_MS:
        return "jitter"
    return ""
