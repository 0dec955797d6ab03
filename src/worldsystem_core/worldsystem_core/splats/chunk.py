# SPDX-License-Identifier: Apache-2.0
"""The splats that one keyframe gave to the world."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float32, Float64, Int64, UInt8

from worldsystem_core.geometry.sim3 import Sim3
from worldsystem_core.splats.coverage import areas
from worldsystem_core.splats.gaussians import Gaussians


@dataclass(eq=False)
class Chunk:
    """The splats of one keyframe, in its camera's frame, and where their voxels were counted."""

    id: int
    world_from_chunk: Sim3
    gaussians: Gaussians
    doubts: UInt8[np.ndarray, "n"]
    keys: Int64[np.ndarray, "n"]
    levels: Int64[np.ndarray, "n"]
    area: Float32[np.ndarray, "n"]
    counted_at: Sim3
    unit: float
    """Its size when the world had the size of the voxels' first ones."""
    _extent: _Extent | None = field(default=None, init=False)

    def __len__(self) -> int:
        return len(self.gaussians)

    @property
    def reach(self) -> float:
        """Distance of the farthest splat from the chunk's camera [chunk units]."""
        return self._measured().reach

    @property
    def ball(self) -> tuple[Float32[np.ndarray, "3"], float]:
        """Centre and radius [chunk units] of a ball that holds the middles of all splats."""
        extent = self._measured()
        return extent.centre, extent.radius

    def _measured(self) -> _Extent:
        means = self.gaussians.means
        if self._extent is None or self._extent.means is not means:
            self._extent = _Extent.of(means)
        return self._extent

    def distance(self, point: Float64[np.ndarray, "3"]) -> float:
        """From the chunk's camera to `point` (world)."""
        return float(np.linalg.norm(self.world_from_chunk.translation - point))

    @staticmethod
    def uncounted(id: int, place: Sim3, gaussians: Gaussians, unit: float) -> Chunk:
        """One whose voxels nobody has counted yet, and whose area is in its own unit."""
        none, n = np.zeros(0, np.int64), len(gaussians)
        doubts, area = np.zeros(n, np.uint8), areas(gaussians)
        return Chunk(id, place, gaussians, doubts, none, none, area, Sim3.identity(), unit)


@dataclass(frozen=True, eq=False)
class _Extent:
    """How far `means` reach: from the origin, and from the middle of their bounding box."""

    means: Float32[np.ndarray, "n 3"]
    reach: float
    centre: Float32[np.ndarray, "3"]
    radius: float

    @staticmethod
    def of(means: Float32[np.ndarray, "n 3"]) -> _Extent:
        if not len(means):
            return _Extent(means, 0.0, np.zeros(3, np.float32), 0.0)
        centre = (means.min(axis=0) + means.max(axis=0)) / np.float32(2)
        return _Extent(means, _farthest(means), centre, _farthest(means - centre))


def _farthest(points: Float32[np.ndarray, "n 3"]) -> float:
    return float(np.sqrt(np.einsum("ij,ij->i", points, points).max()))
