# SPDX-License-Identifier: Apache-2.0
"""Regions of the map: which have been left alone, and what methods are given of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int, Int32

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
        gone = np.array(delta.removed, np.int32).reshape(-1, 3)
        for region, blocks, _ in self._by_region(gone, np.zeros(len(gone), np.int32)):
            held = self._touch(region, now_s, delta.sequence).blocks
            for index in blocks:
                held.pop(index, None)
        for region, blocks, vertices in self._by_region(*block_sizes(delta)):
            held = self._touch(region, now_s, delta.sequence).blocks
            held.update(zip(blocks, vertices, strict=True))

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

    def _touch(self, index: RegionIndex, now_s: float, change: int) -> Region:
        region = self._regions.get(index)
        if region is None:
            region = self._regions[index] = Region({}, now_s, change)
        region.changed_s, region.change, region.method = now_s, change, "tsdf"
        return region

    def _by_region(
        self, index: Int32[np.ndarray, "b 3"], values: Int[np.ndarray, "b"]
    ) -> Iterator[tuple[RegionIndex, list[BlockIndex], list[int]]]:
        """Blocks and their values, region by region; blocks of one region stay in their order."""
        if not len(index):
            return
        of_block = index // self._side
        order = np.lexsort(of_block.T)
        of_block, index, values = of_block[order], index[order], values[order]
        changes = (of_block[1:] != of_block[:-1]).any(axis=1)
        begins = [0, *(np.flatnonzero(changes) + 1).tolist()]
        places = [(x, y, z) for x, y, z in index.tolist()]
        for begin, end in zip(begins, [*begins[1:], len(index)], strict=True):
            x, y, z = of_block[begin].tolist()
            yield (x, y, z), places[begin:end], values[begin:end].tolist()


def block_sizes(delta: MeshDelta) -> tuple[Int32[np.ndarray, "b 3"], Int[np.ndarray, "b"]]:
    """Index and number of vertices of each block; those that are not drawn yet stay so."""
    blocks = delta.blocks
    if isinstance(blocks, CodedBlocks):
        return blocks.cells.index, np.diff(blocks.cells.vertex_start)
    index = np.array([block.index for block in blocks], np.int32).reshape(-1, 3)
    return index, np.array([len(block.vertices) for block in blocks], np.int32)


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
