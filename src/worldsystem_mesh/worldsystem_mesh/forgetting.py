# SPDX-License-Identifier: Apache-2.0
"""Blocks near which there is no surface, and none was measured for long, lose their voxels.

Noise of far views reaches blocks that never get a surface: of a flight that goes round and round,
nine blocks of ten, and some more with every lap. What they hold is air.
"""

from __future__ import annotations

from itertools import product

import numpy as np
from jaxtyping import Bool, Int32

from worldsystem_mesh.refusion import Refusion
from worldsystem_mesh.surface_store import SurfaceStore
from worldsystem_mesh.volume import BlockVolume

EVERY = 4
"""Views after which it is time to look: each look costs as much as a few small copies to and from a
GPU, however little it finds."""

LOOKED_AT = 4096
"""Blocks whose age is looked at then."""

FORGOTTEN_AT_ONCE = 256
"""Blocks whose neighbours are looked at, at most: 27 places each."""

NEIGHBOURS = np.array(list(product((-1, 0, 1), repeat=3)), np.int32)
NEVER = 0


class Forgetting:
    """Goes through the blocks of `volume`, some with every fourth view; `surface` says which have
    one.

    A block goes that was in no view's band for `after` views and near which there is no surface;
    what is still to be drawn counts as one, as it may be drawn only after the last view. Whoever
    measures one there gets an empty block of the same number. What is forgotten depends on the
    views, and on what `refusion` has still to make: blocks that are to get a surface stay.
    """

    def __init__(
        self, volume: BlockVolume, surface: SurfaceStore, after: int, refusion: Refusion
    ) -> None:
        self._volume = volume
        self._surface = surface
        self._after = after
        self._refusion = refusion
        refusion.on_placed = self.note
        self._in_band = np.zeros(0, np.int32)
        self._next = 0
        self.forgotten = 0

    def step(self, band: Int32[np.ndarray, "b"], order: int) -> None:
        """View number `order` was fused, with the blocks `band` in its band."""
        if not self._after:
            return
        self._reach(self._volume.block_count)
        self._in_band[band] = order
        old = self._old(order) if order % EVERY == 0 else band[:0]
        if len(old):
            gone = old[self._far_from_surface(old)]
            self.forgotten += self._volume.release(gone)
            self._refusion.let_go(gone)

    def note(self, band: Int32[np.ndarray, "b"], order: int) -> None:
        """View number `order` has `band` in its band and is fused later."""
        self._reach(self._volume.block_count)
        self._in_band[band] = np.maximum(self._in_band[band], order)

    def _old(self, order: int) -> Int32[np.ndarray, "n"]:
        """The next blocks in turn that have voxels, neither a surface nor one to be drawn, and were
        not measured for long, nor are about to be."""
        count = self._volume.block_count
        if self._next >= count:
            self._next = 0
        chosen = np.arange(self._next, min(self._next + LOOKED_AT, count), dtype=np.int32)
        chosen = chosen[self._in_band[chosen] < order - self._after]
        chosen = chosen[self._volume.pool.holds(chosen)]
        chosen = chosen[~self._shows(chosen)]
        chosen = chosen[~self._refusion.is_due(chosen)]
        some: Int32[np.ndarray, "n"] = chosen[:FORGOTTEN_AT_ONCE]
        self._next = int(some[-1]) + 1 if len(chosen) > len(some) else self._next + LOOKED_AT
        return some

    def _far_from_surface(self, blocks: Int32[np.ndarray, "n"]) -> Bool[np.ndarray, "n"]:
        """Whether none of a block's neighbours has one: their cells read its samples."""
        places = (self._volume.coords(blocks)[:, None] + NEIGHBOURS).reshape(-1, 3)
        numbers = self._volume.numbers(places)
        shown = np.zeros(len(numbers), bool)
        there = numbers >= 0
        shown[there] = self._shows(numbers[there])
        return np.asarray(~shown.reshape(len(blocks), -1).any(axis=1))

    def _shows(self, blocks: Int32[np.ndarray, "n"]) -> Bool[np.ndarray, "n"]:
        """Whether each block has a surface, or may have one once it is drawn."""
        return np.asarray(self._surface.has_surface(blocks) | self._volume.is_dirty(blocks))

    def _reach(self, count: int) -> None:
        more = count - len(self._in_band)
        if more > 0:
            room = np.full(max(more, len(self._in_band)), NEVER, np.int32)
            self._in_band = np.concatenate([self._in_band, room])
