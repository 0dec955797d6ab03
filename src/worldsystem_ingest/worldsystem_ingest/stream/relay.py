# SPDX-License-Identifier: Apache-2.0
"""Fan-out of encoded video: one bounded queue per consumer, and only whole GOPs are lost."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from worldsystem_core.frames import EncodedFrame


@dataclass(frozen=True)
class RelayLimits:
    """The most that may wait for one consumer."""

    frames: int
    size_bytes: int


class Consumer:
    """One consumer's queue; begins at a key frame and never holds a GOP with a hole in it.

    When full, GOPs of which nothing was sent yet go first, oldest first. Only a GOP that is longer
    than the whole queue loses its end. With `keys_only` every other picture is left out, and is not
    lost. `on_queued` is called after each picture that was queued. For one thread, like the relay.
    """

    def __init__(self, number: int, limits: RelayLimits, *, keys_only: bool = False) -> None:
        self.number = number
        self.on_queued: Callable[[], None] = _nothing
        self._limits = limits
        self._keys_only = keys_only
        self._queue: deque[EncodedFrame] = deque()
        self._queued_bytes = 0
        self._awaiting_key = True
        self._began = False
        self.lost_frames = 0
        self.lost_gops = 0

    def __len__(self) -> int:
        return len(self._queue)

    def offer(self, unit: EncodedFrame) -> None:
        """Queue one access unit, or let it go with the rest of its GOP."""
        if self._keys_only and not unit.is_key:
            return
        if self._awaiting_key and not unit.is_key:
            self.lost_frames += self._began
            return
        self._awaiting_key = False
        self._began = True
        if self._full_with(unit):
            self._drop_unsent_gops(keep_newest=not unit.is_key)
        if self._full_with(unit):
            self._drop_current_gop(unit)
            return
        self._queue.append(unit)
        self._queued_bytes += len(unit.data)
        self.on_queued()

    def take(self) -> EncodedFrame | None:
        """The next access unit to send, or None."""
        if not self._queue:
            return None
        unit = self._queue.popleft()
        self._queued_bytes -= len(unit.data)
        return unit

    def _full_with(self, unit: EncodedFrame) -> bool:
        return (
            len(self._queue) >= self._limits.frames
            or self._queued_bytes + len(unit.data) > self._limits.size_bytes
        )

    def _drop_unsent_gops(self, *, keep_newest: bool) -> None:
        keys = [at for at, unit in enumerate(self._queue) if unit.is_key]
        end = keys[-1] if keys and keep_newest else len(self._queue)
        if keys and keys[0] < end:
            self._remove(keys[0], end)

    def _drop_current_gop(self, unit: EncodedFrame) -> None:
        """Nothing else is left to drop: the GOP of `unit` goes, as far as it was not sent."""
        keys = [at for at, queued in enumerate(self._queue) if queued.is_key]
        if keys and not unit.is_key:
            self._remove(keys[-1], len(self._queue))
        else:
            self.lost_gops += 1
        self.lost_frames += 1
        self._awaiting_key = True

    def _remove(self, begin: int, end: int) -> None:
        units = list(self._queue)
        self.lost_frames += end - begin
        self.lost_gops += sum(unit.is_key for unit in units[begin:end])
        self._queue = deque(units[:begin] + units[end:])
        self._queued_bytes = sum(len(unit.data) for unit in self._queue)


class Relay:
    """Hands every access unit to every consumer; a late joiner first gets the GOP under way.

    Relays that share `numbers` give each consumer a number of its own.
    """

    def __init__(self, limits: RelayLimits, numbers: Iterator[int] | None = None) -> None:
        self._limits = limits
        self._numbers = itertools.count() if numbers is None else numbers
        self._consumers: dict[int, Consumer] = {}
        self._gop: list[EncodedFrame] = []
        self._gop_bytes = 0
        self.sent_frames = 0
        self.sent_bytes = 0
        self._left_lost_frames = 0
        self._left_lost_gops = 0

    @property
    def consumers(self) -> list[Consumer]:
        """The consumers that are connected now."""
        return list(self._consumers.values())

    @property
    def lost_frames(self) -> int:
        """Pictures that consumers did not get, over all consumers ever."""
        return self._left_lost_frames + sum(c.lost_frames for c in self.consumers)

    @property
    def lost_gops(self) -> int:
        """GOPs that consumers did not get, or not to their end, over all consumers ever."""
        return self._left_lost_gops + sum(c.lost_gops for c in self.consumers)

    def join(self, *, keys_only: bool = False) -> Consumer:
        """Add a consumer; with `keys_only` it gets key frames and nothing else."""
        consumer = Consumer(next(self._numbers), self._limits, keys_only=keys_only)
        for unit in self._gop:
            consumer.offer(unit)
        self._consumers[consumer.number] = consumer
        return consumer

    def leave(self, consumer: Consumer) -> None:
        """Remove a consumer; what it lost stays counted."""
        if self._consumers.pop(consumer.number, None) is not None:
            self._left_lost_frames += consumer.lost_frames
            self._left_lost_gops += consumer.lost_gops

    def publish(self, unit: EncodedFrame) -> None:
        """Hand one access unit to every consumer; never waits."""
        self._remember(unit)
        for consumer in self.consumers:
            consumer.offer(unit)

    def sent(self, unit: EncodedFrame) -> None:
        """Count one access unit that reached a consumer."""
        self.sent_frames += 1
        self.sent_bytes += len(unit.data)

    def _remember(self, unit: EncodedFrame) -> None:
        if unit.is_key:
            self._gop, self._gop_bytes = [unit], len(unit.data)
            return
        self._gop_bytes += len(unit.data)
        fits = len(self._gop) < self._limits.frames // 2
        if self._gop and fits and self._gop_bytes <= self._limits.size_bytes // 2:
            self._gop.append(unit)
        else:
            self._gop.clear()


def _nothing() -> None:
    """Nobody waits for the queue yet."""
