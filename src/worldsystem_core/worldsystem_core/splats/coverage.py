# SPDX-License-Identifier: Apache-2.0
"""How much of each voxel's face is covered by surface, at every level of detail; hashed voxels.

A voxel of level l is `voxel` × 2^l wide. A splat belongs to the level whose voxels are a little
wider than itself, and counts for that voxel and for those around it at all coarser levels. So one
look-up tells whether a new splat shows anything that is not there as finely already.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from worldsystem_core.geometry.sim3 import Sim3
from worldsystem_core.splats.discs import WIDTH
from worldsystem_core.splats.gaussians import Gaussians
from worldsystem_core.splats.kernels import BITS as _BITS
from worldsystem_core.splats.kernels import HALF as _HALF
from worldsystem_core.splats.kernels import show_nothing_new

LEVELS = 12
_WIDTHS = 2.0 ** np.arange(LEVELS)
_WIDER = 1.3
_REPLACED = 0.9


class Coverage:
    """Area of splats by voxel key: of the key's own level, and of all finer ones."""

    def __init__(self, voxel: float) -> None:
        self.voxel = voxel
        self._keys = np.zeros(0, np.int64)
        self._own = np.zeros(0, np.float32)
        self._finer = np.zeros(0, np.float32)

    def __len__(self) -> int:
        return len(self._keys)

    def levels(self, width: Float32[np.ndarray, "n"]) -> Int64[np.ndarray, "n"]:
        """The level of splats of a `width` [world units]."""
        level = np.ceil(np.log2(np.maximum(_WIDER * width / self.voxel, 1e-9)))
        return np.asarray(np.clip(level, 0, LEVELS - 1).astype(np.int64))

    def keys(
        self, points: Float64[np.ndarray, "n 3"], levels: Int64[np.ndarray, "n"]
    ) -> Int64[np.ndarray, "n"]:
        """The voxel of each point (world) at its level; voxels 262,144 from the origin coincide."""
        cells = np.floor(points / (self.voxel * _WIDTHS[levels])[:, None]).astype(np.int64)
        cells = np.clip(cells + _HALF, 0, 2 * _HALF - 1)
        packed = (levels << _BITS | cells[:, 0]) << _BITS | cells[:, 1]
        return np.asarray(packed << _BITS | cells[:, 2])

    def shows(
        self,
        means: Float32[np.ndarray, "n 3"],
        world_from_chunk: Sim3,
        levels: Int64[np.ndarray, "n"],
        shares: tuple[float, ...],
    ) -> Bool[np.ndarray, "n"]:
        """Whether a surface as fine as their level, or finer, is there at the points already,
        or where they are moved along their rays by one of `shares`."""
        covered = np.zeros(len(means), bool)
        show_nothing_new(
            np.ascontiguousarray(means),
            world_from_chunk.scale * world_from_chunk.rotation,
            world_from_chunk.translation,
            levels,
            self.voxel,
            shares,
            self._keys,
            self._own + self._finer,
            covered,
        )
        return covered

    def replaced(
        self, keys: Int64[np.ndarray, "n"], levels: Int64[np.ndarray, "n"]
    ) -> Bool[np.ndarray, "n"]:
        """Whether finer splats show the surface of the voxels, so that those of it can go."""
        _, finer = self._look(keys)
        return np.asarray(finer > _REPLACED * self._faces(levels))

    def add(
        self,
        keys: Int64[np.ndarray, "n"],
        levels: Int64[np.ndarray, "n"],
        area: Float32[np.ndarray, "n"],
    ) -> None:
        """Count splats of `area` for their voxels and those around; a negative area takes away."""
        if not len(keys):
            return
        found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        parents, part = keys[:0], area[:0]
        for level in range(int(levels.min()), LEVELS):
            here = levels == level
            joined = np.concatenate([keys[here], parents])
            unique, where = np.unique(joined, return_inverse=True)
            own = np.bincount(where[: here.sum()], area[here], len(unique))
            finer = np.bincount(where[here.sum() :], part, len(unique))
            found.append((unique, own, finer))
            parents, part = _parent(unique), own + finer
        self._merge(*(np.concatenate(parts) for parts in zip(*found, strict=True)))

    def _merge(
        self,
        keys: Int64[np.ndarray, "n"],
        own: Float64[np.ndarray, "n"],
        finer: Float64[np.ndarray, "n"],
    ) -> None:
        """Add to the entries of `keys`, which ascend and differ; new ones are made."""
        at = np.searchsorted(self._keys, keys)
        known = at < len(self._keys)
        known[known] = self._keys[at[known]] == keys[known]
        self._own[at[known]] += own[known].astype(np.float32)
        self._finer[at[known]] += finer[known].astype(np.float32)
        fresh = ~known
        if fresh.any():
            self._keys = np.insert(self._keys, at[fresh], keys[fresh])
            self._own = np.insert(self._own, at[fresh], own[fresh])
            self._finer = np.insert(self._finer, at[fresh], finer[fresh])

    def forget_empty(self) -> None:
        """Leave out voxels that nothing counts for any more."""
        kept = self._own + self._finer > 1e-3 * self.voxel**2
        self._keys, self._own, self._finer = self._keys[kept], self._own[kept], self._finer[kept]

    def _look(
        self, keys: Int64[np.ndarray, "n"]
    ) -> tuple[Float32[np.ndarray, "n"], Float32[np.ndarray, "n"]]:
        if not len(self._keys):
            none = np.zeros(len(keys), np.float32)
            return none, none
        at = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        known = self._keys[at] == keys
        return np.where(known, self._own[at], 0), np.where(known, self._finer[at], 0)

    def _faces(self, levels: Int64[np.ndarray, "n"]) -> Float64[np.ndarray, "n"]:
        return np.asarray((self.voxel * _WIDTHS[levels]) ** 2)


def areas(gaussians: Gaussians) -> Float32[np.ndarray, "n"]:
    """The surface that each disc stands for [square units]."""
    return np.asarray(gaussians.scales[:, 0] * gaussians.scales[:, 1] / np.float32(WIDTH**2))


def widths(gaussians: Gaussians) -> Float32[np.ndarray, "n"]:
    """The narrower way across the pixel that each disc stands for."""
    narrow = np.minimum(gaussians.scales[:, 0], gaussians.scales[:, 1])
    return np.asarray(narrow / np.float32(WIDTH))


def level_of(keys: Int64[np.ndarray, "n"]) -> Int64[np.ndarray, "n"]:
    """The level that a key is of."""
    return keys >> 3 * _BITS


def _parent(keys: Int64[np.ndarray, "n"]) -> Int64[np.ndarray, "n"]:
    """The voxel of the next coarser level around each."""
    mask = (1 << _BITS) - 1
    cells = [(keys >> shift * _BITS & mask) - _HALF >> 1 for shift in (2, 1, 0)]
    packed = level_of(keys) + 1
    for cell in cells:
        packed = packed << _BITS | cell + _HALF
    return np.asarray(packed)
