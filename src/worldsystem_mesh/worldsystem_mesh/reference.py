# SPDX-License-Identifier: Apache-2.0
"""The kernels once more, voxel by voxel in plain Python: slow, obvious, and what tests trust.

Lengths are in voxels, in 64-bit floats; the kernels use 32 bits, so a voxel that projects onto
the border of two pixels may take the other one, and a rounding by chance may go the other way.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
from jaxtyping import Float64, Int32, UInt16, UInt32

from worldsystem_core.reconstruction import Keyframe
from worldsystem_core.surface import BlockIndex
from worldsystem_mesh.cells import SurfaceCells
from worldsystem_mesh.kernels_emission import SHARE_MARGIN, SHARE_STEPS
from worldsystem_mesh.kernels_rays import FARTHEST_VOXELS
from worldsystem_mesh.kernels_volume import (
    COLOUR_CHANGE,
    COLOUR_MEMORY,
    FAR_BUT_KNOWN,
    SDF_UNITS,
    WEIGHT_UNITS,
)
from worldsystem_mesh.pieces import Pieces
from worldsystem_mesh.tables import EDGES, case_triangles
from worldsystem_mesh.view import StoredView

Point = tuple[int, int, int]
Position = tuple[float, float, float]


@dataclass
class Voxel:
    """Means over the observations of one lattice point, as integers."""

    sdf: int = 0
    weight: int = 0
    rgb: tuple[int, int, int] = (0, 0, 0)


@dataclass(frozen=True)
class Rules:
    """Weights in `WEIGHT_UNITS`; `watched` in steps of distance."""

    min_weight: int
    max_weight: int
    watched: int


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

    def depth(self, v: int, u: int) -> float:
        return float(self.view.depth[v, u]) * self.view.depth_step / self.voxel

    def band(self, depth: float) -> float:
        """Twin of `kernels_volume.band`."""
        return min(max(self.depth_noise * depth, self.truncation), 16.0)

    def rays(self, stride: int) -> Iterator[tuple[float, Float64[np.ndarray, "3"]]]:
        """Depth and world direction (of unit depth) of every known pixel on a grid that is not too
        far away."""
        height, width = self.view.depth.shape
        camera = self.view.camera
        for v, u in product(range(0, height, stride), range(0, width, stride)):
            if 0 < (depth := self.depth(v, u)) <= FARTHEST_VOXELS:
                ray = np.array([(u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy, 1.0])
                yield depth, self.view.world_from_cam[:3, :3] @ ray


def compacted(
    keyframe: Keyframe, farthest: float, least_confidence: float
) -> tuple[UInt16[np.ndarray, "h w"], UInt32[np.ndarray, "h w"]]:
    """Twin of `kernels_view.compact_pixels`."""
    height, width = keyframe.confidence.shape
    depth, paint = np.zeros((height, width), np.uint16), np.zeros((height, width), np.uint32)
    for v, u in product(range(height), range(width)):
        z, trust = float(keyframe.pointmap[v, u, 2]), float(keyframe.confidence[v, u])
        level = 0
        if 0 < z <= farthest and least_confidence <= trust < np.inf:
            depth[v, u] = min(int(z * 65535 / farthest + 0.5), 65535)
            level = int(min(trust, 1.0) * 255 + 0.5)
        r, g, b = (int(shade) for shade in keyframe.rgb[v, u])
        paint[v, u] = r | g << 8 | b << 16 | level << 24
    return depth, paint


def block_of(point: Float64[np.ndarray, "3"]) -> BlockIndex:
    """Block that holds a place in the lattice."""
    x, y, z = (int(i) for i in np.floor(point / 8.0))
    return x, y, z


def band_blocks(camera: Camera, stride: int) -> set[BlockIndex]:
    """Twin of `kernels_rays.touch_band`: blocks within the band along every ray."""
    blocks = set()
    for depth, ray in camera.rays(stride):
        half = camera.band(depth)
        for z in np.arange(depth - half, depth + half + 4.0, 4.0):
            blocks.add(block_of(camera.position + min(z, depth + half) * ray))
    return blocks


def free_space_blocks(camera: Camera, stride: int) -> set[BlockIndex]:
    """Twin of `kernels_rays.touch_free_space`, without asking whether the blocks exist."""
    blocks = set()
    for depth, ray in camera.rays(stride):
        for z in np.arange(4.0, depth - camera.band(depth), 4.0):
            blocks.add(block_of(camera.position + z * ray))
    return blocks


def fuse(
    voxels: dict[Point, Voxel], blocks: Iterable[BlockIndex], camera: Camera, rules: Rules
) -> dict[BlockIndex, int]:
    """Twin of `kernels_fusion.fuse_views` for one view: by how many steps each block moved."""
    moves = {}
    for block in blocks:
        moves[block] = 0
        for z, y in product(range(8), repeat=2):
            seed = row_seed((camera.view.id * 2654435761 + 97) & MASK, block, z * 8 + y)
            for x in range(8):
                point = (8 * block[0] + x, 8 * block[1] + y, 8 * block[2] + z)
                voxel = voxels.setdefault(point, Voxel())
                move = _observe(voxel, point, camera, rules, dither_bits(seed, x))
                moves[block] = max(moves[block], move)
    return moves


MASK = 0xFFFFFFFF


def row_seed(seed: int, block: BlockIndex, row: int) -> int:
    """Twin of `kernels_fusion.row_seed`."""
    h = seed ^ (block[0] * 0x1E3779B1 & MASK) ^ (block[1] * 0x45EBCA77 & MASK)
    h = ((h ^ (block[2] * 0x62B2AE3D & MASK)) + row) & MASK
    h = (h ^ (h >> 16)) * 0x7FEB352D & MASK
    h = (h ^ (h >> 15)) * 0x46CA68B5 & MASK
    return h ^ (h >> 16)


def dither_bits(seed: int, x: int) -> int:
    """Random bits of the row's voxel `x`."""
    bits = (seed + x * 0x9E3779B9) * 0x7FEB352D & MASK
    return bits ^ (bits >> 15)


def _observe(voxel: Voxel, point: Point, camera: Camera, rules: Rules, bits: int) -> int:
    """Twin of `kernels_fusion.fuse_row` for one voxel: by how many steps it moved."""
    view, pinhole = camera.view, camera.view.camera
    x, y, z = view.world_from_cam[:3, :3].T @ (np.array(point) - camera.position)
    if z <= 1.0:
        return 0
    u = int(np.floor(pinhole.fx * x / z + pinhole.cx + 0.5))
    v = int(np.floor(pinhole.fy * y / z + pinhole.cy + 0.5))
    if not (0 <= u < pinhole.width and 0 <= v < pinhole.height):
        return 0
    depth = camera.depth(v, u)
    half = camera.band(depth)
    sdf = depth - z
    if depth <= 0 or sdf <= -half:
        return 0
    trust = min(4 * (1 + sdf / half), 1)
    weight = int(
        np.floor(int(view.confidence[v, u]) * WEIGHT_UNITS / 255 * trust + (bits >> 16) / 65536)
    )
    if weight <= 0:
        return 0
    dither, held, old = (bits & 0xFFFF) / 65536, voxel.weight, voxel.sdf
    share = weight / (held + weight)
    voxel.sdf += int(np.floor((min(sdf, half) * SDF_UNITS - old) * share + dither))
    voxel.weight = min(held + weight, rules.max_weight)
    move = move_of(held, voxel.weight, old, voxel.sdf, rules)
    if sdf < half:
        part = weight / (COLOUR_MEMORY + weight) if held > COLOUR_MEMORY else share
        change = blend_colour(voxel, view.rgb[v, u].astype(int), part, dither)
        if voxel.weight >= rules.min_weight and voxel.sdf > -rules.watched:
            move = max(move, COLOUR_CHANGE * change)
    return move


def move_of(held: int, total: int, old: int, new: int, rules: Rules) -> int:
    """Twin of `kernels_fusion.move_of`."""
    if total < rules.min_weight:
        return 0
    if held < rules.min_weight:
        return int(SDF_UNITS) if abs(new) < rules.watched else FAR_BUT_KNOWN
    if min(abs(new), abs(old)) >= rules.watched and (new < 0) == (old < 0):
        return 0
    return abs(new - old)


def blend_colour(voxel: Voxel, seen: Int32[np.ndarray, "3"], share: float, dither: float) -> int:
    """Twin of `kernels_fusion.blended`."""
    old = np.array(voxel.rgb)
    part = share if old.any() else 1.0
    new = old + np.floor((seen - old) * part + dither).astype(int)
    new[2] = max(new[2], 1)
    voxel.rgb = (int(new[0]), int(new[1]), int(new[2]))
    return int(np.abs(new - old).max())


def dirty_blocks(changed: set[BlockIndex], existing: set[BlockIndex]) -> set[BlockIndex]:
    """Twin of `kernels_changes.draw_again`: changed blocks and their seven lower neighbours."""
    lower = {
        (x - dx, y - dy, z - dz) for x, y, z in changed for dx, dy, dz in product((0, 1), repeat=3)
    }
    return lower & existing


def surface(
    voxels: dict[Point, Voxel], blocks: Iterable[BlockIndex], min_weight: int
) -> dict[BlockIndex, list[tuple[Position, Position, Position]]]:
    """Twin of `kernels_surface`: triangles [voxels] of each block's cells."""
    known = {point: voxel.sdf or 1 for point, voxel in voxels.items() if voxel.weight >= min_weight}
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
    corners: list[Point], sdf: dict[Point, int]
) -> list[tuple[Position, Position, Position]]:
    case = sum(1 << c for c, corner in enumerate(corners) if sdf[corner] < 0)
    at = [_crossing(corners[low], corners[high], sdf) for low, high in EDGES]
    return [(at[a], at[b], at[c]) for a, b, c in case_triangles()[case]]


def _crossing(low: Point, high: Point, sdf: dict[Point, int]) -> Position:
    if (sdf[low] < 0) == (sdf[high] < 0):
        return (np.nan, np.nan, np.nan)
    exact = sdf[low] / (sdf[low] - sdf[high]) * SHARE_STEPS
    steps = min(max(np.floor(exact + 0.5), SHARE_MARGIN), SHARE_STEPS - SHARE_MARGIN)
    share = steps / SHARE_STEPS
    x, y, z = (a + (b - a) * share for a, b in zip(low, high, strict=True))
    return x, y, z


def drawn(cells: SurfaceCells) -> list[tuple[Position, Position, Position]]:
    """Twin of `kernels_drawing.draw_surface`: triangles [voxels] of all blocks of a code."""
    triangles = []
    for i, (bx, by, bz) in enumerate(cells.index.tolist()):
        v0, v1 = cells.vertex_start[i : i + 2]
        place = {}
        for edge, share in zip(cells.edges[v0:v1].tolist(), cells.shares[v0:v1], strict=True):
            point, axis = divmod(edge, 3)
            at = [8.0 * bx + point % 9, 8.0 * by + point // 9 % 9, 8.0 * bz + point // 81]
            at[axis] += share / SHARE_STEPS
            place[edge] = (at[0], at[1], at[2])
        c0, c1 = cells.cell_start[i : i + 2]
        for cell, case in zip(cells.cells[c0:c1].tolist(), cells.cases[c0:c1], strict=True):
            for triangle in case_triangles()[case]:
                a, b, c = (place[_edge_number(cell, edge)] for edge in triangle)
                triangles.append((a, b, c))
    return triangles


def copied_pieces(column: np.ndarray, pieces: Pieces) -> np.ndarray:
    """The rows of all pieces, one by one."""
    bounds = zip(pieces.first.tolist(), pieces.last.tolist(), strict=True)
    return column[[row for first, last in bounds for row in range(first, last)]]


def _edge_number(cell: int, edge: int) -> int:
    low, high = EDGES[edge]
    point = cell + (low & 1) + 9 * (low >> 1 & 1) + 81 * (low >> 2)
    return 3 * point + (low ^ high).bit_length() - 1
