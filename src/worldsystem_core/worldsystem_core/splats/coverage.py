# SPDX-License-Identifier: Apache-2.0
"""How much of each voxel's face is covered by surface, at every level of detail; hashed voxels.

A voxel of level l is `voxel` × 2^l wide. A splat belongs to the level whose voxels are a little
wider than itself, and counts for that voxel and for those around it at all coarser levels. So one
look-up tells whether a new splat shows anything that is not there as finely already.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from worldsystem_core.geometry.sim3 import Sim3
from worldsystem_core.splats.discs import WIDTH
from worldsystem_core.splats.gaussians import Gaussians
from worldsystem_core.splats.kernels import show_nothing_new
from worldsystem_core.splats.voxel_areas import VoxelAreas
from worldsystem_core.splats.voxel_kernels import LEVELS, keys_at

_WIDTHS = 2.0 ** np.arange(LEVELS)
_WIDER = 1.3
_REPLACED = 0.9
_NO_FACE = 1e-3


class Coverage:
    """Area of splats by voxel, of which the finest are `voxel` [world units] wide."""

    def __init__(self, voxel: float) -> None:
        self.voxel = voxel
        self.areas = VoxelAreas(_NO_FACE * voxel**2)

    @property
    def bytes(self) -> int:
        """Memory that the voxels take."""
        return self.areas.bytes

    def levels(self, width: Float32[np.ndarray, "n"]) -> Int64[np.ndarray, "n"]:
        """The level of splats of a `width` [world units]."""
        level = np.ceil(np.log2(np.maximum(_WIDER * width / self.voxel, 1e-9)))
        sound = np.nan_to_num(level, nan=0.0)  # compiled loops take levels for places in arrays
        return np.asarray(np.clip(sound, 0, LEVELS - 1).astype(np.int64))

    def keys(
        self,
        means: Float32[np.ndarray, "n 3"],
        world_from_chunk: Sim3,
        levels: Int64[np.ndarray, "n"],
    ) -> Int64[np.ndarray, "n"]:
        """The voxel of each point at its level; voxels 262,144 from the origin coincide."""
        keys = np.empty(len(means), np.int64)
        keys_at(*_placed(means, world_from_chunk), levels, self.voxel, keys)
        return keys

    def shows(
        self,
        means: Float32[np.ndarray, "n 3"],
        world_from_chunk: Sim3,
        levels: Int64[np.ndarray, "n"],
        shares: tuple[float, ...],
    ) -> Bool[np.ndarray, "n"]:
        """Whether a surface as fine as their level, or finer, is there at the points already,
        or where they are moved along their rays by one of `shares`."""
        covered, held = np.zeros(len(means), bool), self.areas
        table = (held.keys, held.own, held.finer)
        placed = _placed(means, world_from_chunk)
        show_nothing_new(*placed, levels, self.voxel, shares, *table, covered)
        return covered

    def replaced(
        self, keys: Int64[np.ndarray, "n"], levels: Int64[np.ndarray, "n"]
    ) -> Bool[np.ndarray, "n"]:
        """Whether finer splats show the surface of the voxels, so that those of it can go."""
        return np.asarray(self.areas.finer_at(keys) > _REPLACED * self._faces(levels))

    def add(
        self,
        keys: Int64[np.ndarray, "n"],
        levels: Int64[np.ndarray, "n"],
        area: Float32[np.ndarray, "n"],
    ) -> None:
        """Count splats of `area` for their voxels and those around; a negative area takes away."""
        self.areas.add(keys, levels, area)

    def _faces(self, levels: Int64[np.ndarray, "n"]) -> Float64[np.ndarray, "n"]:
        return np.asarray((self.voxel * _WIDTHS[levels]) ** 2)


def _placed(
    means: Float32[np.ndarray, "n 3"], world_from_chunk: Sim3
) -> tuple[Float32[np.ndarray, "n 3"], Float64[np.ndarray, "3 3"], Float64[np.ndarray, "3"]]:
    """Points, rotation (its scale included) and translation, as the kernels take them."""
    turn = np.ascontiguousarray(world_from_chunk.scale * world_from_chunk.rotation)
    return np.ascontiguousarray(means), turn, np.ascontiguousarray(world_from_chunk.translation)


def areas(gaussians: Gaussians) -> Float32[np.ndarray, "n"]:
    """The surface that each disc stands for [square units]."""
    narrow, wide = _ways_across(gaussians)
    return np.asarray(narrow * wide / np.float32(WIDTH**2))


def widths(gaussians: Gaussians) -> Float32[np.ndarray, "n"]:
    """The narrower way across the pixel that each disc stands for."""
    narrow, _ = _ways_across(gaussians)
    return np.asarray(narrow / np.float32(WIDTH))


def widened(gaussians: Gaussians) -> Gaussians:
    """The same discs with twice the area; none is thicker."""
    thin = gaussians.scales.argmin(axis=1)[:, None] == np.arange(3)
    wider = np.float32(np.sqrt(2)) * gaussians.scales
    return replace(gaussians, scales=np.where(thin, gaussians.scales, wider))


def _ways_across(
    gaussians: Gaussians,
) -> tuple[Float32[np.ndarray, "n"], Float32[np.ndarray, "n"]]:
    """The two larger standard deviations, narrower first. The least is the thickness: our discs'
    third, but a network's any."""
    a, b, c = gaussians.scales.T
    low, high = np.minimum(a, b), np.maximum(a, b)
    return np.maximum(low, np.minimum(high, c)), np.maximum(high, c)
