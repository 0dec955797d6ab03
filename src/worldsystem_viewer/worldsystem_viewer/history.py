# SPDX-License-Identifier: Apache-2.0
"""What was to be seen before, for pages that look back: the world at any capture time.

Changes of the surface are only put aside, at no cost for the pipeline; who looks back adds them up.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from worldsystem_core.reconstruction import ScaleState
from worldsystem_core.surface import BlockIndex, MeshBlock, MeshDelta
from worldsystem_core.thinning import rows_that_stay
from worldsystem_viewer.protocol import Message

_BACK_NS = 10**9  # stamps of one kind that go back by more: a recording begins again
_MOST_OF_A_KIND = 2_000
_BYTES_PER_VERTEX = 40  # with its share of faces
_BYTES_PER_PLACE = 250  # of a block beside its vertices, or of a place that is empty
_BYTES_PER_STATE = 500  # beside its arrays and texts
_BYTES_PER_TEXT = 60
_PERIOD_NS = {"image": 500_000_000, "pose": 50_000_000}
_OF_ANY_TIME = ("objects", "tracks")
"""A stage that begins anew tells these as of long ago, which is no time to look back to."""


@dataclass(frozen=True)
class _Change:
    """What one delta changed."""

    stamp_ns: int
    blocks: tuple[MeshBlock, ...]
    removed: tuple[BlockIndex, ...]
    size: int
    block_size: float

    def apply_to(self, surface: dict[BlockIndex, MeshBlock | None]) -> None:
        for index in self.removed:
            surface[index] = None
        for block in self.blocks:
            surface[block.index] = block


class History:
    """States by capture time, within `most_bytes`; from any thread.

    It begins anew when the world gets another unit. When it is full the earliest time goes: what
    replaced it becomes the beginning. The surface of
    the beginning may take `most_surface_bytes` beside that; above it what changed longest ago goes.
    """

    def __init__(self, most_bytes: int, most_surface_bytes: int = 2**30) -> None:
        self._most_bytes = most_bytes
        self._most_surface_bytes = most_surface_bytes
        self._lock = threading.Lock()
        self._scale = ScaleState.SCENE
        self._clear()

    def _clear(self) -> None:
        self._base: OrderedDict[BlockIndex, MeshBlock | None] = OrderedDict()
        self._base_bytes = 0
        self._base_block_size = 0.0
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

    @property
    def surface_bytes(self) -> int:
        """What the surface of the beginning takes, most of which is current, too."""
        return self._base_bytes

    def surface(self, delta: MeshDelta) -> None:
        """What changed on the surface."""
        with self._lock:
            if delta.scale is not self._scale:  # blocks of before lie in another unit and frame
                self._clear()
                self._scale = delta.scale
            blocks, removed = tuple(delta.blocks), tuple(delta.removed)
            size = _BYTES_PER_VERTEX * sum(block.vertex_count for block in blocks)
            size += _BYTES_PER_PLACE * (len(blocks) + len(removed))
            stamp_ns = self._advance("surface", delta.capture_ns)
            if self._changes:
                stamp_ns = max(stamp_ns, self._changes[-1].stamp_ns)
            self._changes.append(_Change(stamp_ns, blocks, removed, size, delta.block_size))
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
        return self.surface_at(stamp_ns)[0]

    def surface_at(self, stamp_ns: int) -> tuple[dict[BlockIndex, MeshBlock | None], float]:
        """The same with the edge of a block then [world units]; 0 where there was none yet."""
        with self._lock:
            found, changes = dict(self._base), list(self._changes)
            block_size = self._base_block_size
        for change in changes:
            if change.stamp_ns <= stamp_ns:
                change.apply_to(found)
                block_size = change.block_size
            else:
                for block in change.blocks:
                    found.setdefault(block.index, None)
        return found, block_size

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
        if self._begins_again(name, stamp_ns):
            self._clear()
        self._newest_ns[name] = stamp_ns = max(stamp_ns, self._newest_ns.get(name, stamp_ns))
        if name not in _OF_ANY_TIME:
            self._first_ns = stamp_ns if self._first_ns < 0 else self._first_ns
            self._last_ns = max(self._last_ns, stamp_ns)
        return stamp_ns

    def _begins_again(self, name: str, stamp_ns: int) -> bool:
        """Whether a recording does. While poses go on it is only a stage, which tells of before."""
        newest_ns = self._newest_ns.get(name, stamp_ns)
        pose_ns = stamp_ns if name == "pose" else self._newest_ns.get("pose", stamp_ns)
        return max(stamp_ns, pose_ns) < newest_ns - _BACK_NS

    def _fit(self) -> None:
        while self._bytes > self._most_bytes and (next_ns := self._second_time()) is not None:
            while self._changes and self._changes[0].stamp_ns <= next_ns:
                oldest = self._changes.popleft()
                self._bytes -= oldest.size
                self._fold(oldest)
            self._begin_at(next_ns)

    def _second_time(self) -> int | None:
        """When something first took another's place; None while nothing did."""
        times = [stamps[1] for stamps, _ in self._states.values() if len(stamps) > 1]
        if self._changes:
            times.append(self._changes[0].stamp_ns)
        return min(times, default=None)

    def _fold(self, change: _Change) -> None:
        """Make a change a part of the beginning, at the end of which is what changed last."""
        self._base_block_size = change.block_size
        changed: dict[BlockIndex, MeshBlock | None] = {}
        change.apply_to(changed)
        for index, block in changed.items():
            if index in self._base:
                self._base_bytes -= _size_of_place(self._base.pop(index))
            self._base[index] = block
            self._base_bytes += _size_of_place(block)
        while self._base_bytes > self._most_surface_bytes:
            self._base_bytes -= _size_of_place(self._base.popitem(last=False)[1])

    def _begin_at(self, stamp_ns: int) -> None:
        self._first_ns = max(self._first_ns, min(stamp_ns, self._last_ns))
        for stamps, messages in self._states.values():
            while len(stamps) > 1 and stamps[1] <= stamp_ns:
                stamps.popleft()
                self._bytes -= _size(messages.popleft())

    def _thin_out(self, stamps: deque[int], messages: deque[Message]) -> None:
        held = list(zip(stamps, messages, strict=True))
        stay = rows_that_stay(np.array(stamps, np.int64)).tolist()
        self._bytes -= sum(_size(message) for message in messages)
        stamps.clear()
        messages.clear()
        for stamp_ns, message in (held[row] for row in stay):
            stamps.append(stamp_ns)
            messages.append(message)
            self._bytes += _size(message)


def _size_of_place(block: MeshBlock | None) -> int:
    return _BYTES_PER_PLACE + (0 if block is None else _BYTES_PER_VERTEX * block.vertex_count)


def _size(message: Message) -> int:
    size = _BYTES_PER_STATE
    for value in vars(message).values():
        if isinstance(value, np.ndarray):
            size += value.nbytes
        elif isinstance(value, list):
            size += _BYTES_PER_TEXT * len(value)
    return size


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
