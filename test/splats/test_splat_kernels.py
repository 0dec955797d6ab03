# SPDX-License-Identifier: Apache-2.0
"""The compiled loops over splats say what their plain twins say."""

from __future__ import annotations

import numpy as np
import plain_splats
import pytest
from splat_scenes import wall_seen_from

from worldsystem_core.geometry.sim3 import Sim3
from worldsystem_core.splats.chunk import Chunk
from worldsystem_core.splats.gaussians import Gaussians
from worldsystem_core.splats.sight import Sight, cast_doubt
from worldsystem_core.splats.world import SplatWorld

SHARES = (0.0, -0.01, 0.01)


def scattered(seed: int, count: int = 4000) -> np.ndarray:
    """Points around a wall three metres away, some behind the camera and beside its picture."""
    rng = np.random.default_rng(seed)
    return rng.normal([0.0, 0.0, 2.0], [2.0, 1.5, 2.0], (count, 3)).astype(np.float32)


def chunk_of(means: np.ndarray, place: Sim3, doubts: np.ndarray) -> Chunk:
    """A chunk whose splats are nothing but where they are, and what is thought of them."""
    count = len(means)
    gaussians = Gaussians(
        means=means,
        scales=np.full((count, 3), 0.01, np.float32),
        rotations=np.tile(np.array([1, 0, 0, 0], np.float32), (count, 1)),
        rgb=np.zeros((count, 3), np.float32),
        opacities=np.ones(count, np.float32),
    )
    chunk = Chunk.uncounted(0, place, gaussians, 1.0)
    chunk.doubts = doubts.copy()
    return chunk


@pytest.mark.parametrize("seed", range(3))
def test_doubts_are_counted_as_the_plain_twins_verdicts_say(seed):
    sight = Sight.of(wall_seen_from([0.1 * seed, 0, 0.2], seed))
    rng = np.random.default_rng(seed)
    chunks = []
    for number in range(4):
        pose = wall_seen_from([0.3 * number, -0.2 * seed, 0], 9).world_from_cam
        place = Sim3.from_pose(pose, 0.8 + 0.1 * number)
        before = rng.integers(0, 4, 4000).astype(np.uint8)
        chunks.append(chunk_of(scattered(10 * seed + number), place, before))
    doubts = [chunk.doubts.copy() for chunk in chunks]
    counts = cast_doubt(chunks, sight, 3)
    for chunk, before, count in zip(chunks, doubts, counts, strict=True):
        said = plain_splats.verdicts(chunk.gaussians.means, chunk.world_from_chunk, sight)
        assert set(said.tolist()) == {-1, 0, 1}
        expected = np.where(said < 0, 0, np.minimum(before + (said > 0), 3))
        assert (chunk.doubts == expected).mean() > 0.999  # float32 at a pixel's edge
        assert count == (chunk.doubts >= 3).sum()


@pytest.mark.parametrize("seed", range(40))
def test_no_chunk_of_which_a_splat_is_in_the_picture_is_left_out(seed):
    """Small chunks all around the camera, many of them just beside the picture."""
    sight = Sight.of(wall_seen_from([0.0, 0, 0.2], 1))
    rng = np.random.default_rng(seed)
    middle = rng.normal([0.0, 0.0, 1.0], [2.0, 1.5, 1.5])
    means = (middle + rng.normal(0.0, rng.uniform(0.01, 0.5), (200, 3))).astype(np.float32)
    place = Sim3.from_pose(wall_seen_from([0.3, 0.1, 0], 9).world_from_cam, rng.uniform(0.2, 3.0))
    chunk = chunk_of(means, place, np.zeros(200, np.uint8))
    cast_doubt([chunk], sight, 2)
    said = plain_splats.verdicts(means, place, sight)
    assert np.array_equal(chunk.doubts > 0, said > 0)


def test_a_chunk_beside_the_picture_or_without_splats_costs_nothing_and_says_nothing():
    sight = Sight.of(wall_seen_from([0.0, 0, 0.2], 1))
    means = scattered(0)
    far = Sim3(1.0, np.eye(3), np.array([500.0, 0.0, 0.0]))
    full = np.full(len(means), 7, np.uint8)
    beside, none = chunk_of(means, far, full), chunk_of(means[:0], far, full[:0])
    assert cast_doubt([beside, none], sight, 2) == [0, 0]
    assert np.array_equal(beside.doubts, full)
    assert cast_doubt([], sight, 2) == []


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
