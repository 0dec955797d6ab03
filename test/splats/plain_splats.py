# SPDX-License-Identifier: Apache-2.0
"""The loops over splats in plain numpy, for tests to compare the compiled ones with."""

from __future__ import annotations

import numpy as np

from worldsystem_core.geometry.se3 import inverse
from worldsystem_core.geometry.sim3 import Sim3
from worldsystem_core.splats.coverage import Coverage
from worldsystem_core.splats.kernels import AGREES, SEEN_THROUGH
from worldsystem_core.splats.sight import Sight


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


def shown(
    coverage: Coverage,
    means: np.ndarray,
    world_from_chunk: Sim3,
    levels: np.ndarray,
    shares: tuple[float, ...],
) -> np.ndarray:
    """Whether the voxel of a point, moved by any of `shares`, is covered by more than half."""
    area = dict(
        zip(coverage._keys.tolist(), (coverage._own + coverage._finer).tolist(), strict=True)
    )
    covered = np.zeros(len(means), bool)
    for share in shares:
        keys = coverage.keys(world_from_chunk.apply(means.astype(float) * (1 + share)), levels)
        faces = (coverage.voxel * 2.0**levels) ** 2
        covered |= [area.get(k, 0.0) > 0.5 * f for k, f in zip(keys.tolist(), faces, strict=True)]
    return covered
