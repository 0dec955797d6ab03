# SPDX-License-Identifier: Apache-2.0
"""What methods found, as distances on the lattice, blended with each other and what is fused.

A region's weight is 1 inside, falls to 0 over its rim (4 voxels on either side), and adds up to 1
with its neighbours' (a partition of unity). The distance at a point depends on the point and on the
fields there alone, so blocks agree on their rims, and the surface has no seam.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from jaxtyping import Float16, Float32, Int, Int32, UInt8

from worldsystem_core.mesh_code.cells import SurfaceCells
from worldsystem_core.surface import BlockIndex, Mesh
from worldsystem_mesh.methods import lattice

RIM = 4
RegionIndex = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class FusedSamples:
    """What the volume knows of some blocks: distances [voxels, NaN = unknown] and colours."""

    distances: Float32[np.ndarray, "b 9 9 9"]
    colours: UInt8[np.ndarray, "b 9 9 9 3"]


@dataclass(frozen=True, eq=False)
class RegionField:
    """Distances [voxels, NaN = unknown] and colours on a region's points and `RIM` around it."""

    distances: Float16[np.ndarray, "n n n"]
    colours: UInt8[np.ndarray, "n n n 3"]

    @staticmethod
    def of(mesh: Mesh, side: int) -> RegionField:
        """The field of a mesh [voxels from the region's low corner], for `side` blocks an edge."""
        at = np.arange(-RIM, 8 * side + RIM + 1, dtype=np.float32)
        z, y, x = np.meshgrid(at, at, at, indexing="ij")
        points = np.stack([x, y, z], axis=-1).reshape(-1, 3)
        distances = lattice.mesh_distances(mesh, points)
        colours = lattice.nearest_colours(mesh, points, np.isfinite(distances))
        shape = (len(at),) * 3
        return RegionField(distances.reshape(shape).astype(np.float16), colours.reshape(*shape, 3))


class FieldBlend:
    """The fields of all regions that have one."""

    def __init__(self, side: int, *, only_fill: bool) -> None:
        self._side = side
        self._only_fill = only_fill
        self.fields: dict[RegionIndex, RegionField] = {}

    def affected(self, region: RegionIndex) -> list[BlockIndex]:
        """The blocks that a region's field reaches into: its own and one layer around."""
        spans = [range(self._side * r - 1, self._side * (r + 1) + 1) for r in region]
        return [(x, y, z) for z, y, x in product(spans[2], spans[1], spans[0])]

    def cells(self, index: Int32[np.ndarray, "b 3"], fused: FusedSamples) -> SurfaceCells:
        """The surface of blocks where fields and what is fused are blended."""
        points = (8 * index[:, None, :] + _BLOCK_POINTS).astype(np.int64)
        reach = np.zeros(points.shape[:2], np.float32)
        total, distance = np.zeros_like(reach), np.zeros_like(reach)
        colour = np.zeros(points.shape, np.float32)
        for region in self._regions_near(index):
            share, found, rgb = self._looked_up(region, points)
            reach += share
            weight = np.where(np.isfinite(found), share, 0.0)
            found = np.nan_to_num(found)
            total += weight
            distance += weight * found
            colour += weight[..., None] * rgb
        there = total > 1e-3
        other = np.where(there, distance / np.where(there, total, 1.0), np.nan)
        shape = fused.distances.shape
        mixed = lattice.blended(
            fused.distances,
            other.reshape(shape).astype(np.float32),
            np.minimum(reach, 1.0).reshape(shape),
            only_fill=self._only_fill,
        )
        new = np.isfinite(mixed) & ~np.isfinite(fused.distances)
        mean = np.rint(colour / np.where(there, total, 1.0)[..., None]).astype(np.uint8)
        rgb = np.where(new[..., None], mean.reshape(*shape, 3), fused.colours)
        return lattice.cells_of_samples(index, np.zeros(len(index), np.int32), mixed, rgb)

    def _regions_near(self, index: Int32[np.ndarray, "b 3"]) -> list[RegionIndex]:
        """Regions with a field that reaches into one of the blocks."""
        near = {
            tuple(region)
            for step in product((-1, 0, 1), repeat=3)
            for region in ((index + np.array(step)) // self._side).tolist()
        }
        return [region for region in self.fields if region in near]

    def _looked_up(
        self, region: RegionIndex, points: Int[np.ndarray, "b p 3"]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Weight, distance (NaN = unknown) and colour of a region's field at points."""
        field, span = self.fields[region], 8 * self._side
        local = points - span * np.array(region)
        ramp = np.minimum(local + RIM, span + RIM - local) / (2.0 * RIM)
        weight = np.clip(ramp, 0.0, 1.0).prod(axis=-1)
        at = np.clip(local + RIM, 0, span + 2 * RIM)
        found = field.distances[at[..., 2], at[..., 1], at[..., 0]].astype(np.float32)
        rgb = field.colours[at[..., 2], at[..., 1], at[..., 0]]
        return weight.astype(np.float32), found, rgb


def _block_points() -> Int[np.ndarray, "729 3"]:
    z, y, x = np.mgrid[:9, :9, :9].reshape(3, -1)
    return np.stack([x, y, z], axis=-1)


_BLOCK_POINTS = _block_points()
