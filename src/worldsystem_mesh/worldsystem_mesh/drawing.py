# SPDX-License-Identifier: Apache-2.0
"""From surface code to meshes of blocks, when somebody looks at them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

import numpy as np
import warp as wp
from jaxtyping import Float32, Int, Int32

from worldsystem_core.surface import MeshBlock
from worldsystem_mesh import kernels_surface as kernels
from worldsystem_mesh.cells import POINTS_PER_SIDE, SurfaceCells
from worldsystem_mesh.extraction import make_tables, starts_of
from worldsystem_mesh.launcher import Launcher

BATCH_BLOCKS = 2048
EDGES = 3 * POINTS_PER_SIDE**3


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
            code, out = kernels.Code(), kernels.Drawing()
            code.vertex_start = _cpu(cells.vertex_start[first : end + 1], wp.int32)
            code.cell_start = _cpu(cells.cell_start[first : end + 1], wp.int32)
            code.edges = _cpu(cells.edges, wp.uint16)
            code.shares = _cpu(cells.shares, wp.uint16)
            code.cells = _cpu(cells.cells, wp.uint16)
            code.cases = _cpu(cells.cases, wp.uint8)
            out.voxel = voxel
            out.index = _cpu(cells.index[first:end], wp.int32)
            out.face_start = _cpu(starts[first:end], wp.int32)
            out.vertex_of_edge = wp.empty((end - first, EDGES), dtype=wp.int16, device="cpu")
            out.vertices, out.faces = _cpu(vertices, wp.float32), _cpu(faces, wp.int32)
            inputs = [self._tables, code, out]
            self._launcher.sliced(kernels.draw_surface, end - first, inputs)
        return vertices, faces, starts


class BlockMeshes(Sequence[MeshBlock]):
    """Meshes of blocks that are drawn when the first is looked at; read-only, for any thread."""

    def __init__(self, drawer: SurfaceDrawer, cells: SurfaceCells, voxel: float) -> None:
        self.cells = cells
        self._drawer = drawer
        self._voxel = voxel
        self._blocks: tuple[MeshBlock, ...] | None = None

    def __len__(self) -> int:
        return len(self.cells)

    @overload
    def __getitem__(self, at: int) -> MeshBlock: ...

    @overload
    def __getitem__(self, at: slice) -> Sequence[MeshBlock]: ...

    def __getitem__(self, at: int | slice) -> MeshBlock | Sequence[MeshBlock]:
        if self._blocks is None:
            self._blocks = self._draw()
        return self._blocks[at]

    def _draw(self) -> tuple[MeshBlock, ...]:
        code = self.cells
        vertices, faces, starts = self._drawer.draw(code, self._voxel)
        for array in (vertices, faces):
            array.flags.writeable = False
        v, c, f = code.vertex_start.tolist(), code.cell_start.tolist(), starts.tolist()
        versions = code.version.tolist()
        return tuple(
            MeshBlock(
                index=(x, y, z),
                version=versions[i],
                vertices=vertices[v[i] : v[i + 1]],
                colours=code.colours[v[i] : v[i + 1]],
                faces=faces[f[i] : f[i + 1]],
                edges=code.edges[v[i] : v[i + 1]],
                shares=code.shares[v[i] : v[i + 1]],
                cells=code.cells[c[i] : c[i + 1]],
                cases=code.cases[c[i] : c[i + 1]],
            )
            for i, (x, y, z) in enumerate(code.index.tolist())
        )


def _cpu(values: Int[np.ndarray, "..."] | Float32[np.ndarray, "..."], dtype: type) -> wp.array:
    return wp.array(values, dtype=dtype, device="cpu", copy=False)
