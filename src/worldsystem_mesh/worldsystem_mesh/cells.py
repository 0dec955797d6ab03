# SPDX-License-Identifier: Apache-2.0
"""The surface of many blocks as its code, in columns: what the mesher keeps and sends.

A crossed cell has its marching-cubes case, a vertex its lattice edge, its share of that edge and
its colour; triangles follow from the table. About 10 bytes a vertex instead of 39.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Int, Int32

from worldsystem_core.mesh_code import cells as mesh_code
from worldsystem_mesh.pieces import ranges

POINTS_PER_SIDE = mesh_code.POINTS
SHARE_STEPS = float(mesh_code.SHARE_UNITS)


@dataclass(frozen=True, kw_only=True, eq=False)
class SurfaceCells(mesh_code.SurfaceCells):
    """Code of the surface of `b` blocks, and how many triangles each has: what its cases add up
    to."""

    face_counts: Int32[np.ndarray, "b"]

    @property
    def bytes(self) -> int:
        """Memory that the columns take."""
        return sum(int(getattr(self, field.name).nbytes) for field in fields(self))

    def taken(self, chosen: Int[np.ndarray, "n"]) -> SurfaceCells:
        """The code of some of the blocks, in the order asked for; not copied when only blocks
        without a surface are left out."""
        of_vertices, vertex_start = ranges(self.vertex_start, chosen)
        of_cells, cell_start = ranges(self.cell_start, chosen)
        return SurfaceCells(
            index=self.index[chosen],
            version=self.version[chosen],
            vertex_start=vertex_start,
            cell_start=cell_start,
            face_counts=self.face_counts[chosen],
            edges=of_vertices.of(self.edges),
            shares=of_vertices.of(self.shares),
            colours=of_vertices.of(self.colours),
            cells=of_cells.of(self.cells),
            cases=of_cells.of(self.cases),
        )


def joined(parts: Sequence[SurfaceCells]) -> SurfaceCells:
    """Codes one after the other; no parts give no blocks."""
    if len(parts) == 1:
        return parts[0]
    if not parts:
        return NO_CELLS
    starts = {}
    for name in ("vertex_start", "cell_start"):
        ends = np.cumsum([0] + [int(getattr(part, name)[-1]) for part in parts])
        pieces = [
            getattr(part, name)[:-1] + np.int32(at)
            for part, at in zip(parts, ends[:-1], strict=True)
        ]
        starts[name] = np.concatenate([*pieces, ends[-1:]]).astype(np.int32)
    columns = {
        field.name: np.concatenate([getattr(part, field.name) for part in parts])
        for field in fields(SurfaceCells)
        if field.name not in starts
    }
    return SurfaceCells(**starts, **columns)


NO_CELLS = SurfaceCells(
    index=np.zeros((0, 3), np.int32),
    version=np.zeros(0, np.int32),
    vertex_start=np.zeros(1, np.int32),
    cell_start=np.zeros(1, np.int32),
    face_counts=np.zeros(0, np.int32),
    edges=np.zeros(0, np.uint16),
    shares=np.zeros(0, np.uint16),
    colours=np.zeros((0, 3), np.uint8),
    cells=np.zeros(0, np.uint16),
    cases=np.zeros(0, np.uint8),
)
