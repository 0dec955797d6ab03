# SPDX-License-Identifier: Apache-2.0
"""The world of splats as a stream of chunks under a byte budget."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from worldsystem_core.geometry.sim3 import Sim3
from worldsystem_core.reconstruction import ScaleState
from worldsystem_core.splats.chunk import Chunk
from worldsystem_core.splats.delta import SplatDelta, SplatOperation
from worldsystem_core.splats.packed import BYTES, pack
from worldsystem_core.splats.world import SplatWorld

POSE_BYTES = 110
_BURST_S = 2.0
_LOST_SHARE = 0.1
_NO_WORDS = np.zeros((0, 4), np.uint32)


@dataclass
class _Sent:
    """How a client knows a chunk: how many splats, and when it was told."""

    count: int
    at_s: float


class SplatStream:
    """Turns what changed in a world into deltas: removals and poses at once, splats as the budget
    allows, new chunks first, the newest before the others.

    A chunk that lost a few splats to a finer one waits: it is sent again when a tenth is gone or
    `renew_s` have passed. Single splats are never sent. A chunk that went into another stays until
    that is sent. Whoever missed a delta has all told again.
    """

    def __init__(self, world: SplatWorld, *, mbps: float, renew_s: float) -> None:
        self.world = world
        self.sent_bytes = 0
        self._bytes_per_s = 1e6 * mbps / 8
        self._renew_s = renew_s
        self._credit = self._bytes_per_s * _BURST_S
        self._filled_s: float | None = None
        self._sequence = 0
        self._known: dict[int, _Sent] = {}

    @property
    def waiting(self) -> int:
        """Chunks that clients know nothing of, or not the newest."""
        return len(self.world.changed)

    def tell_again(self) -> None:
        """A client lacks something: what follows is everything, numbered from 1."""
        self._sequence = 0
        self._known.clear()
        self.world.changed.clear()
        self.world.changed.update(dict.fromkeys(self.world.chunks))

    def take(
        self, now_s: float, stamp_ns: int, scale: ScaleState, *, everything: bool = False
    ) -> list[SplatDelta]:
        """What is to be sent now; `everything` that waits, whatever the budget, at the end."""
        self._fill(now_s)
        make = _Maker(stamp_ns, scale, len(self.world), self._next_number)
        found = [make.remove(chunk) for chunk in self._take_removed()]
        found += [make.pose(chunk) for chunk in self._take_moved()]
        self._spend(POSE_BYTES * len(found))
        for chunk in self._due(now_s, everything):
            if not everything and self._bytes_per_s and self._credit <= 0:
                break
            del self.world.changed[chunk.id]
            self._known[chunk.id] = _Sent(len(chunk), now_s)
            found.append(make.put(chunk))
            self._spend(BYTES * len(chunk))
        gone = self._take_removed()  # what went into a chunk that was sent just now
        self._spend(POSE_BYTES * len(gone))
        return found + [make.remove(chunk) for chunk in gone]

    def _fill(self, now_s: float) -> None:
        passed = now_s - self._filled_s if self._filled_s is not None else 0.0
        self._filled_s = now_s
        most = self._bytes_per_s * _BURST_S
        self._credit = min(most, self._credit + passed * self._bytes_per_s)

    def _spend(self, count: int) -> None:
        self._credit -= count
        self.sent_bytes += count

    def _next_number(self) -> int:
        self._sequence += 1
        return self._sequence

    def _take_removed(self) -> list[int]:
        removed, changed = self.world.removed, self.world.changed
        gone = [chunk for chunk, shown_by in removed.items() if shown_by not in changed]
        for chunk in gone:
            del removed[chunk]
        return [chunk for chunk in gone if self._known.pop(chunk, None)]

    def _take_moved(self) -> list[Chunk]:
        moved = [self.world.chunks[c] for c in self.world.moved if c in self._known]
        self.world.moved.clear()
        return moved

    def _due(self, now_s: float, everything: bool) -> list[Chunk]:
        """Chunks to be sent, in order: new ones from the newest, then those that lost most."""
        chunks = [self.world.chunks[number] for number in reversed(self.world.changed)]
        new = [chunk for chunk in chunks if chunk.id not in self._known]
        old = []
        for chunk in chunks:
            sent = self._known.get(chunk.id)
            if sent is None:
                continue
            differs = abs(1 - len(chunk) / max(sent.count, 1))
            if everything or differs > _LOST_SHARE or now_s - sent.at_s > self._renew_s:
                old.append((differs, chunk))
        return new + [chunk for _, chunk in sorted(old, key=lambda pair: -pair[0])]


@dataclass(frozen=True)
class _Maker:
    """Makes the deltas of one moment."""

    stamp_ns: int
    scale: ScaleState
    total: int
    number: Callable[[], int]

    def put(self, chunk: Chunk) -> SplatDelta:
        words = pack(chunk.gaussians)
        return self._delta(chunk.id, SplatOperation.PUT, chunk.world_from_chunk, words)

    def pose(self, chunk: Chunk) -> SplatDelta:
        return self._delta(chunk.id, SplatOperation.POSE, chunk.world_from_chunk, _NO_WORDS)

    def remove(self, chunk: int) -> SplatDelta:
        return self._delta(chunk, SplatOperation.REMOVE, Sim3.identity(), _NO_WORDS)

    def _delta(
        self, chunk: int, operation: SplatOperation, place: Sim3, words: np.ndarray
    ) -> SplatDelta:
        return SplatDelta(
            stamp_ns=self.stamp_ns,
            sequence=self.number(),
            chunk=chunk,
            operation=operation,
            world_from_chunk=place,
            words=words,
            total=self.total,
            scale=self.scale,
        )
