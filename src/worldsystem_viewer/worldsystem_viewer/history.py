# SPDX-License-Identifier: Apache-2.0
"""What was to be seen before, for pages that look back: the world at any capture time.

Changes of the surface are only put aside, at no cost for the pipeline; who looks back adds them up.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from worldsystem_core.surface import BlockIndex, MeshBlock, MeshDelta
from worldsystem_viewer.protocol import ImageUpdate, Message

_BACK_NS = 10**9  # stamps of one kind that go back by more: a recording begins again
_MOST_OF_A_KIND = 2_000
_BYTES_PER_VERTEX = 40  # with its share of faces
_PERIOD_NS = {"image": 500_000_000, "pose": 50_000_000}


@dataclass(frozen=True)
class _Change:
    """What one delta changed."""

    stamp_ns: int
    blocks: tuple[MeshBlock, ...]
    removed: tuple[BlockIndex, ...]
    size: int

    def apply_to(self, surface: dict[BlockIndex, MeshBlock | None]) -> None:
        for index in self.removed:
            surface[index] = None
        for block in self.blocks:
            surface[block.index] = block


class History:
    """States by capture time, within `most_bytes`; from any thread.

    When it is full the earliest time goes: what replaced it becomes the beginning.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._lock = threading.Lock()
        self._clear()

    def _clear(self) -> None:
        self._base: dict[BlockIndex, MeshBlock | None] = {}
        self._changes: deque[_Change] = deque()
        self._states: dict[str, tuple[deque[int], deque[Message]]] = {}
        self._bytes = 0
        self._newest_ns: dict[str, int] = {}
        self._first_ns = -1
        self._last_ns = -1

    @property
    def span_ns(self) -> tuple[int, int]:
        """From when to when one can look back; equal while there is nothing."""
        with self._lock:
            return self._first_ns, self._last_ns

    @property
    def bytes(self) -> int:
        """What is held of the past, part of which is current, too."""
        return self._bytes

    def surface(self, delta: MeshDelta) -> None:
        """What changed on the surface."""
        with self._lock:
            blocks, removed = tuple(delta.blocks), tuple(delta.removed)
            size = _BYTES_PER_VERTEX * sum(block.vertex_count for block in blocks)
            stamp_ns = self._advance("surface", delta.capture_ns)
            if self._changes:
                stamp_ns = max(stamp_ns, self._changes[-1].stamp_ns)
            self._changes.append(_Change(stamp_ns, blocks, removed, size))
            self._bytes += size
            self._fit()

    def state(self, name: str, stamp_ns: int, message: Message) -> None:
        """One more state called `name`; those that follow too soon are left out."""
        with self._lock:
            stamp_ns = self._advance(name, stamp_ns)
            stamps, messages = self._states.setdefault(name, (deque(), deque()))
            if stamps and stamp_ns - stamps[-1] < _PERIOD_NS.get(name, 0):
                return
            stamps.append(stamp_ns)
            messages.append(message)
            self._bytes += _size(message)
            if len(stamps) > _MOST_OF_A_KIND:
                self._thin_out(stamps, messages)
            self._fit()

    def blocks_at(self, stamp_ns: int) -> dict[BlockIndex, MeshBlock | None]:
        """Every place that ever had a block, with the block that it had then."""
        with self._lock:
            found, changes = dict(self._base), list(self._changes)
        for change in changes:
            if change.stamp_ns <= stamp_ns:
                change.apply_to(found)
            else:
                for block in change.blocks:
                    found.setdefault(block.index, None)
        return found

    def states_at(self, stamp_ns: int) -> dict[str, Message]:
        """The newest state of each name that was there then."""
        found = {}
        with self._lock:
            for name, (stamps, messages) in self._states.items():
                if (at := bisect_right(stamps, stamp_ns)) > 0:
                    found[name] = messages[at - 1]
        return found

    def _advance(self, name: str, stamp_ns: int) -> int:
        """Stamps of one kind ascend; a surface may be seconds behind the pictures."""
        newest_ns = self._newest_ns.get(name, stamp_ns)
        if stamp_ns < newest_ns - _BACK_NS:
            self._clear()
            newest_ns = stamp_ns
        self._newest_ns[name] = stamp_ns = max(stamp_ns, newest_ns)
        self._first_ns = stamp_ns if self._first_ns < 0 else self._first_ns
        self._last_ns = max(self._last_ns, stamp_ns)
        return stamp_ns

    def _fit(self) -> None:
        while self._bytes > self._most_bytes and self._changes:
            oldest = self._changes.popleft()
            oldest.apply_to(self._base)
            self._bytes -= oldest.size
            self._begin_at(oldest.stamp_ns)

    def _begin_at(self, stamp_ns: int) -> None:
        self._first_ns = max(self._first_ns, stamp_ns)
        for stamps, messages in self._states.values():
            while len(stamps) > 1 and stamps[1] <= stamp_ns:
                stamps.popleft()
                self._bytes -= _size(messages.popleft())

    def _thin_out(self, stamps: deque[int], messages: deque[Message]) -> None:
        kept = list(zip(stamps, messages, strict=True))
        self._bytes -= sum(_size(message) for _, message in kept[1::2])
        stamps.clear()
        messages.clear()
        for stamp_ns, message in kept[::2]:
            stamps.append(stamp_ns)
            messages.append(message)


def _size(message: Message) -> int:
    return int(message.jpeg.nbytes) if isinstance(message, ImageUpdate) else 500


def differences(
    held: dict[BlockIndex, MeshBlock | None], wanted: Iterable[tuple[BlockIndex, MeshBlock | None]]
) -> tuple[list[MeshBlock], list[BlockIndex]]:
    """Blocks that a client lacks that holds `held`, and places that are to be empty."""
    blocks, removed = [], []
    for index, block in wanted:
        if index in held and held[index] is block:
            continue
        if block is None:
            removed.append(index)
        else:
            blocks.append(block)
    return blocks, removed
