# SPDX-License-Identifier: Apache-2.0
"""The compiled loops behind ground, planes, numbered pixels and tracks against their twins."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import plain_geometry as plain
import plain_tracks
import pytest
from segment_scenes import ROOM_EYE, room

from worldsystem_segment.config import SegmentConfig
from worldsystem_segment.geometric import ground_kernels as ground
from worldsystem_segment.geometric import instance_kernels as instances
from worldsystem_segment.geometric import plane_kernels
from worldsystem_segment.geometric.ground import find_ground
from worldsystem_segment.geometric.walls import find_planes
from worldsystem_segment.objects import track_kernels
from worldsystem_segment.objects.normals import planes_of
from worldsystem_segment.objects.view import make_view, usable
from worldsystem_segment.objects.voxels import STEPS, dilated, is_in, voxel_keys

FEW = 1e-4  # share of pixels at which float32 rounds a comparison to the other side
UP = np.array([0.0, -0.9, -0.436], np.float32)
PLANE = np.append(UP, np.float32(0.9))


@pytest.fixture(scope="module")
def view():
    target = (ROOM_EYE[0] + 3.0, ROOM_EYE[1] + 2.0, 0.3)
    shot, _ = room().caster().shot(0, ROOM_EYE, target, noise=0.01)
    pointmap = shot.pointmap.copy()
    pointmap[20:30, 40:70] = np.nan
    keyframe = replace(shot, pointmap=pointmap)
    return make_view(keyframe, usable(keyframe, 0.1), 2.0, 320)


@pytest.fixture(scope="module")
def points(view):
    return planes_of(view.points_cam)


@pytest.fixture(scope="module")
def normals(view):
    return planes_of(view.normals)


@pytest.fixture
def labels(view):
    """Rectangles numbered from 1 to 7, some at the border, 5 absent."""
    out = np.zeros(view.valid.shape, np.int32)
    corners = {1: (0, 0), 2: (40, 30), 3: (52, 30), 4: (90, 200), 6: (60, 290), 7: (61, 100)}
    for number, (row, column) in corners.items():
        out[row : row + 12, column : column + 40] = number
    return np.where(view.valid, out, 0).astype(np.int32)


@pytest.fixture(autouse=True)
def quiet():
    with np.errstate(invalid="ignore", divide="ignore"):
        yield


def _differing(a, b) -> float:
    return float((np.asarray(a) != np.asarray(b)).mean())


@pytest.mark.parametrize("stride", [1, 3, 4])
def test_samples_are_every_so_many_known_vectors_in_order(view, points, stride) -> None:
    ours = ground.sampled(points, view.valid, stride)
    np.testing.assert_array_equal(ours, plain.sampled(points, view.valid, stride))
    assert ground.sampled(points, np.zeros_like(view.valid), stride).shape == (3, 0)


def test_level_pixels_are_those_whose_normal_looks_up(view, normals) -> None:
    ours = ground.looking(normals, view.valid, UP, np.float32(0.8))
    assert _differing(ours, plain.looking(normals, view.valid, UP, 0.8)) < FEW
    assert 0.05 < ours.mean() < 0.95


def test_the_densest_direction_is_found_and_refined(view, normals) -> None:
    known = ground.sampled(normals, view.valid, 3)
    weights = (UP @ known) ** 2
    start = ground.densest(known, weights)
    np.testing.assert_array_equal(start, plain.densest(known, weights))
    ours = ground.mean_near(known, start, np.float32(0.94))
    np.testing.assert_allclose(ours, plain.mean_near(known, start, 0.94), atol=1e-5)
    assert not ground.mean_near(known[:, :0], start, np.float32(0.94)).any()


def test_heights_fall_into_the_bins_of_a_histogram(view, points) -> None:
    known = ground.sampled(points, view.valid, 3)
    found, low, width = ground.heights_by_bin(known, UP, 63)
    twin, twin_low, twin_width = plain.heights_by_bin(known, UP, 63)
    assert np.abs(found - twin).sum() <= 4  # at the edges of bins
    assert low == pytest.approx(twin_low, abs=1e-4)
    assert width == pytest.approx(twin_width, rel=1e-4)


def test_equations_of_a_plane_are_those_of_least_squares(view, points) -> None:
    known = ground.sampled(points, view.valid, 3)
    basis = np.linalg.qr(np.column_stack([UP, np.eye(3)]))[0][:, 1:].astype(np.float32)
    given = known, PLANE, np.float32(0.1), np.ascontiguousarray(basis)
    ours, mean, count = ground.plane_equations(*given)
    twin, twin_mean, twin_count = plain.plane_equations(*given)
    assert abs(count - twin_count) <= 2
    assert count > 100
    np.testing.assert_allclose(mean, twin_mean, atol=1e-3)
    np.testing.assert_allclose(ours, twin, rtol=1e-2, atol=1e-2 * np.abs(twin).max())


def test_ground_is_what_lies_on_the_relief_and_tall_what_rises_from_it(
    view, points, normals
) -> None:
    relief = np.random.default_rng(0).normal(0, 0.01, view.valid.shape).astype(np.float32)
    given = points, normals, view.valid, PLANE, relief, np.float32(0.02), np.float32(2)
    ours = ground.beside_ground(*given)
    for mask, twin in zip(ours, plain.beside_ground(*given), strict=True):
        assert _differing(mask, twin) < FEW


def test_a_view_without_ground_has_none(view) -> None:
    assert find_ground(view, -UP, SegmentConfig()) is None
    assert find_ground(view, UP, SegmentConfig()) is not None


def test_a_pixel_belongs_to_the_first_plane_that_it_lies_on(view, points, normals) -> None:
    planes, centres = [], []
    for row, column in ((90, 160), (150, 60), (91, 161)):
        normal, centre = view.normals[row, column], view.points_cam[row, column]
        planes.append(np.append(normal, -normal @ centre))
        centres.append(centre)
    for radius in (0.3, np.inf):
        given = (
            points, normals, view.valid, np.array(planes, np.float32), np.float32(0.03),
            np.array(centres, np.float32), np.full(3, radius, np.float32),
        )  # fmt: skip
        ours = plane_kernels.first_plane(*given)
        assert set(np.unique(ours)) >= {-1, 0, 1}
        assert _differing(ours, plain.first_plane(*given)) < FEW


def test_planes_at_half_size_are_drawn_at_full_size(view) -> None:
    half = np.random.default_rng(0).integers(0, 9, (80, 151), np.uint8)
    which = view.valid[:159, :301]
    assert (plane_kernels.doubled(half, which) == plain.doubled(half, which)).all()
    _, planes = find_planes(view, np.zeros_like(view.valid))
    assert not len(planes)


def test_the_area_of_a_region_is_the_sum_of_its_pixels(view, points, normals) -> None:
    given = points, normals, view.valid, np.float32(250.0**2)
    assert plane_kernels.area_of(*given) == pytest.approx(plain.area_of(*given), rel=1e-3)


def test_pixels_are_counted_ordered_and_bounded_by_label(labels) -> None:
    np.testing.assert_array_equal(instances.areas(labels, 8), plain.areas(labels, 8))
    for ours, twin in zip(instances.by_label(labels, 7), plain.by_label(labels, 7), strict=True):
        np.testing.assert_array_equal(ours, twin)
    assert instances.extent_of(labels) == plain.extent_of(labels)
    np.testing.assert_array_equal(instances.at_border(labels, 7), plain.at_border(labels, 7))
    assert len(instances.by_label(np.zeros_like(labels), 0)[0]) == 0


def test_inner_pixels_are_away_from_outline_and_border(labels) -> None:
    ours = instances.inner(labels, 3)
    np.testing.assert_array_equal(ours, plain.inner(labels, 3))
    assert 0 < ours.sum() < (labels > 0).sum()


def test_a_table_of_labels_is_looked_up(labels) -> None:
    table = np.array([0, 3, 1, 1, 0, 9, 2, 4], np.int32)
    np.testing.assert_array_equal(instances.looked_up(table, labels), table[labels])


def test_what_hangs_over_another_is_found_once_a_pixel(labels, points, normals) -> None:
    given = labels, points, normals, UP, (1, 3, 5, 8), np.float32(0.6)
    ours, twin = instances.overhangs(*given), plain.overhangs(*given)
    assert len(twin[0]) > 10
    pairs, plain_pairs = (zip(*(m[k] for k in (0, 1, 3)), strict=True) for m in (ours, twin))
    assert sorted(pairs) == sorted(plain_pairs)
    np.testing.assert_allclose(np.sort(ours[2]), np.sort(twin[2]), rtol=1e-4, atol=1e-6)


def test_widths_and_extents_are_those_of_each_label(labels, points) -> None:
    ours, twin = (m.widths_and_extents(labels, points, 7) for m in (instances, plain))
    np.testing.assert_array_equal(ours[0], twin[0])
    np.testing.assert_allclose(ours[1], twin[1], rtol=1e-5)


def test_voxels_beside_others_are_those_in_their_dilation() -> None:
    random = np.random.default_rng(0)
    held, keys = (np.unique(voxel_keys(random.uniform(-1, 1, (300, 3)), 0.1)) for _ in range(2))
    count = track_kernels.count_beside(held, keys, STEPS)
    assert count == plain_tracks.count_beside(held, keys, STEPS) == is_in(held, dilated(keys)).sum()
    assert 0 < count < len(held)
    assert track_kernels.count_beside(held, keys[:0], STEPS) == 0


@pytest.mark.parametrize("known", [True, False])
def test_a_view_sees_through_points_before_its_surface_and_knows_whose_that_is(
    view, labels, known
) -> None:
    random = np.random.default_rng(0)
    pixels = random.choice(np.flatnonzero(view.valid), 400, replace=False)
    points = view.points_at(pixels) * random.choice([0.8, 0.98, 1.2], 400)[:, None]
    points = np.concatenate([points, -points[:20], points[:20] * [9, 1, 1]]).astype(np.float32)
    owner = labels if known else np.zeros((0, 0), np.int32)
    near = np.array([0.1, 0.05], np.float32)
    given = points, np.eye(4, dtype=np.float32)[:3], view.lens, view.depth, near, owner, 2
    through, foreign, inside, at = track_kernels.sighted(*given)
    twin, twin_foreign, twin_inside, twin_at = plain_tracks.sighted(*given)
    assert _differing(through, twin) < 0.01
    assert _differing(foreign, twin_foreign) < 0.01
    assert abs(inside - twin_inside) <= 2
    assert abs(at - twin_at) <= 2
    assert through.any()
    assert foreign.any() == known


def test_the_box_of_points_holds_those_in_the_picture(view) -> None:
    points = np.random.default_rng(0).normal(0, 1, (500, 3)).astype(np.float32)
    cam_from_world = np.column_stack([np.eye(3), (0.1, 0.2, 1.5)]).astype(np.float32)
    given = points, cam_from_world, view.lens, (320, 180)
    inside, bounds = track_kernels.bounds_seen(*given)
    twin, twin_bounds = plain_tracks.bounds_seen(*given)
    assert inside == twin > 10
    np.testing.assert_allclose(bounds, twin_bounds, atol=1e-2)
    assert track_kernels.bounds_seen(points[:0], *given[1:])[0] == 0
