# SPDX-License-Identifier: Apache-2.0
"""The coloured surface as it travels: mesh blocks, deltas, and the client that assembles them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import groupby
from typing import Protocol

import numpy as np
from jaxtyping import Float32, Int32, UInt8, UInt16

from worldsystem_core.reconstruction import ScaleState

BlockIndex = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True, eq=False)
class Mesh:
    """An indexed triangle mesh with vertex colours; vertices in the world frame [world units]."""

    vertices: Float32[np.ndarray, "v 3"]
    colours: UInt8[np.ndarray, "v 3"]
    faces: Int32[np.ndarray, "f 3"]

    @staticmethod
    def empty() -> Mesh:
        return Mesh(
            vertices=np.zeros((0, 3), np.float32),
            colours=np.zeros((0, 3), np.uint8),
            faces=np.zeros((0, 3), np.int32),
        )


def fault_of(vertices: Float32[np.ndarray, "v 3"], faces: Int32[np.ndarray, "f 3"]) -> str | None:
    """Why these are no mesh that a file can hold; None when they are one."""
    if not np.isfinite(vertices).all():
        return "the mesh has vertices that are not finite"
    if len(faces) and not 0 <= faces.min() <= faces.max() < len(vertices):
        return "the mesh has faces of vertices that it lacks"
    return None


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class MeshBlock:
    """The surface inside one block of voxels; replaces the block of the same index as a whole.

    At `level` 0 it is the marching cubes of 8³ cells, and where the maker says so, its lattice
    form is here, too: vertex i lies on edge `edges[i]` = 3 p + axis (point p = x + 9 y + 81 z of
    the block's 9³ points), the share `shares[i]` / 65536 along it; `cells` are the low points of
    the crossed cells, ascending, and `cases` their marching-cubes cases. Vertices are numbered
    in ascending order of their edges, faces follow cell by cell in the order of the table.

    At levels 1 and 2 vertices are clustered on cells of 2 and 4 voxels (`mesh_levels`): vertex i
    stands for cluster `clusters[i]`, ascending.
    """

    index: BlockIndex
    version: int
    vertices: Float32[np.ndarray, "v 3"]
    colours: UInt8[np.ndarray, "v 3"]
    faces: Int32[np.ndarray, "f 3"]
    level: int = 0
    edges: UInt16[np.ndarray, "v"] | None = None
    shares: UInt16[np.ndarray, "v"] | None = None
    cells: UInt16[np.ndarray, "c"] | None = None
    cases: UInt8[np.ndarray, "c"] | None = None
    clusters: UInt16[np.ndarray, "v"] | None = None

    @property
    def vertex_count(self) -> int:
        """What a block that is drawn when it is looked at knows before."""
        return len(self.vertices)

    @property
    def has_lattice(self) -> bool:
        """Whether its lattice form is here."""
        return self.cells is not None

    @property
    def pile(self) -> tuple[BlockPile, int] | None:
        """Where its arrays lie one behind the other with those of other blocks, and its number."""
        return None


@dataclass(frozen=True, kw_only=True, eq=False)
class StackedBlocks:
    """Blocks one behind the other; faces number the vertices of their own block."""

    index: Int32[np.ndarray, "b 3"]
    vertex_count: Int32[np.ndarray, "b"]
    face_count: Int32[np.ndarray, "b"]
    vertices: Float32[np.ndarray, "v 3"]
    colours: UInt8[np.ndarray, "v 3"]
    faces: Int32[np.ndarray, "f 3"]


@dataclass(frozen=True, eq=False)
class RawPile:
    """The columns of blocks that lie one behind the other, as bytes, and where each block begins
    in them: to cut one out costs a fraction of making its arrays."""

    vertex_start: list[int]
    face_start: list[int]
    cell_start: list[int]
    columns: tuple[memoryview, ...]

    def block(self, at: int) -> tuple[int, int, list[memoryview]]:
        """How many vertices and faces block number `at` has, and its vertices, colours, faces,
        edges, shares, cells and cases."""
        v0, v1 = self.vertex_start[at], self.vertex_start[at + 1]
        f0, f1 = self.face_start[at], self.face_start[at + 1]
        c0, c1 = self.cell_start[at], self.cell_start[at + 1]
        vertices, colours, faces, edges, shares, cells, cases = self.columns
        found = [
            vertices[12 * v0 : 12 * v1],
            colours[3 * v0 : 3 * v1],
            faces[12 * f0 : 12 * f1],
            edges[2 * v0 : 2 * v1],
            shares[2 * v0 : 2 * v1],
            cells[2 * c0 : 2 * c1],
            cases[c0:c1],
        ]
        return v1 - v0, f1 - f0, found


class BlockPile(Protocol):
    """Blocks that were made together: some of them are taken at once, quicker than one by one."""

    def stacked(self, chosen: list[int]) -> StackedBlocks:
        """Those of these numbers, ascending."""
        ...

    def raw(self) -> RawPile:
        """All of them as bytes, little endian."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class MeshDelta:
    """What changed on the surface since `base_sequence`.

    A client whose newest sequence is not `base_sequence` has missed something and asks for all
    blocks newer than what it has. `capture_ns` is the capture time of the newest keyframe in it.
    """

    stamp_ns: int
    sequence: int
    base_sequence: int
    block_size: float
    blocks: Sequence[MeshBlock]
    removed: Sequence[BlockIndex]
    total_vertices: int
    total_faces: int
    keyframe_count: int
    capture_ns: int
    scale: ScaleState = ScaleState.SCENE

    def with_blocks(self, blocks: Sequence[MeshBlock]) -> MeshDelta:
        """The same delta with other blocks."""
        return replace(self, blocks=blocks)


def is_same_size(one: float, other: float) -> bool:
    """Whether two edges of a block are the same [world units]: messages hold them as float32."""
    return bool(np.float32(one) == np.float32(other))


@dataclass
class MeshAssembly:
    """A client's copy of the surface, kept current by deltas."""

    sequence: int = 0
    blocks: dict[BlockIndex, MeshBlock] = field(default_factory=dict)

    def apply(self, delta: MeshDelta) -> bool:
        """Apply `delta`; False when a delta before it was missed (nothing is changed then)."""
        if delta.base_sequence > self.sequence:
            return False
        for index in delta.removed:
            self.blocks.pop(index, None)
        for block in delta.blocks:
            self.blocks[block.index] = block
        # A delta from nothing comes from a mesher that began anew, too: its numbers begin again.
        anew = delta.base_sequence == 0
        self.sequence = delta.sequence if anew else max(self.sequence, delta.sequence)
        return True

    def mesh(self) -> Mesh:
        """The whole surface as one indexed mesh (rim vertices of neighbouring blocks repeated), in
        the order of the blocks' indices, whatever came first."""
        return join_blocks([self.blocks[index] for index in sorted(self.blocks)])


def join_blocks(blocks: Sequence[MeshBlock]) -> Mesh:
    """Concatenate block meshes into one; an empty list gives an empty mesh."""
    if not blocks:
        return Mesh.empty()
    offsets = np.cumsum([0] + [len(block.vertices) for block in blocks[:-1]])
    return Mesh(
        vertices=np.concatenate([block.vertices for block in blocks]),
        colours=np.concatenate([block.colours for block in blocks]),
        faces=np.concatenate(
            [block.faces + np.int32(at) for block, at in zip(blocks, offsets, strict=True)]
        ),
    )


def stack_blocks(blocks: Sequence[MeshBlock]) -> StackedBlocks:
    """Blocks one behind the other, in their order; those of one pile are taken together."""
    parts = []
    placed = [(block.pile, block) for block in blocks]  # read once: a block may get another pile
    for pile, some in groupby(placed, lambda each: each[0] and each[0][0]):
        members = list(some)
        if pile is None:
            parts.append(_stacked([block for _, block in members]))
        else:
            parts.append(pile.stacked([place[1] for place, _ in members if place]))
    if len(parts) == 1:
        return parts[0]
    if not parts:
        return _stacked([])
    names = [item.name for item in fields(StackedBlocks)]
    return StackedBlocks(
        **{name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    )


def _stacked(blocks: list[MeshBlock]) -> StackedBlocks:
    mesh = Mesh.empty()
    return StackedBlocks(
        index=np.array([block.index for block in blocks], np.int32).reshape(-1, 3),
        vertex_count=np.array([len(block.vertices) for block in blocks], np.int32),
        face_count=np.array([len(block.faces) for block in blocks], np.int32),
        vertices=np.concatenate([mesh.vertices, *(block.vertices for block in blocks)]),
        colours=np.concatenate([mesh.colours, *(block.colours for block in blocks)]),
        faces=np.concatenate([mesh.faces, *(block.faces for block in blocks)]),
    )
