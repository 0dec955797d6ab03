# SPDX-License-Identifier: Apache-2.0
"""Pings to a sender and their answers, which tell how long the path is."""

from __future__ import annotations

import math
import time
from collections import OrderedDict

from worldsystem_core.errors import ProtocolError
from worldsystem_ingest.sender import fields
from worldsystem_ingest.sender.fields import Message
from worldsystem_ingest.sender.round_trips import RoundTrip

_MOST_OPEN = 16
_LONGEST_ID, _LARGEST_ID = 64, 2**64
_SILENT_AFTER = 10  # a sender that never answered so many does not know pings


class Pings:
    """Numbers the pings of one connection and matches the answers."""

    def __init__(self) -> None:
        self._sent_ns: OrderedDict[int, int] = OrderedDict()
        self._next = 0
        self._unanswered = 0

    def connected(self) -> None:
        """A new connection: older pings will not be answered."""
        self._sent_ns.clear()
        self._unanswered = 0

    def ping(self, now_ns: int) -> Message | None:
        """The next ping; None for a sender that does not answer."""
        if self._unanswered >= _SILENT_AFTER:
            return None
        self._unanswered += 1
        number, self._next = self._next, self._next + 1
        self._sent_ns[number] = now_ns
        if len(self._sent_ns) > _MOST_OPEN:
            self._sent_ns.popitem(last=False)
        return {"type": "ping", "id": number, "host_ns": now_ns}

    def trip(self, message: Message, back_ns: int) -> RoundTrip | None:
        """The four times of the ping that `message` answers; None when it is not open.

        Raises `ProtocolError` for an answer without the sender's times.
        """
        received_ns = fields.whole_ns(message, "received_ns")
        answered_ns = fields.whole_ns(message, "sent_ns")
        if received_ns is None or answered_ns is None:
            raise ProtocolError('a pong needs "received_ns" and "sent_ns", in the sender\'s time')
        number = fields.whole_ns(message, "id")
        sent_ns = None if number is None else self._sent_ns.pop(number, None)
        if sent_ns is None:
            return None
        self._unanswered = 0
        return RoundTrip(sent_ns, received_ns, answered_ns, back_ns)


def pong_to(ping: Message, received_ns: int) -> dict[str, object]:
    """The answer to a sender's own ping, with our times.

    Raises `ProtocolError` for an id that is more than a short name: answers wait in memory.
    """
    name = ping.get("id")
    if not _is_short(name):
        raise ProtocolError(
            f'the "id" of a ping is a number or text of up to {_LONGEST_ID} characters'
        )
    return {"type": "pong", "id": name, "received_ns": received_ns, "sent_ns": time.time_ns()}


def _is_short(name: object) -> bool:
    if isinstance(name, str):
        return len(name) <= _LONGEST_ID
    if isinstance(name, float):
        return math.isfinite(name)
    return name is None or (isinstance(name, int) and abs(name) < _LARGEST_ID)
