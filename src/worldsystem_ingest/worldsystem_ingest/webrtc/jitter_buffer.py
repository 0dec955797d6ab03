# SPDX-License-Identifier: Apache-2.0
"""From RTP packets to whole coded pictures: a jitter buffer that waits a bounded time.

A picture is handed on with the packet that completes it, not with the first one of the next
picture; what stays away longer than `wait_s` is given up with the picture it belonged to.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from worldsystem_ingest.stream.status import PacketLoss

_WRAP = 1 << 16
_MAX_PACKETS = 2048
_MAX_LATE_RUN = 100  # so many old packets in a row are a sender that began again
_SPACINGS = 15
_MAX_ASKED = 64
_ASK_AGAIN_S = 0.06


@dataclass(frozen=True, eq=False)
class Packet:
    """One RTP packet; `data` is what it adds to its picture, `begins` whether it is its first."""

    sequence: int
    timestamp: int
    marker: bool
    payload_type: int
    data: bytes
    begins: bool
    source: int = 0


@dataclass(frozen=True, eq=False)
class CodedPicture:
    """One whole coded picture and the number of pictures that were lost just before it."""

    data: bytes
    timestamp: int
    payload_type: int
    lost: int


@dataclass(eq=False)
class _Open:
    """The picture that packets are being added to."""

    timestamp: int
    payload_type: int
    parts: list[bytes]
    size_bytes: int = 0


class JitterBuffer:
    """Puts packets in order and joins them to pictures; memory is bounded whatever comes.

    `clock_s` only grows. Call `tick` now and then, so that a gap at which nothing arrives any more
    ends as well. Whole pictures that went missing are told from their timestamps; packets that did
    are counted in `loss`.
    """

    def __init__(
        self,
        wait_s: float,
        max_bytes: int,
        clock_s: Callable[[], float],
        loss: PacketLoss | None = None,
    ) -> None:
        self._wait_s = wait_s
        self._max_bytes = max_bytes
        self._clock_s = clock_s
        self._loss = loss or PacketLoss()
        self._source: int | None = None
        self._cursor: int | None = None
        self._highest = 0
        self._waiting: dict[int, tuple[Packet, float]] = {}
        self._waiting_bytes = 0
        self._open: _Open | None = None
        self._broken = 0
        self._broken_timestamp: int | None = None
        self._skipped = 0
        self._ended: int | None = None
        self._spacings: deque[int] = deque(maxlen=_SPACINGS)
        self._late_run = 0
        self._asked_s = 0.0

    def add(self, packet: Packet) -> list[CodedPicture]:
        """Take one packet; gives the pictures that are whole now, oldest first."""
        if self._source != packet.source:
            self._begin_again(packet.source)
        at = self._unwrapped(packet.sequence)
        if self._cursor is None:
            self._cursor = at
        if at < self._cursor:
            return self._take_late(packet)
        self._late_run = 0
        if at not in self._waiting:
            self._waiting[at] = (packet, self._clock_s())
            self._waiting_bytes += len(packet.data)
        self._highest = max(self._highest, at)
        return self._whole()

    def tick(self) -> list[CodedPicture]:
        """Give up what stayed away too long; gives the pictures that are whole then."""
        return self._whole()

    def missing(self) -> list[int]:
        """Sequence numbers worth asking for again, by now; each time only after a while."""
        since_s = self._blocked_since_s()
        now_s = self._clock_s()
        if since_s is None or now_s - max(since_s, self._asked_s) < _ASK_AGAIN_S:
            return []
        assert self._cursor is not None
        self._asked_s = now_s
        absent = (n for n in range(self._cursor, self._highest) if n not in self._waiting)
        return [number % _WRAP for number, _ in zip(absent, range(_MAX_ASKED), strict=False)]

    def _begin_again(self, source: int) -> None:
        """Follow another numbering; what was not whole is gone."""
        self._source = source
        self._cursor = None
        self._waiting.clear()
        self._waiting_bytes = 0
        self._open = None
        self._broken = self._skipped = 0
        self._broken_timestamp = None
        self._ended = None
        self._spacings.clear()
        self._late_run = 0

    def _unwrapped(self, sequence: int) -> int:
        if self._cursor is None:
            self._highest = sequence
            return sequence
        return self._highest + (sequence - self._highest + _WRAP // 2) % _WRAP - _WRAP // 2

    def _take_late(self, packet: Packet) -> list[CodedPicture]:
        self._loss.late += 1
        self._late_run += 1
        if self._late_run <= _MAX_LATE_RUN:
            return []
        self._begin_again(packet.source)
        self._cursor = packet.sequence - 1  # a gap: whatever was between is not known
        self._highest = packet.sequence
        return self.add(packet)

    def _whole(self) -> list[CodedPicture]:
        pictures = self._drain()
        while self._must_give_up():
            self._give_up()
            pictures += self._drain()
        return pictures

    def _drain(self) -> list[CodedPicture]:
        """Move on over the packets that are there."""
        pictures: list[CodedPicture] = []
        assert self._cursor is not None or not self._waiting
        while self._cursor in self._waiting:
            packet = self._take(self._cursor)
            self._cursor += 1
            if not packet.data:  # padding, sent to find out what the link carries
                continue
            if self._open and self._open.timestamp != packet.timestamp:
                pictures += self._end()
            self._append(packet)
            if packet.marker:
                pictures += self._end()
        return pictures

    def _take(self, at: int) -> Packet:
        packet, _ = self._waiting.pop(at)
        self._waiting_bytes -= len(packet.data)
        return packet

    def _append(self, packet: Packet) -> None:
        if packet.timestamp == self._broken_timestamp:
            return
        if self._open is None:
            self._open = _Open(packet.timestamp, packet.payload_type, [])
        self._open.parts.append(packet.data)
        self._open.size_bytes += len(packet.data)
        if self._open.size_bytes > self._max_bytes:
            self._open = None
            self._break(packet.timestamp)

    def _break(self, timestamp: int) -> None:
        """Count the picture of `timestamp`, of which something is missing, as lost."""
        self._broken += timestamp != self._broken_timestamp
        self._broken_timestamp = timestamp

    def _end(self) -> list[CodedPicture]:
        done, self._open = self._open, None
        if done is None:
            return []
        lost = self._lost_before(done.timestamp)
        self._broken = self._skipped = 0
        self._ended = done.timestamp
        return [CodedPicture(b"".join(done.parts), done.timestamp, done.payload_type, lost)]

    def _lost_before(self, timestamp: int) -> int:
        spacing = (timestamp - self._ended) % 2**32 if self._ended is not None else 0
        if not self._skipped and not self._broken:
            if 0 < spacing < 2**31:
                self._spacings.append(spacing)
            return 0
        usual = statistics.median(self._spacings) if self._spacings else spacing
        by_time = round(spacing / usual) - 1 if usual else 0
        # each lost picture lost at least one packet
        return max(1, self._broken, min(by_time, self._broken + self._skipped))

    def _blocked_since_s(self) -> float | None:
        """Since when a packet waits for one before it; None while none does."""
        return next((since_s for _, since_s in self._waiting.values()), None)

    def _must_give_up(self) -> bool:
        since_s = self._blocked_since_s()
        if since_s is None:
            return False
        too_much = len(self._waiting) > _MAX_PACKETS or self._waiting_bytes > self._max_bytes
        return too_much or self._clock_s() - since_s > self._wait_s

    def _give_up(self) -> None:
        """Go on behind the gap, at the next packet that a picture surely begins with."""
        assert self._cursor is not None
        if self._open:
            self._break(self._open.timestamp)
            self._open = None
        before: Packet | None = None
        for at in sorted(self._waiting):
            absent = at - self._cursor
            self._skipped += absent
            self._loss.lost += absent
            self._cursor = at
            packet = self._waiting[at][0]
            whole_before = absent == 0 and before is not None and _ends(before, packet)
            if packet.data and (packet.begins or whole_before):
                self._mend(packet.timestamp)
                return
            before = self._take(at)
            self._cursor = at + 1
            if packet.data:
                self._break(packet.timestamp)

    def _mend(self, timestamp: int) -> None:
        """What was missing before the picture of `timestamp` did not belong to it."""
        if timestamp == self._broken_timestamp:
            self._broken -= 1
            self._broken_timestamp = None


def _ends(packet: Packet, following: Packet) -> bool:
    return packet.marker or packet.timestamp != following.timestamp
