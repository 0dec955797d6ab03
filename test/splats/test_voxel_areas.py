# SPDX-License-Identifier: Apache-2.0
"""The hash of voxels holds what the plain twin counts, however it grew and whatever went."""

from __future__ import annotations

import numpy as np
import plain_splats
import pytest
from scipy.spatial.transform import Rotation

from worldsystem_core.geometry.sim3 import Sim3
from worldsystem_core.splats.coverage import Coverage
from worldsystem_core.splats.voxel_areas import VoxelAreas
from worldsystem_core.splats.voxel_kernels import HALF

VOXEL = 0.05


def splats(seed: int, count: int = 3000) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Keys, levels and areas of splats of all sizes in a room."""
    rng = np.random.default_rng(seed)
    levels = rng.integers(0, 6, count)
    points = rng.uniform(-4.0, 4.0, (count, 3)).astype(np.float32)
    keys = Coverage(VOXEL).keys(points, Sim3.identity(), levels)
    return keys, levels, rng.uniform(0.1, 2.0, count).astype(np.float32) * np.float32(VOXEL**2)


def assert_same(held: dict, expected: dict) -> None:
    assert held.keys() == expected.keys()
    for key, areas in expected.items():
        assert held[key] == pytest.approx(areas, rel=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_keys_are_those_of_the_plain_twin(seed):
    rng = np.random.default_rng(seed)
    means = rng.normal(0.0, 10.0 ** rng.uniform(-2, 6, (2000, 1)), (2000, 3)).astype(np.float32)
    levels = rng.integers(0, 12, len(means))
    place = Sim3(1.3, Rotation.random(random_state=seed).as_matrix(), np.array([0.5, -2.0, 7.0]))
    found = Coverage(VOXEL).keys(means, place, levels)
    expected = plain_splats.keys_of(place.apply(means.astype(float)), levels, VOXEL)
    assert (found == expected).mean() > 0.999  # a point on a voxel's face may be in either
    assert len(np.unique(found)) > 1000


def test_a_point_beyond_the_lattice_lies_in_its_last_voxel():
    far = np.array([[1e9, -1e9, 0.0]], np.float32)
    (key,) = Coverage(VOXEL).keys(far, Sim3.identity(), np.zeros(1, np.int64))
    assert key == plain_splats.packed(0, [HALF - 1, -HALF, 0])


@pytest.mark.parametrize("at_once", [1, 7, 4000])
def test_areas_are_those_of_the_plain_twin(at_once):
    """Also after the hash has grown some times, and in whatever portions splats come."""
    keys, levels, area = splats(0)
    areas = VoxelAreas(0.0)
    for first in range(0, len(keys), at_once):
        part = slice(first, first + at_once)
        areas.add(keys[part], levels[part], area[part])
    assert len(areas.keys) > 1 << 12
    assert_same(plain_splats.held_areas(areas), plain_splats.areas_of(keys, levels, area))


def test_what_finer_splats_cover_is_found_by_key():
    keys, levels, area = splats(1)
    areas = VoxelAreas(0.0)
    areas.add(keys, levels, area)
    expected = plain_splats.areas_of(keys, levels, area)
    others, _, _ = splats(2)
    asked = np.concatenate([keys, others])
    wanted = [expected.get(key, (0.0, 0.0))[1] for key in asked.tolist()]
    np.testing.assert_allclose(areas.finer_at(asked), wanted, rtol=1e-4)


def test_voxels_that_nothing_counts_for_any_more_make_room():
    """A room that is walked through again and again, each time elsewhere, grows no hash."""
    areas = VoxelAreas(1e-3 * VOXEL**2)
    sizes = []
    for seed in range(12):
        keys, levels, area = splats(seed)
        areas.add(keys, levels, area)
        sizes.append(areas.bytes)
        areas.add(keys, levels, -area)
    assert max(sizes) <= 2 * sizes[0]
    keys, levels, area = splats(99)
    areas.add(keys, levels, area)
    held, expected = plain_splats.held_areas(areas), plain_splats.areas_of(keys, levels, area)
    for key, wanted in expected.items():
        assert held[key] == pytest.approx(wanted, rel=1e-3, abs=1e-4 * VOXEL**2)
    for key in held.keys() - expected.keys():
        assert held[key] == pytest.approx((0.0, 0.0), abs=1e-3 * VOXEL**2)
