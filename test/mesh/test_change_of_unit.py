# SPDX-License-Identifier: Apache-2.0
"""The root changes its unit, and the mesher is told so one keyframe at a time: over the wire each
has a message of its own. The surface is that of a mesher which never knew another unit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from voxel_lab import assert_same_voxels

from worldsystem_core.geometry.se3 import pose_from
from worldsystem_core.keyframe_inbox import joined
from worldsystem_core.reconstruction import MovedKeyframes, ScaleState

RATIO = 16.0
"""A power of two, so that lengths are rounded alike in both units."""

VOXEL, COUNT = 0.0625, 12
ASIDE = np.array([0.1875, 0.0, 0.0])  # three voxels


def in_new_unit(poses: dict[int, np.ndarray]) -> dict[int, np.ndarray]:
    grown = {number: pose.copy() for number, pose in poses.items()}
    for pose in grown.values():
        pose[:3, 3] *= RATIO
    return grown


def moved_aside(poses: dict[int, np.ndarray], ids: range) -> dict[int, np.ndarray]:
    return poses | {i: pose_from(np.eye(3), ASIDE) @ poses[i] for i in ids}


def tell(mesher, poses: dict[int, np.ndarray], each: int, *, idles: bool = False) -> None:
    """Tell the new unit, `each` keyframes a message, the newest first."""
    ids = sorted(poses, reverse=True)
    for start in range(0, len(ids), each):
        part = ids[start : start + each]
        mesher.move({i: poses[i] for i in part}, dict.fromkeys(part, RATIO), ScaleState.METRIC)
        mesher.extract(1)
        if idles:
            mesher.go_on(1, 0.2)


def settled(make_mesher, keyframes):
    mesher = make_mesher(voxel=VOXEL, min_weight=0.5)
    for keyframe in keyframes:
        mesher.integrate(keyframe)
    mesher.settle(0)
    return mesher


def in_the_new_unit_from_the_beginning(make_mesher, keyframes, poses):
    mesher = make_mesher(voxel=VOXEL * RATIO, min_weight=0.5)
    for k in keyframes:
        mesher.integrate(
            replace(k, world_from_cam=poses[k.id], pointmap=np.float32(RATIO) * k.pointmap)
        )
    mesher.settle(0)
    return mesher


@pytest.mark.parametrize("each", [1, 4, COUNT])
@pytest.mark.parametrize("idles", [False, True])
def test_keyframes_that_move_as_the_unit_changes_are_where_they_belong(
    make_mesher, sphere_keyframes, each, idles
):
    keyframes = sphere_keyframes(COUNT)
    mesher = settled(make_mesher, keyframes)
    poses = {k.id: k.world_from_cam for k in keyframes}
    new = in_new_unit(moved_aside(poses, range(9, 12)))
    tell(mesher, new, each, idles=idles)
    mesher.settle(2)
    assert_same_voxels(mesher, in_the_new_unit_from_the_beginning(make_mesher, keyframes, new))


@pytest.mark.parametrize("each", [1, 6, COUNT])
@pytest.mark.parametrize("idles", [False, True])
def test_what_waits_to_move_when_the_unit_changes_goes_where_it_was_told(
    make_mesher, sphere_keyframes, each, idles
):
    keyframes = sphere_keyframes(COUNT)
    mesher = settled(make_mesher, keyframes)
    poses = moved_aside({k.id: k.world_from_cam for k in keyframes}, range(6))
    mesher.move({i: poses[i] for i in range(6)})
    new = in_new_unit(poses)
    tell(mesher, new, each, idles=idles)
    mesher.settle(2)
    assert_same_voxels(mesher, in_the_new_unit_from_the_beginning(make_mesher, keyframes, new))


def test_corrections_that_waited_for_a_busy_mesher_do_not_keep_the_unit_from_changing(
    make_mesher, sphere_keyframes
):
    """It takes what waits at once, made one as far as it can be: moves of before the change, and
    the first few messages of the change."""
    keyframes = sphere_keyframes(COUNT)
    mesher = settled(make_mesher, keyframes)
    poses = moved_aside({k.id: k.world_from_cam for k in keyframes}, range(COUNT))
    new = in_new_unit(poses)
    changes = [MovedKeyframes({i: new[i]}, {i: RATIO}, ScaleState.METRIC) for i in range(4)]
    for event in joined([MovedKeyframes(poses, dict.fromkeys(poses, 1.0)), *changes]):
        mesher.move(event.world_from_cam, event.point_scale, event.scale)
    tell(mesher, {i: new[i] for i in range(4, COUNT)}, 1)
    mesher.settle(2)
    assert mesher.stats()["voxel"] == VOXEL * RATIO
    assert_same_voxels(mesher, in_the_new_unit_from_the_beginning(make_mesher, keyframes, new))


def test_a_unit_ten_times_as_large_that_is_told_in_parts_makes_the_map_no_larger(
    make_mesher, sphere_keyframes
):
    """Views in the old unit, made anew with the new voxel, saw through space ten times as far."""
    keyframes = sphere_keyframes(COUNT)
    mesher = settled(make_mesher, keyframes)
    before = mesher.stats()["blocks"]
    poses = moved_aside({k.id: k.world_from_cam for k in keyframes}, range(6))
    mesher.move({i: poses[i] for i in range(6)})
    for number, pose in reversed(poses.items()):
        shrunk = pose.copy()
        shrunk[:3, 3] *= 0.1
        mesher.move({number: shrunk}, {number: 0.1}, ScaleState.METRIC)
        mesher.go_on(1, 0.2)
    mesher.settle(2)
    assert mesher.stats()["blocks"] < 1.5 * before


def test_the_unit_changes_in_parts_while_keyframes_of_before_come_back(
    make_mesher, plane_keyframes, tmp_path
):
    """Also what others stand in for, before and since."""
    keyframes = plane_keyframes(6)

    def make(**settings):
        folder = str(tmp_path / "surface")
        return make_mesher(voxel=VOXEL, min_weight=0.5, archive_dir=folder, **settings)

    died = make()
    for keyframe in keyframes:
        died.integrate(keyframe)
        died.extract(keyframe.id)
    died.remove([0], {0: 1})
    back = make(restore=True)
    back.restore()
    poses = moved_aside({k.id: k.world_from_cam for k in keyframes}, range(4, 5))
    back.remove([2], {2: 3})
    back.move({4: poses[4]})
    assert back.is_restoring
    new = in_new_unit(poses)
    tell(back, {i: new[i] for i in (1, 3, 4, 5)}, 1)
    back.settle(2)
    assert_same_voxels(back, in_the_new_unit_from_the_beginning(make_mesher, keyframes, new))
    assert {one.voxel for one in back._archive.kept()} == {VOXEL * RATIO}
