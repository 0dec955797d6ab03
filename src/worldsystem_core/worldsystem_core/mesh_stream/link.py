# SPDX-License-Identifier: Apache-2.0
"""One client's line: what it has been sent, how much it may be sent, and what goes next.

What is to go is chosen before it is encoded, by what such blocks took so far. Blocks the client has
never seen go first and coarse; what it has is refined as the line allows, longest unchanged first:
a block that still changes is not worth its bytes yet. When little is missing, it goes at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int

from worldsystem_core.mesh_code.code import encode
from worldsystem_core.mesh_stream.catalogue import SurfaceCatalogue
from worldsystem_core.surface import BlockIndex, MeshBlock

COARSE = 2
PARCELS_AT_ONCE = 2
"""How often to ask a link in one go: what is new goes first and coarse, the second refines."""
_UNSEEN = 255
_BURST_S = 0.3
_USED_SHARE = 0.97  # so that ten seconds with a burst are within the budget, too
_QUANTUM_S = 0.25
_AT_ONCE_S = 0.75
_REMOVED_BYTES = 12
_MAX_REMOVED = 4096
_RAW_BYTES_PER_VERTEX = 39.0
_HEAD_BYTES = 120


@dataclass(frozen=True, kw_only=True, eq=False)
class Parcel:
    """What goes in one message: blocks at `level` as `code`, or `raw` ones, and removed indices.

    After it the client has everything up to `complete_to`, and some of what came later.
    """

    level: int
    numbers: Int[np.ndarray, "b"]
    blocks: Sequence[MeshBlock]
    raw: bool
    removed: tuple[BlockIndex, ...]
    change: int
    complete_to: int
    voxel: float
    totals: tuple[int, int]

    def code(self) -> bytes:
        """The blocks in the block code; empty without blocks, or when they go raw."""
        return b"" if self.raw or not self.blocks else encode(self.blocks, self.voxel, self.level)


class MeshLink:
    """What one client has of a catalogue's surface; one thread at a time.

    `bits_per_s` is kept over ten seconds and more, and 0.3 s of it may come at once; 0: no limit.
    The client has everything up to the change `held_to`: 0: nothing; -1: it may have any block of
    any time, and is told of all places that are empty.
    """

    def __init__(
        self, bits_per_s: float, held_to: int = 0, *, bytes_per_vertex: float = 2.5
    ) -> None:
        self._rate = _USED_SHARE * bits_per_s / 8.0
        self._tokens = self._rate * _BURST_S
        self._last_s: float | None = None
        self._held_to = held_to
        self._held = np.zeros(0, np.int64)
        self._level = np.zeros(0, np.uint8)
        self._voxel = 0.0
        # for each vertex of level 0; learned as it goes
        self._bytes_each = {0: bytes_per_vertex, COARSE: bytes_per_vertex / 6.0}
        self.sent_bytes = 0
        self.sent_blocks = {0: 0, COARSE: 0}

    def next(
        self,
        catalogue: SurfaceCatalogue,
        now_s: float,
        viewpoint: Float32[np.ndarray, "3"] | None = None,
    ) -> Parcel | None:
        """What to send now, or None: nothing is missing, or the line has had its share.

        Tell `account` how many bytes it took.
        """
        self._follow(catalogue)
        self._refill(now_s)
        missing = catalogue.changed != self._held
        removed = np.flatnonzero(missing & (catalogue.vertices == 0))
        stale = np.flatnonzero((missing | (self._level > 0)) & (catalogue.vertices > 0))
        if not len(stale) and not len(removed):
            return None
        wanted = self._cost(catalogue, stale, 0)
        whole = wanted.sum() + _REMOVED_BYTES * len(removed)
        if self._rate and self._tokens < min(whole, self._rate * _QUANTUM_S):
            return None
        return self._parcel(catalogue, stale, removed[:_MAX_REMOVED], wanted, viewpoint)

    def account(self, parcel: Parcel, size: int) -> None:
        """`parcel` went out with `size` bytes."""
        self.sent_bytes += size
        if self._rate:
            self._tokens -= size
        vertices = sum(block.vertex_count for block in parcel.blocks)
        if vertices and not parcel.raw:
            self.sent_blocks[parcel.level] += len(parcel.blocks)
            other = _HEAD_BYTES + _REMOVED_BYTES * len(parcel.removed)
            each = max(size - other, 1) / vertices
            # slowly down, at once up: a budget is kept by expecting too much
            before = self._bytes_each[parcel.level]
            self._bytes_each[parcel.level] = max(each, 0.8 * before + 0.2 * each)

    def begin_anew(self, catalogue: SurfaceCatalogue) -> None:
        """Send every block again: there is somebody more on the line, who has none.

        Removals that were not told yet stay to be told to those who were there.
        """
        self._follow(catalogue)
        there = catalogue.vertices > 0
        self._held[there], self._level[there] = 0, _UNSEEN

    def missing(self, catalogue: SurfaceCatalogue) -> int:
        """Blocks that the client does not have at full level as they are."""
        self._follow(catalogue)
        there = catalogue.vertices > 0
        return int(((catalogue.changed != self._held) | (there & (self._level > 0))).sum())

    def coarse(self) -> int:
        """Blocks that the client has at a coarse level."""
        return int((self._level == COARSE).sum())

    def _follow(self, catalogue: SurfaceCatalogue) -> None:
        """Know the blocks that are new; what is older than `held_to` the client has."""
        new = slice(len(self._held), len(catalogue))
        changed, there = catalogue.changed[new], catalogue.vertices[new] > 0
        has = changed <= self._held_to
        self._held = np.concatenate([self._held, np.where(has | ~there, changed, 0)])
        if self._held_to and len(changed):  # it may hold what has been removed since
            self._held[new][~there & ~has] = 0
        self._level = np.concatenate([self._level, np.where(has, 0, _UNSEEN).astype(np.uint8)])
        if catalogue.voxel != self._voxel:  # in another unit all of it comes again, coarse first
            if self._voxel:
                self._level[catalogue.vertices > 0] = _UNSEEN
            self._voxel = catalogue.voxel

    def _refill(self, now_s: float) -> None:
        if self._last_s is not None:
            gained = self._rate * max(0.0, now_s - self._last_s)
            self._tokens = min(self._tokens + gained, self._rate * _BURST_S)
        self._last_s = now_s

    def _parcel(
        self,
        catalogue: SurfaceCatalogue,
        stale: Int[np.ndarray, "s"],
        removed: Int[np.ndarray, "r"],
        wanted: Float32[np.ndarray, "s"],
        viewpoint: Float32[np.ndarray, "3"] | None,
    ) -> Parcel:
        level, chosen, cost = self._turn(catalogue, stale, wanted)
        order = np.argsort(catalogue.changed[chosen], kind="stable")
        if viewpoint is not None and level == COARSE:
            order = np.argsort(catalogue.distances(chosen, viewpoint), kind="stable")
        budget = self._tokens if self._rate else np.inf
        fits = int(np.searchsorted(np.cumsum(cost[order]), budget - _REMOVED_BYTES * len(removed)))
        chosen = chosen[order][: max(fits, 1)]
        raw = bool(len(chosen)) and not catalogue.codable[chosen[0]]
        chosen = _along_a_curve(catalogue, chosen[catalogue.codable[chosen] != raw])
        gone = tuple((x, y, z) for x, y, z in catalogue.index[removed].tolist())
        self._held[removed], self._level[removed] = catalogue.changed[removed], _UNSEEN
        self._held[chosen] = catalogue.changed[chosen]
        self._level[chosen] = 0 if raw else level
        return Parcel(
            level=0 if raw else level,
            numbers=chosen,
            blocks=catalogue.blocks(chosen),
            raw=raw,
            removed=gone,
            change=catalogue.change,
            complete_to=self._complete_to(catalogue),
            voxel=catalogue.voxel,
            totals=catalogue.totals,
        )

    def _turn(
        self,
        catalogue: SurfaceCatalogue,
        stale: Int[np.ndarray, "s"],
        wanted: Float32[np.ndarray, "s"],
    ) -> tuple[int, Int[np.ndarray, "t"], Float32[np.ndarray, "t"]]:
        """Whose turn it is, at which level, and what each will take [bytes]."""
        unseen = (self._level[stale] == _UNSEEN) & catalogue.codable[stale]
        if not unseen.any() or not self._rate or wanted.sum() <= self._rate * _AT_ONCE_S:
            return 0, stale, wanted
        new = stale[unseen]
        return COARSE, new, self._cost(catalogue, new, COARSE)

    def _cost(
        self, catalogue: SurfaceCatalogue, numbers: Int[np.ndarray, "n"], level: int
    ) -> Float32[np.ndarray, "n"]:
        """What each block will probably take [bytes]."""
        vertices = catalogue.vertices[numbers]
        each = np.where(catalogue.codable[numbers], self._bytes_each[level], _RAW_BYTES_PER_VERTEX)
        return np.asarray(each * vertices, np.float32)

    def _complete_to(self, catalogue: SurfaceCatalogue) -> int:
        """The client has everything up to this change at full level."""
        there = catalogue.vertices > 0
        lacks = (catalogue.changed != self._held) | (there & (self._level > 0))
        return int(catalogue.changed[lacks].min()) - 1 if lacks.any() else catalogue.change


def _along_a_curve(
    catalogue: SurfaceCatalogue, numbers: Int[np.ndarray, "n"]
) -> Int[np.ndarray, "n"]:
    """Neighbours next to each other (Morton order): they share vertices, and look alike."""
    place = catalogue.index[numbers].astype(np.int64)
    if not len(place):
        return numbers
    place = place - place.min(axis=0)
    key = np.zeros(len(place), np.int64)
    for bit in range(20):
        for axis in range(3):
            key |= ((place[:, axis] >> bit) & 1) << (3 * bit + axis)
    return np.asarray(numbers[np.argsort(key, kind="stable")])
