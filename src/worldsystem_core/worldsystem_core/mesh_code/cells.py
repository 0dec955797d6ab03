# SPDX-License-Identifier: Apache-2.0
"""Many level-0 blocks in their lattice form, one array for each thing and no object for each block.

Block i's vertices are `vertex_start[i] : vertex_start[i + 1]`, its cells likewise. What the arrays
mean is said at `worldsystem_core.surface.MeshBlock`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int, Int32, UInt8, UInt16

from worldsystem_core import marching_cubes
from worldsystem_core.surface import MeshBlock

POINTS = 9
EDGES = 3 * POINTS**3
SHARE_UNITS = 65536


@dataclass(frozen=True, kw_only=True, eq=False)
class SurfaceCells:
    """The lattice form of b blocks with V vertices and C crossed cells in all."""

    index: Int32[np.ndarray, "b 3"]
    version: Int32[np.ndarray, "b"]
    vertex_start: Int[np.ndarray, "b+1"]
    cell_start: Int[np.ndarray, "b+1"]
    edges: UInt16[np.ndarray, "V"]
    shares: UInt16[np.ndarray, "V"]
    colours: UInt8[np.ndarray, "V 3"]
    cells: UInt16[np.ndarray, "C"]
    cases: UInt8[np.ndarray, "C"]

    def __len__(self) -> int:
        return len(self.index)

    @staticmethod
    def of(blocks: Sequence[MeshBlock]) -> SurfaceCells:
        """The lattice form of `blocks`; raises ValueError for one that has none."""
        if any(block.cells is None for block in blocks):
            raise ValueError("a block without its lattice form cannot be coded; send it raw")
        return SurfaceCells(
            index=np.array([block.index for block in blocks], np.int32).reshape(-1, 3),
            version=np.array([block.version for block in blocks], np.int32),
            vertex_start=_starts([block.vertex_count for block in blocks]),
            cell_start=_starts([_size(block.cells) for block in blocks]),
            edges=_joined([block.edges for block in blocks], np.uint16),
            shares=_joined([block.shares for block in blocks], np.uint16),
            colours=_joined([block.colours for block in blocks], np.uint8).reshape(-1, 3),
            cells=_joined([block.cells for block in blocks], np.uint16),
            cases=_joined([block.cases for block in blocks], np.uint8),
        )

    def block_of_vertex(self) -> Int[np.ndarray, "V"]:
        """Number of the block that each vertex belongs to."""
        return np.repeat(np.arange(len(self)), np.diff(self.vertex_start))

    def block_of_cell(self) -> Int[np.ndarray, "C"]:
        """Number of the block that each cell belongs to."""
        return np.repeat(np.arange(len(self)), np.diff(self.cell_start))

    def blocks(self, voxel: float) -> list[MeshBlock]:
        """The blocks as meshes, vertices in world units for a voxel edge of `voxel`."""
        vertices = self.vertices(voxel)
        faces, face_start = self._faces()
        made = []
        for i, index in enumerate(self.index.tolist()):
            v = slice(int(self.vertex_start[i]), int(self.vertex_start[i + 1]))
            c = slice(int(self.cell_start[i]), int(self.cell_start[i + 1]))
            made.append(
                MeshBlock(
                    index=(index[0], index[1], index[2]),
                    version=int(self.version[i]),
                    vertices=vertices[v],
                    colours=self.colours[v],
                    faces=faces[face_start[i] : face_start[i + 1]],
                    edges=self.edges[v],
                    shares=self.shares[v],
                    cells=self.cells[c],
                    cases=self.cases[c],
                )
            )
        return made

    def vertices(self, voxel: float) -> Float32[np.ndarray, "V 3"]:
        """Places in world units; 64-bit arithmetic, so that neighbours agree on their rim."""
        corners = 8.0 * self.index[self.block_of_vertex()]
        return np.asarray((corners + self.lattice_places()) * voxel, np.float32)

    def lattice_places(self) -> Float64[np.ndarray, "V 3"]:
        """Places of the vertices [voxels], exact, from the low corner of their blocks."""
        places = edge_points(self.edges).astype(np.float64)
        places[np.arange(len(places)), self.edges % 3] += self.shares / SHARE_UNITS
        return places

    def _faces(self) -> tuple[Int32[np.ndarray, "F 3"], Int[np.ndarray, "b+1"]]:
        """All triangles, numbered within their blocks, and where each block's begin."""
        used, valid = case_edges(self.cells, self.cases)
        wanted = (self.block_of_cell()[:, None] * EDGES + used)[valid]
        held = self.block_of_vertex() * EDGES + self.edges
        order = np.argsort(held, kind="stable")
        numbers = order[np.searchsorted(held, wanted, sorter=order)]
        block = np.repeat(self.block_of_cell(), valid.sum(axis=1) // 3)
        faces = (numbers.reshape(-1, 3) - self.vertex_start[block][:, None]).astype(np.int32)
        return faces, _starts(np.bincount(block, minlength=len(self)))


def edge_points(edges: UInt16[np.ndarray, "n"]) -> Int[np.ndarray, "n 3"]:
    """Low point (x, y, z) of each edge on a block's 9³ points."""
    points = edges.astype(np.int64) // 3
    return np.stack([points % POINTS, points // POINTS % POINTS, points // POINTS**2], axis=-1)


def case_edges(
    cells: UInt16[np.ndarray, "C"], cases: UInt8[np.ndarray, "C"]
) -> tuple[Int[np.ndarray, "C e"], Bool[np.ndarray, "C e"]]:
    """Edge numbers of each cell's triangles in the table's order, and which of them count."""
    local = marching_cubes.edge_table()[cases]
    offsets = marching_cubes.edge_offset_table(POINTS)
    return 3 * cells.astype(np.int64)[:, None] + offsets[local], local >= 0


def _starts(counts: Sequence[int] | np.ndarray) -> Int[np.ndarray, "b+1"]:
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def _joined(arrays: list[np.ndarray | None], dtype: type) -> np.ndarray:
    there = [array for array in arrays if array is not None]
    return np.concatenate(there) if there else np.zeros(0, dtype)


def _size(array: np.ndarray | None) -> int:
    return 0 if array is None else len(array)
