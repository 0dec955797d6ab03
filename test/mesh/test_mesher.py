# SPDX-License-Identifier: Apache-2.0
"""The mesher, against surfaces known by geometry and against its own laws."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from worldsystem_core.errors import BackendError, ConfigError
from worldsystem_core.geometry.se3 import pose_from
from worldsystem_core.surface import MeshAssembly
from worldsystem_mesh.config import MeshConfig

VOXEL = 0.05


def shifted(pose: np.ndarray, by: tuple[float, float, float]) -> np.ndarray:
    return pose_from(np.eye(3), np.array(by)) @ pose


def voxels_of(mesher) -> dict[tuple, bytes]:
    """Every block that holds anything: index → its voxels, whatever the block's number."""
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


def test_a_fused_sphere_is_a_closed_surface_at_its_radius(make_mesher, sphere_keyframes, edge_uses):
    mesher = make_mesher()
    for keyframe in sphere_keyframes(48):
        mesher.integrate(keyframe)
    mesher.extract(0)
    mesh = mesher.mesh()
    uses = edge_uses(mesh)
    assert set(uses) == {2}
    assert len(mesh.vertices) - len(uses) + len(mesh.faces) == 2
    error_voxels = (np.linalg.norm(mesh.vertices, axis=1) - 1.0) / VOXEL
    # distance along a ray overestimates, most at grazing views: a third of a voxel at worst
    assert np.abs(error_voxels).max() < 0.35
    assert np.abs(error_voxels).mean() < 0.08
    a, b, c = np.moveaxis(mesh.vertices[mesh.faces], 1, 0)
    volume = np.einsum("ij,ij->", a, np.cross(b, c)) / 6
    assert volume == pytest.approx(4 / 3 * np.pi, rel=0.02)  # positive: normals point outside


def test_a_fused_plane_is_flat(make_mesher, plane_keyframes):
    mesher = make_mesher()
    for keyframe in plane_keyframes(4):
        mesher.integrate(keyframe)
    mesher.extract(0)
    mesh = mesher.mesh()
    assert len(mesh.faces) > 1000
    # half a pixel of rounding at 45° from 2 units away is 0.2 voxels, less when averaged
    assert np.abs(mesh.vertices[:, 2]).max() < 0.25 * VOXEL
    assert np.abs(mesh.vertices[:, 2]).mean() < 0.05 * VOXEL


def test_vertices_take_the_colour_of_the_pixels_that_saw_them(make_mesher, plane_keyframes):
    mesher = make_mesher(min_weight=0.5)
    (keyframe,) = plane_keyframes(1)
    mesher.integrate(keyframe)
    mesher.extract(0)
    mesh, camera = mesher.mesh(), keyframe.camera
    cam_from_world = np.linalg.inv(keyframe.world_from_cam)
    points = mesh.vertices @ cam_from_world[:3, :3].T + cam_from_world[:3, 3]
    u = camera.fx * points[:, 0] / points[:, 2] + camera.cx
    assert np.abs(mesh.colours[:, 0] - u).mean() < 1.0
    assert np.abs(mesh.colours[:, 2].astype(int) - 40).max() <= 1


def test_updates_in_many_steps_give_the_mesh_of_one_extraction(
    make_mesher, sphere_keyframes, triangle_set
):
    stepwise, at_once = make_mesher(), make_mesher()
    for keyframe in sphere_keyframes(12):
        stepwise.integrate(keyframe)
        stepwise.extract(0)
        at_once.integrate(keyframe)
    at_once.extract(0)
    assert triangle_set(stepwise.mesh()) == triangle_set(at_once.mesh())
    assert len(at_once.mesh().faces) > 1000


def test_a_client_that_applies_the_deltas_holds_the_same_surface(
    make_mesher, sphere_keyframes, triangle_set
):
    mesher, client = make_mesher(), MeshAssembly()
    keyframes = sphere_keyframes(12)
    for keyframe in keyframes:
        mesher.integrate(keyframe)
        delta = mesher.extract(keyframe.stamp_ns)
        if delta:
            assert delta.base_sequence == client.sequence
            assert client.apply(delta)
    mesher.remove(range(6))
    delta = mesher.settle(9)
    assert delta.removed
    assert client.apply(delta)
    assert triangle_set(client.mesh()) == triangle_set(mesher.mesh())
    assert delta.total_faces == len(client.mesh().faces) == mesher.stats()["triangles"]
    assert delta.total_vertices == len(client.mesh().vertices)
    assert delta.capture_ns == keyframes[-1].stamp_ns
    assert delta.block_size == pytest.approx(8 * VOXEL)


def test_a_client_that_missed_deltas_catches_up(make_mesher, sphere_keyframes, triangle_set):
    mesher, client, late = make_mesher(), MeshAssembly(), MeshAssembly()
    deltas = []
    for keyframe in sphere_keyframes(8):
        mesher.integrate(keyframe)
        if delta := mesher.extract(0):
            deltas.append(delta)
    mesher.remove([0, 1])
    deltas.append(mesher.settle(0))
    assert client.apply(deltas[0])
    assert not client.apply(deltas[-1])
    assert client.apply(mesher.all_blocks(client.sequence, 0))
    assert late.apply(mesher.all_blocks(0, 0))
    assert triangle_set(client.mesh()) == triangle_set(mesher.mesh())
    assert triangle_set(late.mesh()) == triangle_set(mesher.mesh())
    nothing = mesher.all_blocks(client.sequence, 0)
    assert len(nothing.blocks) == len(nothing.removed) == 0


def test_blocks_out_of_sight_keep_their_version_and_cost_nothing(make_mesher, plane_keyframes):
    mesher = make_mesher(min_weight=0.5)
    keyframes = plane_keyframes(8)
    mesher.integrate(keyframes[0])
    first = {block.index: block.version for block in mesher.extract(0).blocks}
    touched = mesher.integrate(keyframes[7])  # seven units away: nothing in common
    delta = mesher.extract(0)
    assert not {block.index for block in delta.blocks} & set(first)
    assert mesher.stats()["last_extracted_blocks"] <= 8 * touched
    held = {block.index: block.version for block in mesher.all_blocks(0, 0).blocks}
    assert all(held[index] == version for index, version in first.items())


def test_cost_of_an_update_does_not_grow_with_the_map(make_mesher, plane_keyframes):
    mesher = make_mesher(min_weight=0.5)
    extracted = []
    for keyframe in plane_keyframes(20):
        mesher.integrate(keyframe)
        mesher.extract(0)
        extracted.append(mesher.stats()["last_extracted_blocks"])
    assert mesher.stats()["mesh_blocks"] > 4 * max(extracted) / 2
    assert max(extracted[10:]) < 1.3 * max(extracted[1:10])


def test_without_a_change_there_is_no_delta(make_mesher, sphere_keyframes):
    mesher = make_mesher()
    assert mesher.extract(0) is None
    for keyframe in sphere_keyframes(6):
        mesher.integrate(keyframe)
    mesher.extract(0)
    assert mesher.extract(0) is None


def test_moving_a_keyframe_equals_fusing_it_there(make_mesher, sphere_keyframes):
    keyframes = sphere_keyframes(8)
    pose = shifted(keyframes[3].world_from_cam, (0.2, -0.1, 0.05))
    moved, fresh = make_mesher(free_space=False), make_mesher(free_space=False)
    for keyframe in keyframes:
        moved.integrate(keyframe)
        there = pose if keyframe.id == 3 else keyframe.world_from_cam
        fresh.integrate(replace(keyframe, world_from_cam=there))
    assert moved.move({3: pose}).applied == (3,)
    moved.settle(0)
    assert voxels_of(moved) == voxels_of(fresh)


def test_moving_a_keyframe_away_and_back_restores_every_voxel(make_mesher, sphere_keyframes):
    mesher = make_mesher()
    keyframes = sphere_keyframes(8)
    for keyframe in keyframes:
        mesher.integrate(keyframe)
    before = voxels_of(mesher)
    mesher.move({2: shifted(keyframes[2].world_from_cam, (0.5, 0.0, 0.0))})
    mesher.settle(0)
    assert voxels_of(mesher) != before
    mesher.move({2: keyframes[2].world_from_cam})
    mesher.settle(0)
    after = voxels_of(mesher)
    # blocks that exist by now may be worn by the keyframe's free space; all others are equal
    assert all(after[index] == sums for index, sums in before.items())


def test_small_moves_wait_until_they_add_up(make_mesher, sphere_keyframes):
    mesher = make_mesher(move_voxels=0.5)
    (keyframe, *_) = sphere_keyframes(6)
    mesher.integrate(keyframe)
    pose = keyframe.world_from_cam
    assert mesher.move({0: shifted(pose, (0.4 * VOXEL, 0, 0))}).insignificant == (0,)
    assert mesher.move({0: shifted(pose, (0.8 * VOXEL, 0, 0))}).applied == (0,)


def test_removing_keyframes_restores_the_surface_without_them(
    make_mesher, sphere_keyframes, triangle_set
):
    mesher, without = make_mesher(), make_mesher()
    keyframes = sphere_keyframes(12)
    for keyframe in keyframes[:8]:
        mesher.integrate(keyframe)
        without.integrate(keyframe)
    mesher.extract(0)
    for keyframe in keyframes[8:]:
        mesher.integrate(keyframe)
    mesher.extract(0)
    assert mesher.remove(range(8, 12)).applied == (8, 9, 10, 11)
    mesher.settle(0)
    without.extract(0)
    assert voxels_of(mesher) == voxels_of(without)
    assert triangle_set(mesher.mesh()) == triangle_set(without.mesh())


def test_removing_everything_leaves_nothing(make_mesher, sphere_keyframes):
    mesher = make_mesher()
    for keyframe in sphere_keyframes(6):
        mesher.integrate(keyframe)
    drawn = {block.index for block in mesher.extract(0).blocks}
    mesher.remove(range(6))
    delta = mesher.settle(0)
    assert set(delta.removed) == drawn
    assert len(mesher.mesh().faces) == delta.total_faces == delta.keyframe_count == 0
    assert voxels_of(mesher) == {}


def test_a_keyframe_that_comes_twice_is_fused_once(make_mesher, sphere_keyframes):
    once, twice = make_mesher(), make_mesher()
    for keyframe in sphere_keyframes(4):
        once.integrate(keyframe)
        twice.integrate(keyframe)
    twice.integrate(sphere_keyframes(4)[2])
    twice.settle(0)
    assert voxels_of(once) == voxels_of(twice)
    assert twice.stats()["keyframes"] == 4


def test_keyframes_without_a_usable_point_change_nothing(make_mesher, sphere_keyframes):
    mesher = make_mesher()
    (good, other, *_) = sphere_keyframes(4)
    nowhere = np.full_like(good.pointmap, np.nan)
    behind = -np.abs(np.nan_to_num(good.pointmap, nan=1.0))
    empty = [
        replace(good, id=90, pointmap=nowhere),
        replace(good, id=91, confidence=np.zeros_like(good.confidence)),
        replace(good, id=92, confidence=np.full_like(good.confidence, np.nan)),
        replace(good, id=93, pointmap=behind),
        replace(good, id=94, world_from_cam=np.full((4, 4), np.nan)),
    ]
    assert [mesher.integrate(keyframe) for keyframe in empty] == [0] * 5
    mesher.integrate(good)
    mesher.integrate(other)
    mesher.extract(0)
    before = voxels_of(mesher)
    assert [mesher.integrate(keyframe) for keyframe in empty] == [0] * 5
    assert voxels_of(mesher) == before
    assert mesher.extract(0) is None
    assert mesher.stats()["empty_keyframes"] == 10


def test_points_far_beyond_the_median_are_left_out(make_mesher, plane_keyframes):
    mesher = make_mesher(max_depth_ratio=2.0)
    (keyframe,) = plane_keyframes(1)
    pointmap = keyframe.pointmap.copy()
    pointmap[:10, :10] *= 20.0
    blocks = mesher.integrate(replace(keyframe, pointmap=pointmap))
    assert blocks <= make_mesher().integrate(keyframe)


def test_seeing_through_a_surface_wears_it_away(make_mesher, plane_keyframes):
    (keyframe,) = plane_keyframes(1)
    ghost = replace(keyframe, pointmap=keyframe.pointmap * 0.5)

    def faces(free_space: bool) -> int:
        mesher = make_mesher(min_weight=0.5, free_space=free_space)
        mesher.integrate(replace(ghost, id=99))
        for number in range(4):
            mesher.integrate(replace(keyframe, id=number))
        mesher.extract(0)
        near = mesher.mesh().vertices[:, 2] > 0.5
        return int(near.sum())

    assert faces(False) > 500
    assert faces(True) == 0


def test_the_automatic_voxel_follows_the_first_median_depth(make_mesher, sphere_keyframes):
    mesher = make_mesher(voxel=0.0, auto_voxels=50.0)
    keyframe = sphere_keyframes(4)[0]
    mesher.integrate(keyframe)
    median = np.nanmedian(keyframe.pointmap[..., 2])
    assert mesher.stats()["voxel"] == pytest.approx(median / 50, rel=1e-3)  # of every third pixel


def test_the_scene_may_have_any_scale(make_mesher, sphere_keyframes):
    counts = []
    for scale in (1e-4, 1.0, 1e4):
        mesher = make_mesher(voxel=0.0)
        for keyframe in sphere_keyframes(6):
            pose = keyframe.world_from_cam.copy()
            pose[:3, 3] *= scale
            pointmap = keyframe.pointmap * np.float32(scale)
            mesher.integrate(replace(keyframe, world_from_cam=pose, pointmap=pointmap))
        mesher.extract(0)
        counts.append(mesher.stats()["triangles"])
    assert counts[1] > 1000
    assert counts[0] == pytest.approx(counts[1], rel=0.01)
    assert counts[2] == pytest.approx(counts[1], rel=0.01)


def test_keyframes_go_to_disk_and_can_still_be_moved(make_mesher, sphere_keyframes, tmp_path):
    keyframes = sphere_keyframes(16)
    small, roomy = make_mesher(store_mb=1, page_dir=str(tmp_path)), make_mesher()
    poses = {k.id: shifted(k.world_from_cam, (0.1, 0.0, 0.2)) for k in keyframes}
    for mesher in (small, roomy):
        for keyframe in keyframes:
            mesher.integrate(keyframe)
        assert len(mesher.move(poses).applied) == 16
        mesher.settle(0)
    assert voxels_of(small) == voxels_of(roomy)
    stats = small.stats()
    assert stats["stored_keyframes"] == 16
    assert stats["evicted_keyframes"] == 0
    assert stats["disk_bytes"] > 1e6
    assert small.views.bytes <= 1e6


def test_keyframes_that_never_came_are_named_and_counted(make_mesher, sphere_keyframes):
    mesher = make_mesher()
    mesher.integrate(sphere_keyframes(4)[0])
    before = voxels_of(mesher)
    assert mesher.move({9: np.eye(4)}).unreachable == (9,)
    assert mesher.remove([777]).unreachable == (777,)
    mesher.settle(0)
    assert mesher.stats()["unreachable_corrections"] == 2
    assert voxels_of(mesher) == before


def test_a_pose_that_is_not_finite_is_refused(make_mesher, sphere_keyframes):
    """Nor one that is not rigid, as of a similarity."""
    mesher, keyframe = make_mesher(), sphere_keyframes(4)[0]
    mesher.integrate(keyframe)
    before = voxels_of(mesher)
    larger = keyframe.world_from_cam @ np.diag([2.0, 2.0, 2.0, 1.0])
    for pose in (np.full((4, 4), np.nan), larger):
        assert mesher.move({0: pose}).unreachable == (0,)
        mesher.settle(0)
        assert voxels_of(mesher) == before


def test_reset_forgets_everything(make_mesher, sphere_keyframes):
    mesher = make_mesher()
    for keyframe in sphere_keyframes(4):
        mesher.integrate(keyframe)
    mesher.extract(0)
    mesher.reset()
    assert mesher.extract(0) is None
    assert mesher.stats()["blocks"] == mesher.stats()["keyframes"] == 0
    assert len(mesher.mesh().faces) == 0


def test_small_pieces_can_be_left_out_of_the_whole_mesh(make_mesher, plane_keyframes):
    mesher = make_mesher(min_weight=0.5)
    (keyframe,) = plane_keyframes(1)
    mesher.integrate(keyframe)
    pointmap = np.full_like(keyframe.pointmap, np.nan)
    pointmap[50:70, 70:90] = keyframe.pointmap[50:70, 70:90] * np.float32(0.6)
    mesher.integrate(replace(keyframe, id=1, pointmap=pointmap))
    mesher.extract(0)
    everything, large = mesher.mesh(), mesher.mesh(min_component_faces=500)
    assert (everything.vertices[:, 2] > 0.5).any()
    assert not (large.vertices[:, 2] > 0.5).any()
    assert large.faces.max() == len(large.vertices) - 1


def test_settings_out_of_range_are_refused():
    with pytest.raises(ConfigError):
        MeshConfig(device="tpu")
    with pytest.raises(ConfigError):
        MeshConfig(max_weight=1e6)  # sums would leave 32 bits


def test_asking_for_a_cuda_device_that_is_not_there_says_so(make_mesher):
    wp = pytest.importorskip("warp")
    wp.init()
    if wp.is_cuda_available():
        pytest.skip("a CUDA device is there")
    with pytest.raises(BackendError, match="cuda"):
        make_mesher(device="cuda")
