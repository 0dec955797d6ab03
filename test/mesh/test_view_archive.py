# SPDX-License-Identifier: Apache-2.0
"""A mesher that died: the next one has the surface that it had."""

from __future__ import annotations

import os
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from voxel_lab import assert_same_voxels, voxels_of

from worldsystem_core.geometry.se3 import pose_from
from worldsystem_core.reconstruction import ScaleState
from worldsystem_mesh import page_file
from worldsystem_mesh.view_archive import MOST_SHOWING


@pytest.fixture
def make(make_mesher, tmp_path):
    """Meshers with an archive in one folder. None is closed before the test ends, as a process that
    is killed closes nothing."""

    def mesher(**settings):
        return make_mesher(archive_dir=str(tmp_path / "surface"), min_weight=0.5, **settings)

    return mesher


def fused(mesher, keyframes):
    for keyframe in keyframes:
        mesher.integrate(keyframe)
        mesher.extract(keyframe.id)
    return mesher


def come_back(make, **settings):
    """Another mesher, with all that it found, and the ids of those it says are to be told."""
    mesher = make(restore=True, **settings)
    kept = mesher.restore()
    while mesher.go_on(0) is not None or not mesher.is_settled:
        pass
    return mesher, [one.view.id for one in kept]


def test_the_surface_of_a_mesher_that_died_comes_back_bit_for_bit(make, plane_keyframes):
    died = fused(make(), plane_keyframes(8))
    died.settle(0)
    back, told = come_back(make)
    assert told == list(range(8))
    assert_same_voxels(back, died)
    np.testing.assert_array_equal(back.mesh().vertices, died.mesh().vertices)


def test_it_comes_back_where_keyframes_have_moved_to(make, make_mesher, plane_keyframes):
    keyframes = plane_keyframes(6)
    died = fused(make(), keyframes)
    away = pose_from(np.eye(3), np.array([0.4, -0.2, 0.1]))
    moved = {k.id: away @ k.world_from_cam for k in keyframes[2:]}
    died.move(moved, {4: 1.25})  # and dies before it has fused them anew
    back, _ = come_back(make)
    fresh = make_mesher(min_weight=0.5)
    fused(fresh, [replace(k, world_from_cam=moved.get(k.id, k.world_from_cam)) for k in keyframes])
    fresh.move({4: moved[4]}, {4: 1.25})
    fresh.settle(0)
    assert_same_voxels(back, fresh)


def test_what_a_withdrawn_keyframe_showed_does_not_come_back(make, make_mesher, plane_keyframes):
    keyframes = plane_keyframes(5)
    died = fused(make(), keyframes)
    died.remove([4, 2])
    back, told = come_back(make)
    assert told == [0, 1, 3]
    assert_same_voxels(back, fused(make_mesher(min_weight=0.5), [keyframes[k] for k in told]))


def test_a_withdrawn_keyframe_that_had_left_the_store_does_not_come_back_either(
    make, plane_keyframes, monkeypatch
):
    keyframes = plane_keyframes(5)
    died = fused(make(), keyframes)
    monkeypatch.setattr(died._fusion.views, "outline", lambda _: None)
    assert died.remove([4, 2]).unreachable == (4, 2)
    _, told = come_back(make)
    assert told == [0, 1, 3]


def test_what_keyframes_showed_for_which_others_stand_in_comes_back(make, plane_keyframes):
    """The last of a row of them, which sees least of what they saw, is the only one still told."""
    keyframes = plane_keyframes(6)
    died = fused(make(), keyframes)
    for older, newer in pairwise(keyframes):
        died.remove([older.id], {older.id: newer.id})
    died.settle(0)
    back, told = come_back(make)
    assert told == [5]
    assert back.stats()["keyframes"] == back.stats()["stored_keyframes"] == 1
    assert_same_voxels(back, died)
    near = fused(make(), keyframes[-1:])
    assert back.stats()["mesh_blocks"] > 2 * near.stats()["mesh_blocks"]


@pytest.mark.parametrize("when", ["before", "while", "anew"])
def test_what_an_heir_stood_in_for_goes_when_it_moves(make, make_mesher, plane_keyframes, when):
    older, newer = plane_keyframes(2)
    elsewhere = pose_from(np.eye(3), np.array([5.0, 0.0, 0.0])) @ newer.world_from_cam
    died = fused(make(), [older, newer])
    died.remove([older.id], {older.id: newer.id})
    if when == "before":
        died.move({newer.id: elsewhere})
        back, _ = come_back(make)
    else:
        back = make(restore=True)
        back.restore()
        assert back.is_restoring
        if when == "while":
            back.move({newer.id: elsewhere})
        else:
            back.integrate(replace(newer, world_from_cam=elsewhere))
        back.settle(0)
    expected = fused(make_mesher(min_weight=0.5), [replace(newer, world_from_cam=elsewhere)])
    # where the older one was, blocks of the newer one see through what is no more
    assert voxels_of(expected).keys() <= voxels_of(back).keys()
    assert back.stats()["mesh_blocks"] == expected.stats()["mesh_blocks"]


def test_keyframes_go_on_coming_while_older_ones_come_back(make, make_mesher, plane_keyframes):
    keyframes = plane_keyframes(8)
    fused(make(), keyframes[:6])
    back = make(restore=True)
    assert len(back.restore()) == 6
    back.integrate(keyframes[6])
    back.extract(1)
    assert back.is_restoring
    back.remove([3], {3: 4})
    back.integrate(keyframes[7])
    back.settle(2)
    fresh = fused(make_mesher(min_weight=0.5), keyframes)
    assert_same_voxels(back, fresh)
    assert set(back.views.ids) == {0, 1, 2, 4, 5, 6, 7}


@pytest.mark.parametrize("call", ["integrate", "follow"])
def test_a_keyframe_that_was_told_elsewhere_meanwhile_lies_there(
    make, make_mesher, plane_keyframes, call
):
    first, second = plane_keyframes(2)
    fused(make(), [first, second])
    away = replace(second, world_from_cam=first.world_from_cam)
    back = make(restore=True)
    back.restore()
    if call == "integrate":
        back.integrate(away)
    else:
        assert back.follow(away, 1.0) == 1.0
    back.settle(0)
    assert_same_voxels(back, fused(make_mesher(min_weight=0.5), [first, away]))


def test_a_keyframe_told_again_in_another_size_grows_to_it(make, plane_keyframes):
    """Its points say how large it is, unless they differ by no more than rounding does."""
    first, second = plane_keyframes(2)
    fused(make(), [first, second])
    back = make(restore=True)
    back.restore()
    larger = replace(second, pointmap=second.pointmap * np.float32(1.5))
    assert back.follow(larger, 1.0) == pytest.approx(1.5, rel=1e-3)
    assert back.follow(larger, 1.501) == 1.501
    back.settle(0)
    assert back.views.outline(second.id).scale == 1.501
    assert back.follow(replace(first, id=9), 1.0) is None


def test_a_keyframe_told_again_a_little_beside_keeps_what_it_stands_in_for(make, plane_keyframes):
    """Each correction that was too small to be told moves all of them so far."""
    keyframes = plane_keyframes(5)
    died = fused(make(), keyframes)
    for older, newer in pairwise(keyframes):
        died.remove([older.id], {older.id: newer.id})
    before = died.stats()["mesh_blocks"]
    back, _ = come_back(make)
    beside = pose_from(np.eye(3), np.array([0.002, 0.0, 0.0])) @ keyframes[-1].world_from_cam
    back.follow(replace(keyframes[-1], world_from_cam=beside), 1.0)
    while back.go_on(0) is not None or not back.is_settled:
        pass
    assert back.stats()["mesh_blocks"] == before
    assert len(back._archive.kept()) == 5


def test_of_a_place_seen_again_and_again_no_more_is_kept_than_it_takes(make, plane_keyframes):
    (keyframe,) = plane_keyframes(1)
    died = make()
    for turn in range(3 * MOST_SHOWING):
        fused(died, [replace(keyframe, id=turn, frame_id=turn)])
        if turn:
            died.remove([turn - 1], {turn - 1: turn})
    back = make(restore=True)
    told = back.restore()
    back.settle(0)
    assert [one.view.id for one in told] == [3 * MOST_SHOWING - 1]
    assert len(back._archive.kept()) == MOST_SHOWING + 1
    assert back.stats()["mesh_blocks"] == died.stats()["mesh_blocks"]


def test_beyond_its_size_the_archive_lets_the_oldest_replaced_keyframes_go(make, plane_keyframes):
    """A megabyte is eight of these; those that nobody stands in for are told anyway."""
    keyframes = plane_keyframes(12)
    died = fused(make(archive_mb=1), keyframes[:4])
    died.remove([0, 1], {0: 2, 1: 2})
    fused(died, keyframes[4:])
    kept = died._archive.kept()
    assert died._archive.bytes <= 1_000_000
    assert [one.view.id for one in kept] == [2, 3, 4, 5, 6, 7, 8, 9][: len(kept)]
    assert len(kept) == 8
    assert all(one.heir is None for one in kept)


def test_the_unit_of_the_root_is_kept(make, plane_keyframes):
    """Metric since a fix came: also what others stand in for is as large as it became."""
    keyframes = plane_keyframes(4)
    died = fused(make(), keyframes)
    died.remove([0], {0: 1})
    metric = {k.id: k.world_from_cam.copy() for k in keyframes[1:]}
    for pose in metric.values():
        pose[:3, 3] *= 3.0
    died.move(metric, dict.fromkeys(metric, 3.0), ScaleState.METRIC)
    back, _ = come_back(make)
    assert back.stats()["voxel"] == pytest.approx(0.15)
    here, there = voxels_of(back), voxels_of(died)
    assert here.keys() == there.keys()
    # a pixel on the other side of a border, since lengths were rounded in another unit
    differing = [(here[index][0] != there[index][0]).mean() for index in here]
    assert np.mean(differing) < 1e-3


def test_how_large_a_keyframe_was_when_it_was_told_last_is_kept(make, plane_keyframes):
    first, second = plane_keyframes(2)
    died = fused(make(), [first, second])
    died.move({first.id: first.world_from_cam}, {first.id: 1.5})
    died.told_again([first.id])
    died.move({first.id: first.world_from_cam}, {first.id: 1.8})
    one, other = make(restore=True).restore()
    assert (one.view.scale, one.scale_when_told) == (1.8, 1.5)
    assert (other.view.scale, other.scale_when_told) == (1.0, 1.0)


def test_a_mesher_that_is_not_to_go_on_begins_with_nothing(make, plane_keyframes):
    fused(make(), plane_keyframes(3))
    fresh = make()
    assert fresh.restore() == []
    assert make(restore=True).restore() == []


def test_a_keyframe_half_written_is_none(make, plane_keyframes, monkeypatch):
    """A process may die between its pictures and the record that says where it lies."""
    keyframes = plane_keyframes(2)
    died = fused(make(), keyframes)
    monkeypatch.setattr(died._archive, "_write", lambda kept: None)
    died.integrate(replace(keyframes[1], id=5))
    died.integrate(replace(keyframes[0], rgb=255 - keyframes[0].rgb))  # anew, in its place
    monkeypatch.undo()
    back, told = come_back(make)
    assert told == [1]
    assert back.stats()["mesh_blocks"] > 0


def test_a_damaged_keyframe_is_left_out(make, plane_keyframes, caplog):
    keyframes = plane_keyframes(3)
    died = fused(make(), keyframes)
    (pictures,) = died._archive._files.values()
    at = pictures._place_of_key[2] * pictures._stride + 1000
    back = make(restore=True)
    back.restore()
    pictures._map[at : at + 1] = bytes([pictures._map[at] ^ 1])
    back.settle(0)
    assert "damaged" in caplog.text
    assert sorted(back.views.ids) == [0, 2]


def test_where_nothing_can_be_written_the_surface_goes_on(
    make, plane_keyframes, monkeypatch, caplog
):
    keyframes = plane_keyframes(20)
    monkeypatch.setattr(page_file, "GROWTH_BYTES", 0)
    died = fused(make(), keyframes[:2])

    def full(*_args: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    fused(died, keyframes[2:])
    assert "no room" in caplog.text
    assert died.stats()["keyframes"] == 20
    assert make(restore=True).restore() == []


def test_an_archive_that_gives_up_while_keyframes_come_back_ends_nothing(
    make, plane_keyframes, monkeypatch, caplog
):
    keyframes = plane_keyframes(6)
    fused(make(), keyframes[:4])
    back = make(restore=True)
    back.restore()
    back._archive._give_up(page_file.PagingFailed("the disk is full"))
    back.integrate(keyframes[4])
    back.settle(0)
    assert set(back.views.ids) == {4}
    assert back.stats()["keyframes"] == 1
    assert not back.holds(2)
    back.integrate(keyframes[2])  # as when it is told again
    assert back.holds(2)


def test_an_archive_that_gives_up_gives_the_disk_back(make, plane_keyframes, tmp_path):
    died = fused(make(), plane_keyframes(3))
    died._archive._give_up(page_file.PagingFailed("the disk is full"))
    assert sum(path.stat().st_size for path in (tmp_path / "surface").iterdir()) == 0
    assert died._archive.bytes == 0


def test_for_a_keyframe_replaced_by_one_that_never_came_the_nearest_stands_in(
    make, plane_keyframes
):
    """And it may come again under its id, or the other one may."""
    first, second = plane_keyframes(2)
    fused(make(), [first, second])
    back = make(restore=True)
    back.restore()
    back.remove([first.id], {first.id: 77})
    back.integrate(first)
    back.integrate(replace(second, id=77))
    back.move({77: first.world_from_cam})
    back.remove([first.id])
    back.settle(0)
    assert set(back.views.ids) == {second.id, 77}
    kept = [(one.view.id, one.heir) for one in back._archive.kept()]
    assert kept == [(first.id, second.id), (second.id, None), (77, None)]


def test_an_id_that_one_had_that_others_stand_in_for_can_be_given_again(
    make, make_mesher, plane_keyframes
):
    first, second, third = plane_keyframes(3)
    died = fused(make(), [first, second])
    died.remove([first.id], {first.id: second.id})
    back = make(restore=True)
    back.restore()
    again = replace(third, id=first.id, frame_id=9)
    back.integrate(again)
    back.go_on(0, 10.0)
    back.settle(0)
    assert set(back.views.ids) == {first.id, second.id}
    kept = {one.view.order: (one.view.id, one.heir) for one in back._archive.kept()}
    assert sorted(kept.values(), key=str) == [(0, 1), (0, None), (1, None)]
    back.remove([first.id])
    back.move({second.id: third.world_from_cam})
    back.settle(0)
    assert [one.view.id for one in back._archive.kept()] == [second.id]


def test_the_unit_of_the_root_may_change_while_keyframes_come_back(make, plane_keyframes):
    keyframes = plane_keyframes(4)
    died = fused(make(), keyframes)
    died.remove([0], {0: 1})
    back = make(restore=True)
    back.restore()
    metric = {k.id: k.world_from_cam.copy() for k in keyframes[1:]}
    for pose in metric.values():
        pose[:3, 3] *= 3.0
    for mesher in (died, back):
        mesher.move(metric, dict.fromkeys(metric, 3.0), ScaleState.METRIC)
    while back.go_on(0) is not None or not back.is_settled:
        pass
    assert back.stats()["voxel"] == pytest.approx(0.15)
    here, there = voxels_of(back), voxels_of(died)
    assert here.keys() == there.keys()
    assert np.mean([(here[index][0] != there[index][0]).mean() for index in here]) < 1e-3
    assert {one.voxel for one in back._archive.kept()} == {back.stats()["voxel"]}


def test_blocks_that_are_measured_while_keyframes_come_back_are_not_old(make, plane_keyframes):
    keyframes = plane_keyframes(3)
    fused(make(), keyframes[:2])
    back = make(restore=True)
    back.restore()
    back.integrate(keyframes[2])
    band = back.views.outline(2).band
    assert (back._fusion._made.forgetting._in_band[band] == 3).all()


def test_the_newest_capture_of_before_is_that_of_the_surface(make, plane_keyframes):
    keyframes = plane_keyframes(3)
    fused(make(), keyframes)
    back = make(restore=True)
    back.restore()
    delta = back.go_on(0, 10.0)
    assert delta.capture_ns == keyframes[-1].stamp_ns
