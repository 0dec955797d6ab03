# SPDX-License-Identifier: Apache-2.0
"""The surface at one moment, drawn and welded when and where somebody has the time for it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from worldsystem_core.surface import Mesh
from worldsystem_mesh.cells import SurfaceCells
from worldsystem_mesh.drawing import SurfaceDrawer
from worldsystem_mesh.weld import weld, without_crumbs


@dataclass(frozen=True, eq=False)
class SurfaceSnapshot:
    """The code of the whole surface, which later changes do not touch; for any thread."""

    drawer: SurfaceDrawer
    cells: SurfaceCells
    voxel: float

    @property
    def face_count(self) -> int:
        """Faces of `mesh`."""
        return int(self.cells.face_counts.sum())

    @property
    def vertex_count(self) -> int:
        """Vertices of all blocks; those on a rim are in several, and `mesh` has them once."""
        return len(self.cells.edges)

    def mesh(self, *, min_component_faces: int = 0) -> Mesh:
        """The whole surface, welded across blocks.

        Connected pieces of fewer than `min_component_faces` faces are left out.
        """
        cells = self.cells
        vertices, faces, _ = self.drawer.draw(cells, self.voxel)
        faces += np.repeat(cells.vertex_start[:-1], cells.face_counts)[:, None]
        mesh = Mesh(vertices=vertices, colours=cells.colours, faces=faces)
        return without_crumbs(weld(mesh), min_component_faces)
