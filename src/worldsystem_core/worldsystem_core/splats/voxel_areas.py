# SPDX-License-Identifier: Apache-2.0
"""A hash of voxels with the area that splats cover of each."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32, Int64

from worldsystem_core.splats.voxel_kernels import (
    EMPTY,
    count,
    covered_places,
    finer_at,
    move_over,
)

_LEAST_PLACES = 1 << 12
_FULL, _ROOMY = 0.75, 0.5
"""Shares of the places: from the first on the hash is made anew, with at most the second taken."""


class VoxelAreas:
    """Areas by voxel key: of splats of the key's own level, and of all finer ones.

    Voxels with no more than `least` in all may be forgotten. Adding and looking take time for what
    is added and looked for, not for what is held, and leave the interpreter to other threads. Not
    for several threads at once.
    """

    def __init__(self, least: float) -> None:
        self._least = least
        self._room: int = 0
        self._make(_LEAST_PLACES, 0)

    def __len__(self) -> int:
        """Voxels held, some of which may be empty by now."""
        return int(_FULL * len(self.keys)) - self._room

    @property
    def bytes(self) -> int:
        return self.keys.nbytes + self.own.nbytes + self.finer.nbytes

    def add(
        self,
        keys: Int64[np.ndarray, "n"],
        levels: Int64[np.ndarray, "n"],
        area: Float32[np.ndarray, "n"],
    ) -> None:
        """Count splats of `area` for their voxels and those around; a negative area takes away."""
        done = 0
        while True:
            table = (self.keys, self.own, self.finer)
            done, self._room = count(keys, levels, area, done, self._room, *table)
            if done == len(keys):
                return
            self._make_anew()

    def finer_at(self, keys: Int64[np.ndarray, "n"]) -> Float32[np.ndarray, "n"]:
        """The area of finer splats in each voxel; 0 in those not held."""
        found = np.empty(len(keys), np.float32)
        finer_at(keys, self.keys, self.finer, found)
        return found

    def _make(self, places: int, taken: int) -> None:
        self.keys = np.full(places, EMPTY, np.int64)
        self.own, self.finer = np.zeros(places, np.float32), np.zeros(places, np.float32)
        self._room = int(_FULL * places) - taken

    def _make_anew(self) -> None:
        """Forget what is empty, and have as many places as the rest needs."""
        old = (self.keys, self.own, self.finer)
        taken, places = covered_places(*old, self._least), _LEAST_PLACES
        while taken > _ROOMY * places:
            places *= 2
        self._make(places, taken)
        move_over(*old, self._least, self.keys, self.own, self.finer)
