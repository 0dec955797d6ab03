# SPDX-License-Identifier: Apache-2.0
"""Regions of the map: which have been left alone, and what methods are given of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from worldsystem_core.mesh_normals import vertex_normals
from worldsystem_core.surface import BlockIndex, Mesh, MeshBlock, MeshDelta, join_blocks
from worldsystem_mesh.config import MeshConfig
from worldsystem_mesh.methods.fields import RegionIndex
from worldsystem_mesh.methods.interface import RegionPoints
from worldsystem_mesh.weld import weld


@dataclass
class Region:
    """Blocks of surface in one cube; `meshed_at` is the change that a method last saw."""

    blocks: set[BlockIndex]
    changed_s: float
    change: int
    meshed_at: int = -1
    method: str = "tsdf"


class RegionMap:
    """Follows the surface by its deltas. One thread."""

    def __init__(self, config: MeshConfig) -> None:
        self._config = config
        self._side = config.method_region_blocks
        self._blocks: dict[BlockIndex, MeshBlock] = {}
        self._regions: dict[RegionIndex, Region] = {}
        self.voxel = 0.0

    def take(self, delta: MeshDelta, now_s: float) -> None:
        """What changed on the surface."""
        self.voxel = delta.block_size / 8.0
        for index in delta.removed:
            self._blocks.pop(index, None)
            self._touch(index, now_s, delta.sequence).blocks.discard(index)
        for block in delta.blocks:
            self._blocks[block.index] = block
            self._touch(block.index, now_s, delta.sequence).blocks.add(block.index)

    def is_stale(self, index: RegionIndex) -> bool:
        """Whether the region has changed since a method meshed it."""
        region = self._regions[index]
        return region.meshed_at != region.change

    def methods(self) -> dict[RegionIndex, str]:
        """Regions whose newest surface is by another method than tsdf."""
        return {
            index: region.method
            for index, region in self._regions.items()
            if region.method != "tsdf" and region.meshed_at == region.change
        }

    def settled(self, now_s: float) -> list[RegionIndex]:
        """Regions left alone that no method has meshed as they are, longest unchanged first."""
        waiting = [
            (region.changed_s, index)
            for index, region in self._regions.items()
            if region.blocks
            and region.meshed_at != region.change
            and now_s - region.changed_s >= self._config.method_settle_s
        ]
        return [index for _, index in sorted(waiting)]

    def size(self, index: RegionIndex) -> tuple[int, int]:
        """Vertices and blocks of a region's surface."""
        blocks = self._regions[index].blocks
        return sum(len(self._blocks[block].vertices) for block in blocks), len(blocks)

    def change(self, index: RegionIndex) -> int:
        """Number of the region's last change."""
        return self._regions[index].change

    def mark(self, index: RegionIndex, method: str) -> None:
        """`method` has meshed the region as it is now."""
        region = self._regions[index]
        region.meshed_at, region.method = region.change, method

    def points(self, index: RegionIndex) -> RegionPoints:
        """The region's fused points and those of one block around it."""
        low = self._side * np.array(index)
        reach = range(-1, self._side + 1)
        around = (
            (int(low[0]) + x, int(low[1]) + y, int(low[2]) + z)
            for z in reach
            for y in reach
            for x in reach
        )
        return region_points(
            (self._blocks[place] for place in around if place in self._blocks), low, self.voxel
        )

    def _touch(self, block: BlockIndex, now_s: float, change: int) -> Region:
        x, y, z = (place // self._side for place in block)
        region = self._regions.setdefault((x, y, z), Region(set(), now_s, change))
        region.changed_s, region.change, region.method = now_s, change, "tsdf"
        return region


def region_points(blocks: Iterable[MeshBlock], low: np.ndarray, voxel: float) -> RegionPoints:
    """Welded vertices of `blocks` as points [voxels] from the low corner of block `low`."""
    mesh = weld(join_blocks(list(blocks)))
    local = (mesh.vertices.astype(np.float64) / max(voxel, 1e-12) - 8.0 * low).astype(np.float32)
    return RegionPoints(
        points=local,
        normals=vertex_normals(local, mesh.faces),
        colours=mesh.colours,
        surface=Mesh(vertices=local, colours=mesh.colours, faces=mesh.faces),
    )
