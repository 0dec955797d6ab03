# SPDX-License-Identifier: Apache-2.0
"""The world grows with what is seen, not with time; it follows corrections and forgets errors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial import cKDTree
from splat_scenes import CAMERA, rounds, wall_seen_from

from worldsystem_core.geometry.sim3 import Sim3
from worldsystem_core.reconstruction import Successor
from worldsystem_core.splats.coverage import Coverage, areas, widths
from worldsystem_core.splats.discs import discs_from_pointmap
from worldsystem_core.splats.gaussians import matrices_of, quaternions_wxyz
from worldsystem_core.splats.raster import draw
from worldsystem_core.splats.voxel_kernels import LEVELS
from worldsystem_core.splats.world import SplatWorld


def test_looking_again_adds_next_to_nothing():
    world = SplatWorld()
    first = world.add(wall_seen_from([0, 0, 0], 0))
    again = [world.add(wall_seen_from([0.02 * i, 0, 0.01 * i], i)) for i in range(1, 6)]
    assert first == CAMERA.width * CAMERA.height
    assert max(again) < 0.1 * first
    assert world.duplicates > 4.5 * first


def test_a_new_place_adds_its_splats():
    world = SplatWorld()
    first = world.add(wall_seen_from([0, 0, 0], 0))
    assert world.add(wall_seen_from([20, 0, 0], 1)) == first


def test_going_near_replaces_coarse_splats_by_fine_ones():
    world = SplatWorld(voxel=0.01)
    first = world.add(wall_seen_from([0, 0, 0], 0))
    near = world.add(wall_seen_from([0, 2.0, 0], 1))
    assert near > 0.9 * first  # three times as fine
    gone = first - len(world.chunks[0])
    assert 0.05 * first < gone < 0.2 * first  # a ninth of the picture was looked at
    drawn = draw(world.gaussians(), wall_seen_from([0, 0.5, 0], 2).world_from_cam, CAMERA)
    assert drawn.alpha[3:-3, 3:-3].min() > 0.6  # and no hole is left


def test_what_two_keyframes_see_through_goes():
    world = SplatWorld()
    world.add(wall_seen_from([0, 0, 0], 0, wall_y=1.5))  # a wall that is not there
    world.add(wall_seen_from([0, 0, 0], 1))
    assert len(world.chunks[0]) > 0  # one look may be wrong
    world.add(wall_seen_from([0.05, 0, 0], 2))
    assert world.contradicted > 0.8 * CAMERA.width * CAMERA.height
    assert len(world.chunks.get(0, ())) < 0.2 * CAMERA.width * CAMERA.height


def test_one_that_moves_without_a_size_keeps_the_one_it_has():
    """Also after it was told again, and what hangs on it."""
    world = SplatWorld()
    first, other = wall_seen_from([0, 0, 0], 7), wall_seen_from([20, 0, 0], 8)
    for keyframe in (first, other):
        world.add(keyframe)
    pose = first.world_from_cam
    world.hang_on({8: Successor(7, pose)})
    world.move({7: pose}, {7: 2.0})
    for _ in range(3):
        world.tell_again({7: pose})
        for _ in range(3):
            world.move({7: pose})
            scales = [chunk.world_from_chunk.scale for chunk in world.chunks.values()]
            np.testing.assert_allclose(scales, 2.0)
    world.move({7: pose}, {7: 1.5})
    np.testing.assert_allclose(world.chunks[7].world_from_chunk.scale, 3.0)


def test_a_correction_moves_chunks_and_touches_no_splat():
    world = SplatWorld()
    keyframe = wall_seen_from([0, 0, 0], 7)
    world.add(keyframe)
    world.changed.clear()
    before = world.chunks[7].gaussians
    moved = keyframe.world_from_cam.copy()
    moved[:3, 3] += [5.0, 0, 0]
    world.move({7: moved, 99: moved}, {7: 2.0})
    assert world.chunks[7].gaussians is before
    assert list(world.moved) == [7]
    assert not world.changed
    centre = np.median(world.gaussians().means, axis=0)
    assert np.allclose(centre, [5.0, 6.0, 0.0], atol=0.2)
    # what was counted moved along: the same look from there adds nothing
    assert world.add(wall_seen_from([5, 0, 0], 8, wall_y=6.0)) < 100


def test_voxels_follow_when_the_world_becomes_metric():
    world = SplatWorld()
    keyframe = wall_seen_from([0, 0, 0], 0)
    world.add(keyframe)
    before = world.voxel
    world.move({0: keyframe.world_from_cam}, {0: 10.0})
    assert abs(world.voxel - 10 * before) < 1e-9
    assert world.add(wall_seen_from([0.1, 0, 0], 1, wall_y=30.0)) < 100


def test_voxels_follow_when_keyframes_become_metric_one_by_one():
    """As across processes, and while new ones come that are metric already."""
    world = SplatWorld()
    keyframes = [wall_seen_from([10.0 * k, 0, 0], k) for k in range(5)]
    for keyframe in keyframes:
        world.add(keyframe)
    before = world.voxel
    for keyframe in keyframes:
        world.moved.clear()
        far = keyframe.world_from_cam.copy()
        far[:3, 3] *= 10.0
        world.move({keyframe.id: far}, {keyframe.id: 10.0})
    assert abs(world.voxel - 10 * before) < 1e-9
    for k in range(5, 12):
        world.add(wall_seen_from([100.0 * k, 0, 0], k, wall_y=30.0))
        world.move({0: keyframes[0].world_from_cam}, {0: 10.0})
    assert abs(world.voxel - 10 * before) < 1e-9


def test_voxels_begin_anew_after_the_last_keyframe():
    """As when a world that had become metric is reset."""
    world = SplatWorld()
    keyframe = wall_seen_from([0, 0, 0], 0)
    given, before = world.add(keyframe), world.voxel
    world.move({0: keyframe.world_from_cam}, {0: 10.0})
    world.remove([0])
    assert world.add(wall_seen_from([0, 0, 0], 1)) == given
    assert world.voxel == before


def test_the_voxel_of_a_world_before_holds_until_the_last_keyframe_is_gone():
    """One that follows a killed one is told of removals before its first keyframe, too."""
    world, fresh = SplatWorld(begun_voxel=0.033), SplatWorld()
    world.remove([7])
    world.add(wall_seen_from([0, 0, 0], 0))
    assert world.voxel == pytest.approx(0.033)
    world.remove([0])
    for each in (world, fresh):
        each.add(wall_seen_from([0, 0, 0], 1))
    assert world.voxel == fresh.voxel != pytest.approx(0.033)


def test_chunks_that_a_correction_laid_over_each_other_are_thinned():
    world = SplatWorld()
    keyframe = wall_seen_from([0, 0, 0], 0)
    world.add(keyframe)
    world.add(wall_seen_from([30, 0, 0], 1))
    world.move({1: keyframe.world_from_cam})
    world.add(wall_seen_from([0.01, 0, 0], 2))
    assert len(world) < 1.2 * CAMERA.width * CAMERA.height


def test_a_withdrawn_keyframe_takes_its_splats_along():
    world = SplatWorld()
    world.add(wall_seen_from([0, 0, 0], 0))
    world.remove([0, 5])
    assert len(world) == 0
    assert list(world.removed) == [0]
    assert world.add(wall_seen_from([0, 0, 0], 1)) == CAMERA.width * CAMERA.height


def at(keyframe, x: float) -> np.ndarray:
    """The pose of a keyframe, so much farther along."""
    pose = keyframe.world_from_cam.copy()
    pose[0, 3] += x
    return pose


def test_splats_go_along_with_the_keyframe_that_stands_in_for_theirs():
    """Also where that one added nothing of its own, and has been replaced in its turn."""
    world, keyframe = SplatWorld(), wall_seen_from([0, 0, 0], 0)
    world.add(keyframe)
    before = world.gaussians().means
    world.hang_on({0: Successor(1, at(keyframe, 0.5), 1.0)})
    assert len(world) == len(before)
    world.move({1: at(keyframe, 10.5)}, {1: 1.0})
    np.testing.assert_allclose(world.gaussians().means, before + np.array([10, 0, 0]), atol=1e-4)
    world.hang_on({1: Successor(2, at(keyframe, 10.0), 1.0)})
    world.move({1: at(keyframe, 0), 2: at(keyframe, 10.0)}, {2: 2.0})
    grown = 10.0 + 2.0 * before
    np.testing.assert_allclose(world.gaussians().means[:, 0], grown[:, 0], atol=1e-4)
    assert list(world.moved) == [0]


def test_a_keyframe_told_again_keeps_the_splats_that_it_stands_in_for():
    world, keyframe = SplatWorld(), wall_seen_from([0, 0, 0], 0)
    world.add(keyframe)
    world.hang_on({0: Successor(1, at(keyframe, 0.5), 1.0)})
    world.add(wall_seen_from([0.5, 0, 0], 1))
    assert len(world.chunks[0]) == CAMERA.width * CAMERA.height


def test_splats_that_hang_on_a_withdrawn_keyframe_go_with_it():
    world, keyframe = SplatWorld(), wall_seen_from([0, 0, 0], 0)
    world.add(keyframe)
    world.hang_on({0: Successor(1, at(keyframe, 0.5), 1.0)})
    world.remove([1])
    assert len(world) == 0
    assert list(world.removed) == [0]


def test_chunks_are_as_many_as_places_however_often_they_are_seen():
    world = SplatWorld(voxel=1e-4)
    rounds(world, 0, 24)
    assert len(world) == 5 * CAMERA.width * CAMERA.height
    assert len(world.chunks) <= 5 * 6


def test_chunks_that_were_joined_lie_where_they_lay():
    once, often = SplatWorld(voxel=1e-4), SplatWorld(voxel=1e-4)
    rounds(once, 0, 1, strips=1)
    rounds(often, 0, 24)
    expected, found = once.gaussians().means, often.gaussians().means
    assert len(found) == len(expected)
    assert cKDTree(found).query(expected)[0].max() < 1e-4


def test_chunks_that_were_joined_go_along_with_the_last_that_stands_in_for_theirs():
    world, pixels = SplatWorld(voxel=1e-4), CAMERA.width * CAMERA.height
    rounds(world, 0, 24)
    last = 5 * 23
    world.move({last: at(wall_seen_from([0, 0, 0], 0), 60.0)}, {last: 1.0})
    x = world.gaussians().means[:, 0]
    assert (x < 10.0).sum() == 0, "all of the first wall went along"
    assert ((x > 50.0) & (x < 70.0)).sum() == 2 * pixels, "to where the third is"
    world.remove([last])
    assert len(world) == 4 * pixels


def test_the_budget_thins_what_is_far_and_leaves_no_hole():
    world = SplatWorld(most_splats=4000)
    for i in range(6):
        world.add(wall_seen_from([6.0 * i, 0, 0], i))
    assert len(world) <= 4000
    assert set(world.chunks) == set(range(6))
    assert len(world.chunks[5]) == CAMERA.width * CAMERA.height
    far = wall_seen_from([0, 0, 0], 9)
    assert draw(world.gaussians(), far.world_from_cam, CAMERA).alpha[5:-5, 5:-5].mean() > 0.5


def test_a_keyframe_without_points_adds_nothing():
    keyframe = wall_seen_from([0, 0, 0], 0)
    world = SplatWorld()
    world.add_gaussians(keyframe, world.gaussians())
    assert len(world) == 0
    assert Sim3.identity().scale == 1.0


def test_points_at_the_camera_itself_have_no_width_and_spoil_no_other():
    """As somebody else's keyframe may have them: two neighbours at the very centre."""
    good, world = wall_seen_from([0, 0, 0], 0), SplatWorld()
    pointmap = good.pointmap.copy()
    pointmap[:3, :8] = 0.0
    added = world.add(replace(good, pointmap=pointmap))
    assert added == CAMERA.width * CAMERA.height - 3 * 8
    assert np.isfinite(world.gaussians().scales).all()


@pytest.mark.parametrize("size", [np.nan, np.inf, 0.0, -1.0])
def test_a_keyframe_that_is_told_no_place_stays_where_it_is(size):
    world = SplatWorld()
    keyframe = wall_seen_from([0, 0, 0], 0)
    world.add(keyframe)
    before = world.gaussians().means
    world.move({0: keyframe.world_from_cam}, {0: size})
    world.move({0: np.full((4, 4), np.nan)})
    np.testing.assert_array_equal(world.gaussians().means, before)
    world.add(wall_seen_from([0.1, 0, 0], 1))


def test_widths_that_are_no_numbers_have_a_level():
    levels = Coverage(0.05).levels(np.array([np.nan, np.inf, 0.0, -1.0, 0.04], np.float32))
    assert ((levels >= 0) & (levels < LEVELS)).all()


def test_what_went_into_a_chunk_that_goes_into_another_is_that_ones():
    """Clients keep the first until the last is sent: else there would be a hole meanwhile."""
    world = SplatWorld()
    world._forget(1, shown_by=2)
    world._forget(2, shown_by=3)
    assert world.removed == {1: 3, 2: 3}
    world._forget(3)
    assert world.removed == {1: 3, 2: 3, 3: None}


def test_what_hangs_on_a_keyframe_without_splats_keeps_its_size_when_that_moves_without_one():
    world, keyframe = SplatWorld(), wall_seen_from([0, 0, 0], 0)
    world.add(keyframe)
    world.hang_on({0: Successor(1, keyframe.world_from_cam, 1.0)})
    world.move({1: keyframe.world_from_cam}, {1: 2.0})
    grown = world.gaussians().means
    world.move({1: at(keyframe, 10.0)})
    assert world.chunks[0].world_from_chunk.scale == pytest.approx(2.0)
    np.testing.assert_allclose(world.gaussians().means, grown + np.array([10, 0, 0]), atol=1e-4)


def test_the_splats_that_thinning_left_count_for_what_they_cover_now():
    """They are wider: else what they show would be added once more."""
    world = SplatWorld(most_splats=4000)
    for i in range(6):
        world.add(wall_seen_from([6.0 * i, 0, 0], i))
    assert world.thinned > 0
    levels = Coverage(world.voxel).levels
    for chunk in world.chunks.values():
        np.testing.assert_allclose(chunk.area, areas(chunk.gaussians), rtol=1e-4)
        np.testing.assert_array_equal(chunk.levels, levels(widths(chunk.gaussians)))


def thin_along(discs, axis):
    """The same Gaussians with their axes in another order, as a network may tell them."""
    order = (np.arange(3) + 2 - axis) % 3
    rotations = quaternions_wxyz(matrices_of(discs.rotations)[:, :, order])
    return replace(discs, scales=discs.scales[:, order], rotations=rotations)


@pytest.mark.parametrize("axis", [0, 1])
def test_a_networks_gaussians_may_be_thin_along_any_of_their_axes(axis):
    """They cover as much as discs do, and thinning makes none of them thicker."""
    world, other = SplatWorld(most_splats=2000), SplatWorld(most_splats=2000)
    for number, x in enumerate([0.0, 0.02, 20.0]):
        keyframe = wall_seen_from([x, 0, 0.5 * x], number)
        discs = discs_from_pointmap(keyframe.pointmap, keyframe.rgb, keyframe.confidence)
        added = world.add_gaussians(keyframe, discs)
        assert other.add_gaussians(keyframe, thin_along(discs, axis)) == added
    assert other.thinned == world.thinned > 0
    scales, others = (np.sort(each.gaussians().scales, axis=1) for each in (world, other))
    np.testing.assert_allclose(others, scales, rtol=1e-6)
