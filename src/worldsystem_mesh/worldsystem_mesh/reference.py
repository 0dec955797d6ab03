# SPDX-License-Identifier: Apache-2.0
"""The kernels once more, voxel by voxel in plain Python: slow, obvious, and what tests trust.

Lengths are in voxels, in 64-bit floats; the kernels use 32 bits, so a voxel that projects onto
the border of two pixels may take the other one. All else agrees.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import product

import numpy as np
from jaxtyping import Float64

from worldsystem_core.surface import BlockIndex
from worldsystem_mesh.kernels_surface import EDGE_MARGIN
from worldsystem_mesh.kernels_volume import SDF_UNITS
from worldsystem_mesh.tables import EDGES, case_triangles
from worldsystem_mesh.view import StoredView

Point = tuple[int, int, int]
Position = tuple[float, float, float]


@dataclass
class Voxel:
    """Integer sums over the observations of one lattice point."""

    sdf_sum: int = 0
    weight: int = 0
    colour_sum: list[int] = field(default_factory=lambda: [0, 0, 0])
    colour_weight: int = 0

    @property
    def sdf(self) -> float:
        return self.sdf_sum / (self.weight * SDF_UNITS)


@dataclass(frozen=True)
class Camera:
    """A view's camera in voxel units, and its truncation band."""

    view: StoredView
    voxel: float
    truncation: float
    depth_noise: float

    @property
    def position(self) -> Float64[np.ndarray, "3"]:
        return np.asarray(self.view.world_from_cam[:3, 3] / self.voxel)

    def band(self, depth: float) -> float:
        """Twin of `kernels_volume.band`."""
        return min(max(self.depth_noise * depth, self.truncation), 16.0)

    def rays(self, stride: int) -> Iterator[tuple[float, Float64[np.ndarray, "3"]]]:
        """Depth and world direction (of unit depth) of every known pixel on a grid."""
        height, width = self.view.depth_voxels.shape
        camera = self.view.camera
        for v, u in product(range(0, height, stride), range(0, width, stride)):
            depth = float(self.view.depth_voxels[v, u])
            if depth > 0:
                ray = np.array([(u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy, 1.0])
                yield depth, self.view.world_from_cam[:3, :3] @ ray


def block_of(point: Float64[np.ndarray, "3"]) -> BlockIndex:
    """Block that holds a place in the lattice."""
    x, y, z = (int(i) for i in np.floor(point / 8.0))
    return x, y, z


def band_blocks(camera: Camera, stride: int) -> set[BlockIndex]:
    """Twin of `kernels_volume.touch_band`: blocks within the band along every ray."""
    blocks = set()
    for depth, ray in camera.rays(stride):
        half = camera.band(depth)
        for z in np.arange(depth - half, depth + half + 4.0, 4.0):
            blocks.add(block_of(camera.position + min(z, depth + half) * ray))
    return blocks


def free_space_blocks(camera: Camera, stride: int) -> set[BlockIndex]:
    """Twin of `kernels_volume.touch_free_space`, without asking whether the blocks exist."""
    blocks = set()
    for depth, ray in camera.rays(stride):
        for z in np.arange(4.0, depth - camera.band(depth), 4.0):
            blocks.add(block_of(camera.position + z * ray))
    return blocks


def fuse(voxels: dict[Point, Voxel], blocks: Iterable[BlockIndex], camera: Camera) -> None:
    """Twin of `kernels_volume.fuse_rows` with sign +1; no voxel may reach the weight limit."""
    for block in blocks:
        for offset in product(range(8), repeat=3):
            point = (8 * block[0] + offset[0], 8 * block[1] + offset[1], 8 * block[2] + offset[2])
            _observe(voxels.setdefault(point, Voxel()), point, camera)


def _observe(voxel: Voxel, point: Point, camera: Camera) -> None:
    view, pinhole = camera.view, camera.view.camera
    x, y, z = view.world_from_cam[:3, :3].T @ (np.array(point) - camera.position)
    if z <= 1.0:
        return
    u = int(np.floor(pinhole.fx * x / z + pinhole.cx + 0.5))
    v = int(np.floor(pinhole.fy * y / z + pinhole.cy + 0.5))
    if not (0 <= u < pinhole.width and 0 <= v < pinhole.height):
        return
    depth = float(view.depth_voxels[v, u])
    half = camera.band(depth)
    sdf = depth - z
    if depth <= 0 or sdf <= -half:
        return
    weight = int(float(view.confidence[v, u]) * min(2 * (1 + sdf / half), 1) + 0.5)
    voxel.sdf_sum += weight * int(np.floor(min(sdf, half) * SDF_UNITS + 0.5))
    voxel.weight += weight
    if sdf < half:
        voxel.colour_weight += weight
        for channel in range(3):
            voxel.colour_sum[channel] += weight * int(view.rgb[v, u, channel])


def dirty_blocks(changed: set[BlockIndex], existing: set[BlockIndex]) -> set[BlockIndex]:
    """Twin of `kernels_volume.mark_dirty`: changed blocks and their seven lower neighbours."""
    lower = {
        (x - dx, y - dy, z - dz) for x, y, z in changed for dx, dy, dz in product((0, 1), repeat=3)
    }
    return lower & existing


def surface(
    voxels: dict[Point, Voxel], blocks: Iterable[BlockIndex], min_weight: int
) -> dict[BlockIndex, list[tuple[Position, Position, Position]]]:
    """Twin of `kernels_surface`: triangles [voxels] of each block's cells."""
    known = {point: voxel.sdf for point, voxel in voxels.items() if voxel.weight >= min_weight}
    triangles: dict[BlockIndex, list[tuple[Position, Position, Position]]] = {}
    for block in blocks:
        triangles[block] = []
        for dz, dy, dx in product(range(8), repeat=3):
            cell = (8 * block[0] + dx, 8 * block[1] + dy, 8 * block[2] + dz)
            corners = [
                (cell[0] + (c & 1), cell[1] + (c >> 1 & 1), cell[2] + (c >> 2)) for c in range(8)
            ]
            if all(corner in known for corner in corners):
                triangles[block] += _cell_triangles(corners, known)
    return triangles


def _cell_triangles(
    corners: list[Point], sdf: dict[Point, float]
) -> list[tuple[Position, Position, Position]]:
    case = sum(1 << c for c, corner in enumerate(corners) if sdf[corner] < 0)
    at = [_crossing(corners[low], corners[high], sdf) for low, high in EDGES]
    return [(at[a], at[b], at[c]) for a, b, c in case_triangles()[case]]


def _crossing(low: Point, high: Point, sdf: dict[Point, float]) -> Position:
    if (sdf[low] < 0) == (sdf[high] < 0):
        return (np.nan, np.nan, np.nan)
    share = min(max(sdf[low] / (sdf[low] - sdf[high]), EDGE_MARGIN), 1.0 - EDGE_MARGIN)
    x, y, z = (a + (b - a) * share for a, b in zip(low, high, strict=True))
    return x, y, z
