# SPDX-License-Identifier: Apache-2.0
"""What a method of meshing is given, and what it gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Float32, UInt8

from worldsystem_core.surface import Mesh


@dataclass(frozen=True, kw_only=True, eq=False)
class RegionPoints:
    """Fused points of a region and its overlap, [voxels] about the region's lowest corner.

    `normals` are of unit length and point out of the surface, to where the camera was. `surface` is
    the mesh of the region that the points are the vertices of, where there is one.
    """

    points: Float32[np.ndarray, "n 3"]
    normals: Float32[np.ndarray, "n 3"]
    colours: UInt8[np.ndarray, "n 3"]
    surface: Mesh

    def __len__(self) -> int:
        return len(self.points)


class RegionMethod(Protocol):
    """Meshes one region; the result is in the frame and unit of its points."""

    name: str

    def mesh(self, region: RegionPoints) -> Mesh:
        """The surface; empty where the method finds none, which is no error."""
        ...

    def missing(self) -> str:
        """Why the method cannot run on this machine; empty when it can."""
        ...
