# SPDX-License-Identifier: Apache-2.0
"""A mesher that died: the next one has the surface that it had."""

from __future__ import annotations

import os
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

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
    mesher.settle(0)
    return mesher, [one.view.id for one in kept]


def voxels_of(mesher):
    """Distances and colours, by block index, of blocks that know anything."""
    volume = mesher.volume
    blocks = np.arange(volume.block_count, dtype=np.int32)
    samples, colours = volume.samples(blocks), volume.colours(blocks)
    return {
        tuple(index): (samples[b], colours[b])
        for b, index in enumerate(volume.coords(blocks).tolist())
        if (samples[b] != -32768).any()
    }


def assert_same_voxels(mesher, other):
    """The same blocks with the same distances and colours."""
    ours, theirs = voxels_of(mesher), voxels_of(other)
    assert ours.keys() == theirs.keys()
    for index, (samples, colours) in ours.items():
        there, their_colours = theirs[index]
        np.testing.assert_array_equal(samples, there)
        np.testing.assert_array_equal(colours, their_colours)


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


@pytest.mark.parametrize("when", ["before", "while"])
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
        back.move({newer.id: elsewhere})
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


def test_a_keyframe_that_was_told_elsewhere_meanwhile_lies_there(
    make, make_mesher, plane_keyframes
):
    first, second = plane_keyframes(2)
    fused(make(), [first, second])
    away = replace(second, world_from_cam=first.world_from_cam)
    back = make(restore=True)
    back.restore()
    back.integrate(away)
    back.settle(0)
    assert_same_voxels(back, fused(make_mesher(min_weight=0.5), [first, away]))


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
