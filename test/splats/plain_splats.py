# SPDX-License-Identifier: Apache-2.0
"""The loops over splats in plain numpy, for tests to compare the compiled ones with."""

from __future__ import annotations

import numpy as np

from worldsystem_core.geometry.se3 import inverse
from worldsystem_core.geometry.sim3 import Sim3
from worldsystem_core.splats.colours import CLOSED, ROUNDED
from worldsystem_core.splats.coverage import Coverage
from worldsystem_core.splats.kernels import AGREES, SEEN_THROUGH
from worldsystem_core.splats.projection import BLUR_PX2, LEAST_ALPHA, MOST_ALPHA
from worldsystem_core.splats.sight import Sight
from worldsystem_core.splats.voxel_areas import VoxelAreas
from worldsystem_core.splats.voxel_kernels import BITS, EMPTY, HALF, LEVELS


def verdicts(means: np.ndarray, world_from_chunk: Sim3, sight: Sight) -> np.ndarray:
    """1 where the keyframe sees through a point, -1 where it confirms it, else 0."""
    keyframe, camera = sight.keyframe, sight.keyframe.camera
    points = (Sim3.from_pose(inverse(keyframe.world_from_cam)) @ world_from_chunk).apply(means)
    x, y, z = points.T
    before = z > 1e-6
    safe = np.where(before, z, 1.0)
    u, v = camera.fx * x / safe + camera.cx, camera.fy * y / safe + camera.cy
    inside = before & (u > -0.5) & (u < camera.width - 0.5) & (v > -0.5) & (v < camera.height - 0.5)
    column = np.clip(np.rint(np.where(inside, u, 0)).astype(int), 0, camera.width - 1)
    row = np.clip(np.rint(np.where(inside, v, 0)).astype(int), 0, camera.height - 1)
    found = np.zeros(len(means), np.int8)
    found[inside & (z < SEEN_THROUGH * sight.nearest[row, column])] = 1
    found[inside & (np.abs(z - sight.depth[row, column]) < AGREES * z)] = -1
    return found


def keys_of(points: np.ndarray, levels: np.ndarray, voxel: float) -> list[int]:
    """The key of each point's voxel: level, x, y and z, one after the other in its bits."""
    keys = []
    for point, level in zip(points, levels.tolist(), strict=True):
        cells = np.floor(point / (voxel * 2.0**level)).astype(int)
        keys.append(packed(level, np.clip(cells, -HALF, HALF - 1).tolist()))
    return keys


def packed(level: int, cells: list[int]) -> int:
    x, y, z = (cell + HALF for cell in cells)
    return ((level << BITS | x) << BITS | y) << BITS | z


def areas_of(
    keys: np.ndarray, levels: np.ndarray, area: np.ndarray
) -> dict[int, tuple[float, float]]:
    """Area in each voxel: of splats of its level, and of finer ones."""
    found: dict[int, tuple[float, float]] = {}
    for key, level, size in zip(keys.tolist(), levels.tolist(), area.tolist(), strict=True):
        cells = [(key >> place * BITS) % (2 * HALF) - HALF for place in (2, 1, 0)]
        for above in range(LEVELS - level):
            around = packed(level + above, [cell // 2**above for cell in cells])
            own, finer = found.get(around, (0.0, 0.0))
            found[around] = (own, finer + size) if above else (own + size, finer)
    return found


def held_areas(areas: VoxelAreas) -> dict[int, tuple[float, float]]:
    """What the hash holds."""
    rows = np.flatnonzero(areas.keys != EMPTY)
    columns = (column[rows].tolist() for column in (areas.keys, areas.own, areas.finer))
    return {key: (own, finer) for key, own, finer in zip(*columns, strict=True)}


def shown(
    coverage: Coverage,
    means: np.ndarray,
    world_from_chunk: Sim3,
    levels: np.ndarray,
    shares: tuple[float, ...],
) -> np.ndarray:
    """Whether the voxel of a point, moved by any of `shares`, is covered by more than half."""
    area = {key: own + finer for key, (own, finer) in held_areas(coverage.areas).items()}
    covered = np.zeros(len(means), bool)
    for share in shares:
        points = world_from_chunk.apply(means.astype(float) * (1 + share))
        faces = (coverage.voxel * 2.0**levels) ** 2
        keys = keys_of(points, levels, coverage.voxel)
        covered |= [area.get(key, 0.0) > 0.5 * f for key, f in zip(keys, faces, strict=True)]
    return covered


def shares_at(
    depth: np.ndarray, opacity: np.ndarray, width: float, row: int, column: int, sample: int
) -> dict[tuple[int, int], float]:
    """What the discs around a pixel show of themselves at one of its four samples, from the
    definition: Gaussians blended nearest first, of equally near ones that of the lower number."""
    offset = np.array([row, column]) + (np.array([sample // 2, sample % 2]) - 0.5) / 2
    rows = range(max(row - 1, 0), min(row + 2, depth.shape[0]))
    columns = range(max(column - 1, 0), min(column + 2, depth.shape[1]))
    discs = sorted((depth[r, c], r, c) for r in rows for c in columns)
    through, found = 1.0, {}
    for _, r, c in discs:
        squared = ((offset - [r, c]) ** 2).sum()
        weight = np.exp(-0.5 * squared / (width**2 + BLUR_PX2 / 4))
        alpha = min(MOST_ALPHA, opacity[r, c] * weight) if weight > LEAST_ALPHA else 0.0
        found[r, c] = through * alpha
        through *= 1 - alpha
    return found


def prefiltered_plainly(
    wanted: np.ndarray,
    rgb: np.ndarray,
    depth: np.ndarray,
    opacity: np.ndarray,
    width: float,
    steps: tuple[float, ...],
) -> np.ndarray:
    """Colours in [0, 1] of all discs, by the full matrix from discs to samples."""
    height, wide = depth.shape
    blend = np.zeros((4 * height * wide, height * wide))
    for at in range(len(blend)):
        y, x = divmod(at, 2 * wide)
        sample = 2 * (y % 2) + x % 2
        for (r, c), share in shares_at(depth, opacity, width, y // 2, x // 2, sample).items():
            blend[at, r * wide + c] = share
    dim = np.minimum(1, blend.sum(axis=1) / CLOSED)[:, None]
    colours = rgb.reshape(-1, 3).astype(float)
    shown = np.maximum(blend.sum(axis=0), 0.05)[:, None]
    for step in steps:
        wrong = dim * wanted.reshape(-1, 3) - blend @ colours
        colours = np.clip(colours + step * (blend.T @ wrong) / shown, 0, 255)
    own = rgb.reshape(-1, 3).astype(float)
    colours = np.clip(own + ROUNDED * np.round((colours - own) / ROUNDED), 0, 255)
    return colours.reshape(height, wide, 3) / 255
