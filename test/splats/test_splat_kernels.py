# SPDX-License-Identifier: Apache-2.0
"""The compiled loops over splats say what their plain twins say."""

from __future__ import annotations

import numpy as np
import plain_splats
import pytest
from splat_scenes import wall_seen_from

from worldsystem_core.geometry.sim3 import Sim3
from worldsystem_core.splats.sight import Sight, contradictions
from worldsystem_core.splats.world import SplatWorld

SHARES = (0.0, -0.01, 0.01)


def scattered(seed: int, count: int = 4000) -> np.ndarray:
    """Points around a wall three metres away, some behind the camera and beside its picture."""
    rng = np.random.default_rng(seed)
    return rng.normal([0.0, 0.0, 2.0], [2.0, 1.5, 2.0], (count, 3)).astype(np.float32)


@pytest.mark.parametrize("seed", range(3))
def test_verdicts_are_those_of_the_plain_twin(seed):
    sight = Sight.of(wall_seen_from([0.1 * seed, 0, 0.2], seed))
    chunk = Sim3.from_pose(wall_seen_from([0, -0.2 * seed, 0], 9).world_from_cam, 1.1)
    means = scattered(seed)
    found = contradictions(means, chunk, sight)
    expected = plain_splats.verdicts(means, chunk, sight)
    assert {-1, 0, 1} == set(expected.tolist())
    assert (found == expected).mean() > 0.999  # float32 against float64 at a pixel's edge


@pytest.mark.parametrize("seed", range(3))
def test_what_is_shown_already_is_what_the_plain_twin_says(seed):
    world = SplatWorld(voxel=0.05)
    for number in range(3):
        world.add(wall_seen_from([0.3 * number, 0, 0], number))
    coverage = world._coverage
    pose = Sim3.from_pose(wall_seen_from([0.2 * seed, 0.1, 0], 9).world_from_cam)
    means = scattered(seed)
    means[: len(means) // 2, 2] = 2.9  # half of them on the wall
    levels = np.random.default_rng(seed).integers(0, 4, len(means))
    found = coverage.shows(means, pose, levels, SHARES)
    expected = plain_splats.shown(coverage, means, pose, levels, SHARES)
    assert 0.1 < expected.mean() < 0.9
    assert (found == expected).mean() > 0.999
