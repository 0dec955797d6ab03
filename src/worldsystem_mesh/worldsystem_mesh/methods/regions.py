# SPDX-License-Identifier: Apache-2.0
"""Regions of the map: which have been left alone, and what methods are given of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int32

from worldsystem_core.mesh_code.code import CodedBlocks
from worldsystem_core.mesh_normals import vertex_normals
from worldsystem_core.surface import BlockIndex, Mesh, MeshBlock, MeshDelta, join_blocks
from worldsystem_mesh.config import MeshConfig
from worldsystem_mesh.methods.fields import FusedSamples, RegionIndex
from worldsystem_mesh.methods.interface import RegionPoints
from worldsystem_mesh.methods.lattice import cells_of_samples
from worldsystem_mesh.weld import weld

SamplesOf = Callable[[Int32[np.ndarray, "b 3"]], FusedSamples]


@dataclass
class Region:
    """Vertices of each block in one cube; `meshed_at` is the change that a method last saw."""

    blocks: dict[BlockIndex, int]
    changed_s: float
    change: int
    meshed_at: int = -1
    method: str = "tsdf"


class RegionMap:
    """Follows the surface by its deltas. One thread."""

    def __init__(self, config: MeshConfig) -> None:
        self._config = config
        self._side = config.method_region_blocks
        self._regions: dict[RegionIndex, Region] = {}
        self.voxel = 0.0

    def take(self, delta: MeshDelta, now_s: float) -> None:
        """What changed on the surface."""
        self.voxel = delta.block_size / 8.0
        for index in delta.removed:
            self._touch(index, now_s, delta.sequence).blocks.pop(index, None)
        for index, vertices in block_sizes(delta):
            self._touch(index, now_s, delta.sequence).blocks[index] = vertices

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
        return sum(blocks.values()), len(blocks)

    def change(self, index: RegionIndex) -> int:
        """Number of the region's last change."""
        return self._regions[index].change

    def mark(self, index: RegionIndex, method: str) -> None:
        """`method` has meshed the region as it is now."""
        region = self._regions[index]
        region.meshed_at, region.method = region.change, method

    def _touch(self, block: BlockIndex, now_s: float, change: int) -> Region:
        x, y, z = (place // self._side for place in block)
        region = self._regions.setdefault((x, y, z), Region({}, now_s, change))
        region.changed_s, region.change, region.method = now_s, change, "tsdf"
        return region


def block_sizes(delta: MeshDelta) -> Iterator[tuple[BlockIndex, int]]:
    """Index and number of vertices of each block; those that are not drawn yet stay so."""
    blocks = delta.blocks
    if isinstance(blocks, CodedBlocks):
        counts = np.diff(blocks.cells.vertex_start).tolist()
        places = ((x, y, z) for x, y, z in blocks.cells.index.tolist())
        yield from zip(places, counts, strict=True)
    else:
        yield from ((block.index, len(block.vertices)) for block in blocks)


def fused_points(region: RegionIndex, side: int, samples_of: SamplesOf) -> RegionPoints:
    """The fused points of a region of `side` blocks an edge, and of one block around it."""
    reach = np.arange(-1, side + 1)
    z, y, x = (part.reshape(-1) for part in np.meshgrid(reach, reach, reach, indexing="ij"))
    local = np.stack([x, y, z], axis=-1).astype(np.int32)
    fused = samples_of(local + side * np.array(region, np.int32))
    versions = np.zeros(len(local), np.int32)
    cells = cells_of_samples(local, versions, fused.distances, fused.colours)
    return region_points(cells.blocks(1.0), np.zeros(3, np.int64), 1.0)


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
