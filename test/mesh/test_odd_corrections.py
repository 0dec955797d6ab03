# SPDX-License-Identifier: Apache-2.0
"""Corrections that come in an order or with gaps that nobody wished for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from voxel_lab import assert_same_voxels

from worldsystem_core.geometry.se3 import pose_from
from worldsystem_mesh.mesher import Mesher

ASIDE = pose_from(np.eye(3), np.array([0.3, 0.0, 0.0]))
AWAY = pose_from(np.eye(3), np.array([0.0, 0.0, 30.0]))


@pytest.fixture
def fused(make_mesher):
    """A mesher with these keyframes, settled."""

    def make(keyframes, **settings) -> Mesher:
        mesher = make_mesher(min_weight=0.5, **settings)
        for keyframe in keyframes:
            mesher.integrate(keyframe)
        mesher.settle(0)
        return mesher

    return make


def test_a_move_without_a_size_leaves_the_size_that_still_waits(fused, sphere_keyframes):
    keyframes = sphere_keyframes(4)
    larger = keyframes[0].world_from_cam.copy()
    larger[:3, 3] *= 1.5
    mesher, twin = fused(keyframes), fused(keyframes)
    mesher.move({0: larger}, {0: 1.5})
    mesher.move({0: ASIDE @ larger})
    twin.move({0: ASIDE @ larger}, {0: 1.5})
    for each in (mesher, twin):
        each.settle(1)
    assert mesher.views.outline(0).scale == 1.5
    assert_same_voxels(mesher, twin)


def test_a_move_after_a_removal_brings_nothing_back(fused, sphere_keyframes):
    keyframes = sphere_keyframes(6)
    mesher = fused(keyframes)
    mesher.remove([0])
    told = mesher.move({0: ASIDE @ keyframes[0].world_from_cam})
    assert told.unreachable == (0,)
    mesher.settle(1)
    assert sorted(mesher.views.ids) == [1, 2, 3, 4, 5]
    assert_same_voxels(mesher, fused(keyframes[1:]))


def test_a_keyframe_that_moves_a_little_and_back_stays_where_it_was(fused, sphere_keyframes):
    keyframes = sphere_keyframes(3)
    mesher, there = fused(keyframes), keyframes[0].world_from_cam
    little = pose_from(np.eye(3), np.array([0.2 * mesher.stats()["voxel"], 0.0, 0.0])) @ there
    assert mesher.move({0: little}).insignificant == (0,)
    mesher.move({0: there})
    mesher.settle(1)
    assert_same_voxels(mesher, fused(keyframes))


def test_what_one_showed_stays_when_the_one_that_replaced_it_never_came(fused, plane_keyframes):
    """An inbox or the disk was full, or it had no usable point. The nearest one stands in."""
    keyframes = plane_keyframes(4)
    mesher, before = fused(keyframes), fused(keyframes)
    mesher.remove([0], {0: 77})
    mesher.settle(1)
    assert not mesher.holds(0)
    assert_same_voxels(mesher, before)
    mesher.move({3: AWAY @ keyframes[3].world_from_cam})  # it does not stand in
    mesher.settle(2)
    assert mesher.stats()["triangles"] > fused(keyframes[1:3]).stats()["triangles"]
    mesher.move({1: AWAY @ keyframes[1].world_from_cam})
    mesher.settle(3)
    gone = fused([keyframes[2]]).stats()["triangles"]
    assert mesher.stats()["triangles"] < 3 * gone  # of the three that are left


def test_one_that_is_about_to_move_stands_in_only_where_no_other_can(fused, plane_keyframes):
    keyframes = plane_keyframes(3)
    mesher = fused(keyframes)
    mesher.move({1: ASIDE @ keyframes[1].world_from_cam})
    mesher.remove([0], {0: 77})
    mesher.settle(1)
    assert mesher._fusion._made.refusion._left_by.keys() == {2}


def test_what_it_gave_stays_when_its_successor_had_been_told_to_move_before(
    fused, plane_keyframes, tmp_path
):
    """The successor goes where it had to go anyway, and has not moved since it stands in; its
    archive says the same. The two see places that are apart."""
    older, *_, newer = plane_keyframes(6)
    there = AWAY @ newer.world_from_cam
    mesher = fused([older, newer], archive_dir=str(tmp_path / "surface"))
    mesher.move({5: there})
    mesher.remove([0], {0: 5})
    mesher.settle(1)
    back = fused([], archive_dir=str(tmp_path / "surface"), restore=True)
    back.restore()
    back.settle(2)
    for each in (mesher, back):
        assert list(each.views.ids) == [5]
        assert_same_voxels(each, fused([older, replace(newer, world_from_cam=there)]))
    mesher.move({5: newer.world_from_cam})
    mesher.settle(3)
    assert_same_voxels(mesher, fused([newer]))


@pytest.mark.parametrize("fault", ["nothing known", "no pinhole"])
def test_the_first_keyframe_that_cannot_be_fused_leaves_the_voxel_of_before(
    make_mesher, sphere_keyframes, fault
):
    keyframes = sphere_keyframes(2)
    points = keyframes[0].pointmap.copy()
    if fault == "no pinhole":
        points[..., :2] = np.random.default_rng(0).uniform(-50, 50, points[..., :2].shape)
    else:
        points[:] = np.nan
    mesher = make_mesher(voxel=0.0, begun_voxel=0.123)
    assert mesher.integrate(replace(keyframes[0], id=99, pointmap=points)) == 0
    assert mesher.stats()["voxel"] == 0.0
    mesher.integrate(keyframes[1])
    assert mesher.stats()["voxel"] == pytest.approx(0.123)


@pytest.mark.parametrize("size", [0.0, -1.0, np.nan, np.inf])
def test_a_size_that_is_none_is_refused_and_others_move_as_ever(fused, sphere_keyframes, size):
    keyframes = sphere_keyframes(4)
    mesher, twin = fused(keyframes), fused(keyframes)
    poses = {k.id: ASIDE @ k.world_from_cam for k in keyframes[:2]}
    told = mesher.move(poses, {0: size, 1: 1.2}, None)
    twin.move({1: poses[1]}, {1: 1.2})
    assert told.unreachable == (0,)
    for each in (mesher, twin):
        each.settle(1)
    assert mesher.views.outline(0).scale == 1.0
    assert_same_voxels(mesher, twin)
