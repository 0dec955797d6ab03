# SPDX-License-Identifier: Apache-2.0
"""Moved keyframes: after the work is done, the volume is what fusing at the final poses gives."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from worldsystem_core.geometry.se3 import pose_from
from worldsystem_core.reconstruction import ScaleState
from worldsystem_mesh import refusion as refusion_module


def voxels_of(mesher) -> dict[tuple, bytes]:
    """Every block that holds anything: index → its voxels."""
    volume = mesher.volume
    blocks = np.arange(volume.block_count, dtype=np.int32)
    volume.make_resident(blocks)
    slots = volume.pool.slot[blocks]
    held = [volume.pool.rows(name, slots) for name in ("paint", "sdf")]
    return {
        tuple(index): b"".join(values[b].tobytes() for values in held)
        for b, index in enumerate(volume.coords(blocks).tolist())
        if held[0][b].any()
    }


def drifted(pose: np.ndarray, at: float) -> np.ndarray:
    return pose_from(np.eye(3), 0.3 * at * np.array([1.0, -0.5, 0.2])) @ pose


@pytest.mark.parametrize("free_space", [False, True])
@pytest.mark.parametrize("decay_keyframes", [0.0, 5.0])
def test_a_loop_closure_leaves_what_fusing_at_the_right_poses_gives(
    make_mesher, plane_keyframes, free_space, decay_keyframes
):
    settings = {"free_space": free_space, "decay_keyframes": decay_keyframes, "min_weight": 0.5}
    moved, fresh = make_mesher(**settings), make_mesher(**settings)
    keyframes = plane_keyframes(8)
    for i, keyframe in enumerate(keyframes):
        wrong = drifted(keyframe.world_from_cam, (i + 1) / 8)
        moved.integrate(replace(keyframe, world_from_cam=wrong))
        moved.extract(i)
        fresh.integrate(keyframe)
    correction = moved.move({k.id: k.world_from_cam for k in keyframes})
    assert len(correction.applied) == 8
    moved.settle(0)
    assert voxels_of(moved) == voxels_of(fresh)


def test_at_the_end_moves_too_small_to_count_are_made(make_mesher, plane_keyframes):
    """So that it makes no difference in how many steps they came."""
    moved, fresh = make_mesher(min_weight=0.5), make_mesher(min_weight=0.5)
    keyframes = plane_keyframes(4)
    for i, keyframe in enumerate(keyframes):
        near = drifted(keyframe.world_from_cam, 0.03 * (i + 1) / 8)
        moved.integrate(replace(keyframe, world_from_cam=near))
        fresh.integrate(keyframe)
    correction = moved.move({k.id: k.world_from_cam for k in keyframes})
    assert set(correction.insignificant) == {0, 1, 2, 3}
    while moved.go_on(0) is not None:
        pass
    assert voxels_of(moved) != voxels_of(fresh)
    moved.settle(0)
    assert voxels_of(moved) == voxels_of(fresh)


@pytest.mark.parametrize("free_space", [False, True])
def test_after_a_loop_closure_a_block_knows_for_how_long_it_was_not_seen(
    make_mesher, plane_keyframes, free_space
):
    """What comes next lets it decay by as much as if it had been fused at the right poses."""
    settings = {"free_space": free_space, "decay_keyframes": 2.0, "min_weight": 0.5}
    moved, fresh = make_mesher(**settings), make_mesher(**settings)
    keyframes = plane_keyframes(8)
    for i, keyframe in enumerate(keyframes):
        wrong = drifted(keyframe.world_from_cam, (i + 1) / 8)
        moved.integrate(replace(keyframe, world_from_cam=wrong))
        fresh.integrate(keyframe)
    moved.move({k.id: k.world_from_cam for k in keyframes})
    moved.settle(0)
    back = replace(keyframes[1], id=8)  # where nothing was seen since the fourth
    for mesher in (moved, fresh):
        mesher.integrate(back)
    after, expected = voxels_of(moved), voxels_of(fresh)
    # blocks at the wrong poses are there too, and are seen through
    assert {index: after[index] for index in expected} == expected


def test_views_are_sorted_into_chunks_only_once_something_moves(make_mesher, plane_keyframes):
    mesher = make_mesher(min_weight=0.5)
    keyframes = plane_keyframes(4)
    for keyframe in keyframes:
        mesher.integrate(keyframe)
        mesher.extract(0)
    mesher.remove([1], {1: 2})  # needs none of it
    refusion = mesher._fusion._made.refusion
    assert not refusion._chunks_of_view
    mesher.move({0: drifted(keyframes[0].world_from_cam, 1.0)})
    mesher.settle(0)
    assert refusion._chunks_of_view.keys() == {0, 2, 3}
    assert not refusion._unentered


def test_what_a_removed_keyframe_let_others_see_through_is_forgotten(make_mesher, plane_keyframes):
    """Near things that only it saw, through which the later ones look at the floor."""
    near, *rest = plane_keyframes(3)
    near = replace(near, id=9, pointmap=near.pointmap * np.float32(0.5))
    mesher = fused(make_mesher, [near, *rest])
    mesher.remove([9])
    mesher.settle(0)
    assert voxels_of(mesher) == voxels_of(fused(make_mesher, rest))


def test_blocks_are_made_though_all_keyframes_move_again_before_all_are_placed(
    make_mesher, plane_keyframes
):
    """As in a flight that goes round and round, where each keyframe corrects all others."""
    keyframes = plane_keyframes(8)
    mesher = fused(make_mesher, keyframes)
    refusion, made, fewest = mesher._fusion._made.refusion, [0], len(keyframes)
    for step in range(40):
        mesher.move({k.id: drifted(k.world_from_cam, 0.2 + 0.1 * (step % 2)) for k in keyframes})
        refusion.work(0.001)
        made.append(refusion.pairs_done)
        fewest = min(fewest, mesher.stats()["waiting_keyframes"])
    assert fewest > 0, "the corrections come faster than keyframes are placed"
    assert made[-1] > made[len(made) // 2] > 0
    mesher.settle(0)
    last = {k.id: drifted(k.world_from_cam, 0.3) for k in keyframes}
    there = [replace(k, world_from_cam=last[k.id]) for k in keyframes]
    assert voxels_of(mesher) == voxels_of(fused(make_mesher, there))


def test_of_chunks_that_no_view_is_in_any_more_nothing_is_kept(make_mesher, plane_keyframes):
    keyframes = plane_keyframes(3)
    mesher = fused(make_mesher, keyframes)
    seen = mesher._fusion._made.refusion._seen_in_chunk
    for far in (20.0, 40.0):
        mesher.move({k.id: drifted(k.world_from_cam, far) for k in keyframes})
        mesher.settle(0)
        assert seen
        assert all(seen.values())


def test_saturated_voxels_are_made_anew_exactly(make_mesher, sphere_keyframes):
    """Each voxel reaches its greatest weight: nothing could be subtracted from it."""
    moved = make_mesher(max_weight=2.0, free_space=False)
    fresh = make_mesher(max_weight=2.0, free_space=False)
    for i, keyframe in enumerate(sphere_keyframes(6) * 4):
        again = replace(keyframe, id=i)
        wrong = pose_from(np.eye(3), np.array([0.2, 0.0, 0.0])) @ keyframe.world_from_cam
        moved.integrate(replace(again, world_from_cam=wrong) if i % 3 == 0 else again)
        fresh.integrate(again)
    moved.move({i: (sphere_keyframes(6) * 4)[i].world_from_cam for i in range(0, 24, 3)})
    moved.settle(0)
    assert voxels_of(moved) == voxels_of(fresh)


def test_work_is_done_a_little_at_a_time_and_nearest_first(make_mesher, plane_keyframes):
    mesher = make_mesher(min_weight=0.5)
    keyframes = plane_keyframes(10)
    for keyframe in keyframes:
        mesher.integrate(keyframe)
    mesher.extract(0)
    mesher.move({k.id: drifted(k.world_from_cam, 0.5) for k in keyframes})
    places, steps = [], 0
    while not mesher._fusion._made.refusion.is_idle:
        mesher._fusion._made.refusion.work(0.0002)
        dirty = mesher.volume.dirty_blocks()
        if len(dirty) and not mesher.stats()["waiting_keyframes"]:
            places.append(float(mesher.volume.coords(dirty)[:, 0].mean()) * 8 * 0.05)
        steps += 1
    assert steps > 10
    # the last keyframe, at x = 9, is where the camera is
    first, last = np.mean(places[: len(places) // 4]), np.mean(places[-len(places) // 4 :])
    assert first > last + 3.0


def test_each_update_spends_a_share_of_its_own_time_on_moved_keyframes(
    make_mesher, plane_keyframes
):
    mesher = make_mesher(min_weight=0.5, refusion_share=0.5)
    keyframes = plane_keyframes(12)
    for keyframe in keyframes[:8]:
        mesher.integrate(keyframe)
        mesher.extract(0)
    mesher.move({k.id: drifted(k.world_from_cam, 1.0) for k in keyframes[:8]})
    assert mesher.stats()["waiting_keyframes"] == 8
    for keyframe in keyframes[8:]:
        mesher.integrate(keyframe)
        mesher.extract(0)
    assert mesher.stats()["waiting_keyframes"] < 8, "updates placed some"
    assert not mesher.is_settled
    while not mesher.is_settled:
        mesher.go_on(0)
    assert mesher.stats()["waiting_blocks"] == mesher.stats()["waiting_keyframes"] == 0


def test_a_new_keyframe_is_fused_at_once_while_others_wait(make_mesher, plane_keyframes):
    mesher = make_mesher(min_weight=0.5)
    keyframes = plane_keyframes(9)
    for keyframe in keyframes[:8]:
        mesher.integrate(keyframe)
    mesher.extract(0)
    mesher.move({k.id: drifted(k.world_from_cam, 1.0) for k in keyframes[:8]})
    seen = {block.index for block in mesher.all_blocks(0, 0).blocks}
    mesher.integrate(keyframes[8])
    delta = mesher.extract(1)
    assert {block.index for block in delta.blocks} - seen


def test_a_second_correction_takes_the_place_of_one_that_waits(make_mesher, plane_keyframes):
    twice, once = make_mesher(min_weight=0.5), make_mesher(min_weight=0.5)
    keyframes = plane_keyframes(4)
    for mesher in (twice, once):
        for keyframe in keyframes:
            mesher.integrate(keyframe)
    twice.move({k.id: drifted(k.world_from_cam, 1.0) for k in keyframes})
    final = {k.id: drifted(k.world_from_cam, -1.0) for k in keyframes}
    twice.move(final)
    once.move(final)
    twice.settle(0)
    once.settle(0)
    assert voxels_of(twice) == voxels_of(once)


def test_a_keyframe_can_be_removed_while_its_move_waits(make_mesher, plane_keyframes):
    mesher, without = make_mesher(min_weight=0.5), make_mesher(min_weight=0.5)
    keyframes = plane_keyframes(4)
    for keyframe in keyframes:
        mesher.integrate(keyframe)
    for keyframe in keyframes[:3]:
        without.integrate(keyframe)
    mesher.move({3: drifted(keyframes[3].world_from_cam, 1.0)})
    mesher.remove([3])
    assert mesher.remove([3]).unreachable == (3,)
    mesher.settle(0)
    assert voxels_of(mesher) == voxels_of(without)
    assert mesher.stats()["keyframes"] == 3


def fused(make_mesher, keyframes):
    """A mesher that was given these keyframes."""
    mesher = make_mesher(min_weight=0.5)
    for keyframe in keyframes:
        mesher.integrate(keyframe)
    return mesher


def test_what_a_keyframe_gave_stays_when_another_stands_in_for_it(make_mesher, plane_keyframes):
    mesher = fused(make_mesher, plane_keyframes(4))
    mesher.extract(0)
    before = voxels_of(mesher)
    assert mesher.remove([0], {0: 3}).applied == (0,)
    assert mesher.settle(0) is None
    assert voxels_of(mesher) == before
    assert mesher.stats()["keyframes"] == mesher.stats()["stored_keyframes"] == 3


@pytest.mark.parametrize("also_through", [None, 2])
def test_what_it_gave_goes_when_its_successor_moves(make_mesher, plane_keyframes, also_through):
    """Then all is made anew there, without it: also when the successor was one of another."""
    keyframes = plane_keyframes(4)
    mesher = fused(make_mesher, keyframes)
    there = drifted(keyframes[3].world_from_cam, 1.0)
    rest = keyframes[1:3] if also_through is None else keyframes[1:2]
    mesher.remove([0], {0: also_through or 3})
    if also_through:
        mesher.remove([also_through], {also_through: 3})
    mesher.move({3: there})
    mesher.settle(0)
    fresh = fused(make_mesher, [*rest, replace(keyframes[3], world_from_cam=there)])
    assert voxels_of(mesher) == voxels_of(fresh)


def test_what_it_gave_goes_with_its_successor(make_mesher, plane_keyframes):
    keyframes = plane_keyframes(4)
    mesher = fused(make_mesher, keyframes)
    mesher.remove([0], {0: 3})
    mesher.remove([3])
    mesher.settle(0)
    assert voxels_of(mesher) == voxels_of(fused(make_mesher, keyframes[1:3]))


def test_one_that_waits_to_be_moved_goes_at_once(make_mesher, plane_keyframes):
    """What it gave is in the wrong place."""
    keyframes = plane_keyframes(4)
    mesher = fused(make_mesher, keyframes)
    mesher.move({0: drifted(keyframes[0].world_from_cam, 1.0)})
    mesher.remove([0], {0: 3})
    mesher.settle(0)
    assert voxels_of(mesher) == voxels_of(fused(make_mesher, keyframes[1:]))


def test_keyframes_may_grow_as_they_move(make_mesher, plane_keyframes):
    """A monocular loop closure changes scale along the path."""
    grown, fresh = make_mesher(min_weight=0.5), make_mesher(min_weight=0.5)
    keyframes = plane_keyframes(3)
    pose = keyframes[1].world_from_cam.copy()
    pose[:3, 3] *= 1.1
    for keyframe in keyframes:
        grown.integrate(keyframe)
        larger = np.float32(1.1) * keyframe.pointmap
        there = replace(keyframe, world_from_cam=pose, pointmap=larger)
        fresh.integrate(there if keyframe.id == 1 else keyframe)
    grown.move({1: pose}, point_scale={1: 1.1})
    for mesher in (grown, fresh):
        mesher.settle(0)
    mine, theirs = grown.mesh().vertices, fresh.mesh().vertices
    assert len(mine) == pytest.approx(len(theirs), rel=0.01)
    np.testing.assert_allclose(mine.mean(axis=0), theirs.mean(axis=0), atol=2e-3)
    assert np.abs(mine[:, 2]).mean() < 0.02


def test_when_the_root_gets_a_unit_the_map_grows_without_being_fused_anew(
    make_mesher, sphere_keyframes
):
    mesher = make_mesher()
    keyframes = sphere_keyframes(12)
    for keyframe in keyframes:
        mesher.integrate(keyframe)
    mesher.settle(0)
    before, sequence = mesher.mesh(), mesher.surface.sequence
    poses = {k.id: k.world_from_cam.copy() for k in keyframes}
    for pose in poses.values():
        pose[:3, 3] *= 20.0
    done = mesher.move(poses, point_scale=dict.fromkeys(poses, 20.0), scale=ScaleState.METRIC)
    assert len(done.insignificant) == 12
    delta = mesher.extract(0)
    assert delta.block_size == pytest.approx(8 * 20 * 0.05)
    assert delta.base_sequence == sequence
    assert len(delta.blocks) == mesher.stats()["mesh_blocks"]
    np.testing.assert_allclose(mesher.mesh().vertices, 20.0 * before.vertices, rtol=1e-5)
    mesher.integrate(
        replace(
            keyframes[0],
            id=50,
            world_from_cam=poses[0],
            pointmap=np.float32(20.0) * keyframes[0].pointmap,
        )
    )
    mesher.settle(0)
    radius = np.linalg.norm(mesher.mesh().vertices, axis=1)
    assert np.abs(radius - 20.0).max() < 0.7  # voxels, at grazing views


def test_births_are_counted_seldom_and_long_making_leaves_no_debt(
    make_mesher, plane_keyframes, monkeypatch
):
    """Counting goes through all keyframes: turns are longer than it takes."""
    keyframes = plane_keyframes(8)
    mesher = fused(make_mesher, keyframes)
    refusion, counted, now_s = mesher._fusion._made.refusion, [0], [0.0]

    def taking(work, its_s: float):
        def done(*arguments):
            now_s[0] += its_s
            return work(*arguments)

        return done

    def counting() -> None:
        counted[0] += 1
        count()

    count = refusion._count_births
    monkeypatch.setattr(refusion_module, "time", SimpleNamespace(perf_counter=lambda: now_s[0]))
    monkeypatch.setattr(refusion, "_count_births", taking(counting, 0.02))
    monkeypatch.setattr(refusion, "_plan_one", taking(refusion._plan_one, 0.003))
    monkeypatch.setattr(refusion, "_make", taking(refusion._make, 0.003))
    mesher.move({k.id: drifted(k.world_from_cam, 0.5) for k in keyframes})
    while not refusion.is_idle:
        refusion.work(0.005)
    assert 0 < counted[0] < 8
    assert abs(refusion._ahead_s) < 10.0 * refusion._turn_s
