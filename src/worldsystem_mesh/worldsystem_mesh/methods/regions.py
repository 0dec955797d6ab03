# SPDX-License-Identifier: Apache-2.0
"""Regions of the map: which have been left alone, and what methods are given of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int, Int32, UInt16

from worldsystem_core.mesh_code.code import CodedBlocks
from worldsystem_core.mesh_normals import vertex_normals
from worldsystem_core.surface import Mesh, MeshBlock, MeshDelta, join_blocks
from worldsystem_mesh.config import MeshConfig
from worldsystem_mesh.methods.fields import FusedSamples, RegionIndex
from worldsystem_mesh.methods.interface import RegionPoints
from worldsystem_mesh.methods.lattice import cells_of_samples
from worldsystem_mesh.weld import weld

SamplesOf = Callable[[Int32[np.ndarray, "b 3"]], FusedSamples]


@dataclass
class Region:
    """Vertices of each block in one cube, x fastest; 0 where there is no surface."""

    vertices: UInt16[np.ndarray, "n"]
    changed_s: float
    change: int


class RegionMap:
    """Follows the surface by its deltas, region by region, as long as a region has a surface; not
    at all where no method but tsdf can be chosen. One thread."""

    def __init__(self, config: MeshConfig) -> None:
        self._settle_s = config.method_settle_s
        self._side = config.method_region_blocks
        names = {config.method_fast, config.method_sparse, config.method_still}
        self._follows = names != {"tsdf"}
        self._regions: dict[RegionIndex, Region] = {}
        self._stale: dict[RegionIndex, None] = {}  # longest unchanged first
        self._made: dict[RegionIndex, str] = {}
        self.voxel = 0.0

    def __len__(self) -> int:
        """How many regions are followed."""
        return len(self._regions)

    def __contains__(self, index: RegionIndex) -> bool:
        """Whether the region has a surface."""
        return index in self._regions

    def take(self, delta: MeshDelta, now_s: float) -> set[RegionIndex]:
        """Note what changed on the surface; returns the regions in which."""
        self.voxel = delta.block_size / 8.0
        if not self._follows:
            return set()
        gone = np.array(delta.removed, np.int32).reshape(-1, 3)
        changed: set[RegionIndex] = set()
        for index, vertices in ((gone, np.zeros(len(gone), np.int64)), block_sizes(delta)):
            for region, places, values in self._by_region(index, vertices):
                self._touch(region, now_s, delta.sequence).vertices[places] = values
                changed.add(region)
        for region in changed:
            if not self._regions[region].vertices.any():
                del self._regions[region], self._stale[region]
        return changed

    def methods(self) -> dict[RegionIndex, str]:
        """Regions whose newest surface is by another method than tsdf."""
        return dict(self._made)

    def settled(self, now_s: float) -> Iterator[RegionIndex]:
        """Regions left alone that no method has meshed as they are, longest unchanged first; none
        may be marked before the next is asked for."""
        for index in self._stale:
            if now_s - self._regions[index].changed_s < self._settle_s:
                return
            yield index

    def size(self, index: RegionIndex) -> tuple[int, int]:
        """Vertices and blocks of a region's surface."""
        if index not in self._regions:
            return 0, 0
        vertices = self._regions[index].vertices
        return int(vertices.sum(dtype=np.int64)), int(np.count_nonzero(vertices))

    def change(self, index: RegionIndex) -> int:
        """Number of the region's last change; -1 where there is no surface."""
        return self._regions[index].change if index in self._regions else -1

    def mark(self, index: RegionIndex, method: str) -> None:
        """`method` has meshed the region as it is now."""
        self._stale.pop(index, None)
        if method != "tsdf":
            self._made[index] = method

    def _touch(self, index: RegionIndex, now_s: float, change: int) -> Region:
        region = self._regions.get(index)
        if region is None:
            blank = np.zeros(self._side**3, np.uint16)
            region = self._regions[index] = Region(blank, now_s, change)
        region.changed_s, region.change = now_s, change
        self._made.pop(index, None)
        self._stale.pop(index, None)
        self._stale[index] = None
        return region

    def _by_region(
        self, index: Int32[np.ndarray, "b 3"], values: Int[np.ndarray, "b"]
    ) -> Iterator[tuple[RegionIndex, Int[np.ndarray, "n"], Int[np.ndarray, "n"]]]:
        """Places in their region and values of blocks, region by region."""
        if not len(index):
            return
        of_block = index // self._side
        order = np.lexsort(of_block.T)
        of_block, index, values = of_block[order], index[order], values[order]
        places = (index - self._side * of_block) @ self._side ** np.arange(3)
        changes = (of_block[1:] != of_block[:-1]).any(axis=1)
        begins = [0, *(np.flatnonzero(changes) + 1).tolist()]
        for begin, end in zip(begins, [*begins[1:], len(index)], strict=True):
            x, y, z = of_block[begin].tolist()
            yield (x, y, z), places[begin:end], values[begin:end]


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
