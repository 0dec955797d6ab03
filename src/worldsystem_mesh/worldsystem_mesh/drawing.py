# SPDX-License-Identifier: Apache-2.0
"""From surface code to meshes of blocks, when somebody looks at them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import fields, replace
from typing import overload

import numpy as np
import warp as wp
from jaxtyping import Float32, Int32

from worldsystem_core.surface import BlockIndex, BlockPile, MeshBlock, RawPile, StackedBlocks
from worldsystem_mesh import kernels_drawing, kernels_emission
from worldsystem_mesh.cells import SurfaceCells
from worldsystem_mesh.extraction import make_tables, starts_of
from worldsystem_mesh.launcher import Launcher, over
from worldsystem_mesh.pieces import ranges
from worldsystem_mesh.pile_keeper import PileKeeper

BATCH_BLOCKS = 2048
_OF_CELLS = ("cells", "cases")
_COLUMNS = ("vertices", "colours", "faces", "edges", "shares", *_OF_CELLS)


class SurfaceDrawer:
    """Makes vertices and triangles of surface code, on the CPU, where meshes are read."""

    def __init__(self, launcher: Launcher) -> None:
        self._launcher = launcher
        self._tables = make_tables("cpu")
        self.piles = PileKeeper()

    def draw(
        self, cells: SurfaceCells, voxel: float
    ) -> tuple[Float32[np.ndarray, "v 3"], Int32[np.ndarray, "f 3"], Int32[np.ndarray, "b+1"]]:
        """Vertices [world units] and faces (numbered within their block) of all blocks, and where
        each block's faces begin."""
        starts = starts_of(cells.face_counts)
        vertices = np.empty((len(cells.edges), 3), np.float32)
        faces = np.empty((int(starts[-1]), 3), np.int32)
        for first in range(0, len(cells), BATCH_BLOCKS):
            end = min(first + BATCH_BLOCKS, len(cells))
            code, out = kernels_emission.Code(), kernels_drawing.Drawing()
            code.vertex_start = over(cells.vertex_start[first : end + 1], wp.int32)
            code.cell_start = over(cells.cell_start[first : end + 1], wp.int32)
            code.edges = over(cells.edges, wp.uint16)
            code.shares = over(cells.shares, wp.uint16)
            code.cells = over(cells.cells, wp.uint16)
            code.cases = over(cells.cases, wp.uint8)
            out.voxel = voxel
            out.index = over(cells.index[first:end], wp.int32)
            out.face_start = over(starts[first:end], wp.int32)
            out.vertices, out.faces = over(vertices, wp.vec3), over(faces, wp.vec3i)
            inputs = [self._tables, code, out]
            self._launcher.shared(kernels_drawing.draw_surface, end - first, inputs)
        return vertices, faces, starts


class BlockMeshes(Sequence[MeshBlock]):
    """Meshes of blocks, of which vertices and triangles are drawn when they are looked at, in piles
    of at most `BATCH_BLOCKS`; read-only, for any thread."""

    def __init__(self, drawer: SurfaceDrawer, cells: SurfaceCells, voxel: float) -> None:
        self.cells = cells
        self._keeper = drawer.piles
        self._piles = [_Pile(drawer, part, voxel) for part in _batches(cells)]
        self._all: Sequence[MeshBlock] | None = None

    def __len__(self) -> int:
        return len(self.cells)

    @overload
    def __getitem__(self, at: int) -> MeshBlock: ...

    @overload
    def __getitem__(self, at: slice) -> Sequence[MeshBlock]: ...

    def __getitem__(self, at: int | slice) -> MeshBlock | Sequence[MeshBlock]:
        return self._blocks()[at]

    def __iter__(self) -> Iterator[MeshBlock]:
        return iter(self._blocks())

    @property
    def is_drawn(self) -> bool:
        """Whether somebody looked."""
        return any(pile.is_drawn for pile in self._piles)

    def draw(self) -> None:
        """As if somebody looked at all of them."""
        for pile in self._piles:
            pile.draw()

    def _blocks(self) -> Sequence[MeshBlock]:
        if self._all is None:
            made: list[MeshBlock] = []
            for pile in self._piles:
                blocks = pile.blocks()
                self._keeper.add(blocks)
                made += blocks
            self._all = made
        return self._all


def _batches(cells: SurfaceCells) -> Iterator[SurfaceCells]:
    """Few enough that whoever looks at one block of a large map does not wait long; not copied."""
    if len(cells) <= BATCH_BLOCKS:
        yield cells
        return
    for first in range(0, len(cells), BATCH_BLOCKS):
        yield cells.taken(np.arange(first, min(first + BATCH_BLOCKS, len(cells))))


class _Pile:
    """What blocks that were made together share; it knows none of them, so that those that are let
    go are gone at once."""

    def __init__(self, drawer: SurfaceDrawer, cells: SurfaceCells, voxel: float) -> None:
        self._drawer = drawer
        self._cells = cells
        self._voxel = voxel
        self._drawn: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None
        self.vertex_counts: list[int] = np.diff(cells.vertex_start).tolist()

    @property
    def is_drawn(self) -> bool:
        return self._drawn is not None

    def draw(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if self._drawn is None:
            vertices, faces, starts = self._drawer.draw(self._cells, self._voxel)
            vertices.flags.writeable = faces.flags.writeable = False
            self._drawn = vertices, faces, starts
        return self._drawn

    def blocks(self) -> list[_DrawnBlock]:
        """All of them, new objects each time."""
        places = zip(self._cells.index.tolist(), self._cells.version.tolist(), strict=True)
        return [
            _DrawnBlock.of(self, at, (x, y, z), version)
            for at, ((x, y, z), version) in enumerate(places)
        ]

    def part(self, name: str, at: int) -> np.ndarray:
        """What block number `at` has of a column of `MeshBlock`."""
        if name == "faces":
            _, faces, starts = self.draw()
            return np.asarray(faces[starts[at] : starts[at + 1]])
        column = self.draw()[0] if name == "vertices" else getattr(self._cells, name)
        start = self._cells.cell_start if name in _OF_CELLS else self._cells.vertex_start
        return np.asarray(column[start[at] : start[at + 1]])

    def stacked(self, chosen: list[int]) -> StackedBlocks:
        """Some of the blocks, one behind the other."""
        numbers, (vertices, faces, starts) = np.array(chosen), self.draw()
        of_vertices, vertex_start = ranges(self._cells.vertex_start, numbers)
        of_faces, face_start = ranges(starts, numbers)
        return StackedBlocks(
            index=self._cells.index[numbers],
            vertex_count=np.diff(vertex_start),
            face_count=np.diff(face_start),
            vertices=of_vertices.of(vertices),
            colours=of_vertices.of(self._cells.colours),
            faces=of_faces.of(faces),
        )

    def raw(self) -> RawPile:
        """All of the blocks as bytes; not kept, since that is wanted once."""
        vertices, faces, starts = self.draw()
        code = self._cells
        columns = (vertices, code.colours, faces, code.edges, code.shares, code.cells, code.cases)
        return RawPile(
            code.vertex_start.tolist(),
            starts.tolist(),
            code.cell_start.tolist(),
            tuple(_bytes_of(column) for column in columns),
        )

    def thinned(self, chosen: list[int]) -> _Pile:
        """Another pile that has some of the blocks alone."""
        numbers = np.array(chosen)
        cells = self._cells.taken(numbers)
        own = {item.name: _owned(getattr(cells, item.name)) for item in fields(cells)}
        pile = _Pile(self._drawer, replace(cells, **own), self._voxel)
        if self._drawn is not None:
            vertices, faces, starts = self._drawn
            of_vertices, _ = ranges(self._cells.vertex_start, numbers)
            of_faces, face_start = ranges(starts, numbers)
            drawn = _owned(of_vertices.of(vertices)), _owned(of_faces.of(faces))
            for column in drawn:
                column.flags.writeable = False
            pile._drawn = *drawn, face_start
        return pile


def _owned(column: np.ndarray) -> np.ndarray:
    """With memory of its own."""
    return column if column.base is None else column.copy()


def _bytes_of(column: np.ndarray) -> memoryview:
    """As they are in messages."""
    told = np.ascontiguousarray(column, column.dtype.newbyteorder("<"))
    return told.reshape(-1).view(np.uint8).data


class _Column:
    """An array of a block that is made when it is looked at: most are replaced before that."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name
        self._slot = getattr(MeshBlock, name)

    def __get__(self, block: _DrawnBlock, owner: type) -> np.ndarray:
        try:
            held: np.ndarray = self._slot.__get__(block, owner)
        except AttributeError:
            pile, at = block.place
            held = pile.part(self._name, at)
            self._slot.__set__(block, held)
        return held

    def __set__(self, block: _DrawnBlock, array: np.ndarray) -> None:
        self._slot.__set__(block, array)

    def __delete__(self, block: _DrawnBlock) -> None:
        with suppress(AttributeError):  # nobody has looked
            self._slot.__delete__(block)


class _DrawnBlock(MeshBlock):
    """A block of a pile, by number; making it costs a tenth of making its seven arrays.

    A copy with other arrays, as `dataclasses.replace` makes it, has no `place`.
    """

    __slots__ = ("__weakref__", "place")
    place: tuple[_Pile, int]
    vertices = _Column()
    colours = _Column()
    faces = _Column()
    edges = _Column()
    shares = _Column()
    cells = _Column()
    cases = _Column()

    @staticmethod
    def of(pile: _Pile, at: int, index: BlockIndex, version: int) -> _DrawnBlock:
        block = _DrawnBlock.__new__(_DrawnBlock)
        put = object.__setattr__  # the block is frozen
        put(block, "index", index)
        put(block, "version", version)
        put(block, "level", 0)
        put(block, "clusters", None)
        put(block, "place", (pile, at))
        return block

    def move(self, pile: _Pile, at: int) -> None:
        """From now on it is block number `at` of another pile, where it is the same; for whoever
        keeps piles. Threads that look meanwhile see either."""
        object.__setattr__(self, "place", (pile, at))
        for name in _COLUMNS:
            object.__delattr__(self, name)

    @property
    def vertex_count(self) -> int:
        if hasattr(self, "place"):
            pile, at = self.place
            return pile.vertex_counts[at]
        return len(self.vertices)

    @property
    def has_lattice(self) -> bool:
        return hasattr(self, "place") or self.cells is not None

    @property
    def pile(self) -> tuple[BlockPile, int] | None:
        return self.place if hasattr(self, "place") else None
