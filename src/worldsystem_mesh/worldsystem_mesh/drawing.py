# SPDX-License-Identifier: Apache-2.0
"""From surface code to meshes of blocks, when somebody looks at them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import overload

import numpy as np
import warp as wp
from jaxtyping import Float32, Int32

from worldsystem_core.surface import MeshBlock
from worldsystem_mesh import kernels_drawing, kernels_emission
from worldsystem_mesh.cells import SurfaceCells
from worldsystem_mesh.extraction import make_tables, starts_of
from worldsystem_mesh.launcher import Launcher, over

BATCH_BLOCKS = 2048


class SurfaceDrawer:
    """Makes vertices and triangles of surface code, on the CPU, where meshes are read."""

    def __init__(self, launcher: Launcher) -> None:
        self._launcher = launcher
        self._tables = make_tables("cpu")

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
    """Meshes of blocks that are drawn, all at once, when the first is looked at; read-only, for any
    thread."""

    def __init__(self, drawer: SurfaceDrawer, cells: SurfaceCells, voxel: float) -> None:
        self.cells = cells
        self._drawer = drawer
        self._voxel = voxel
        self._drawn: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None
        self._all: list[MeshBlock] | None = None

    def __len__(self) -> int:
        return len(self.cells)

    @overload
    def __getitem__(self, at: int) -> MeshBlock: ...

    @overload
    def __getitem__(self, at: slice) -> Sequence[MeshBlock]: ...

    def __getitem__(self, at: int | slice) -> MeshBlock | Sequence[MeshBlock]:
        if isinstance(at, slice):
            return [self._block(i) for i in range(*at.indices(len(self)))]
        if not -len(self) <= at < len(self):
            raise IndexError(at)
        return self._block(at % len(self))

    def __iter__(self) -> Iterator[MeshBlock]:
        if self._all is None:
            self._all = [self._block(i) for i in range(len(self))]
        return iter(self._all)

    def draw(
        self,
    ) -> tuple[Float32[np.ndarray, "v 3"], Int32[np.ndarray, "f 3"], Int32[np.ndarray, "b+1"]]:
        """Vertices and faces (numbered within their block) of all blocks, and where each block's
        faces begin."""
        if self._drawn is None:
            vertices, faces, starts = self._drawer.draw(self.cells, self._voxel)
            vertices.flags.writeable = faces.flags.writeable = False
            self._drawn = vertices, faces, starts
        return self._drawn

    def _block(self, i: int) -> MeshBlock:
        if self._all is not None:
            return self._all[i]
        code, (vertices, faces, starts) = self.cells, self.draw()
        v = slice(code.vertex_start[i], code.vertex_start[i + 1])
        c = slice(code.cell_start[i], code.cell_start[i + 1])
        x, y, z = code.index[i].tolist()
        return MeshBlock(
            index=(x, y, z),
            version=int(code.version[i]),
            vertices=vertices[v],
            colours=code.colours[v],
            faces=faces[starts[i] : starts[i + 1]],
            edges=code.edges[v],
            shares=code.shares[v],
            cells=code.cells[c],
            cases=code.cases[c],
        )
