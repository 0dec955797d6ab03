# SPDX-License-Identifier: Apache-2.0
"""Inputs at the edge of what there can be: far away, huge, tiny, single, wrong."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from voxel_lab import assert_same_voxels

from worldsystem_core.errors import ConfigError
from worldsystem_mesh.block_pool import BlockPool
from worldsystem_mesh.config import MeshConfig
from worldsystem_mesh.extraction import SurfaceExtractor
from worldsystem_mesh.launcher import Launcher
from worldsystem_mesh.view import view_from_keyframe
from worldsystem_mesh.volume import BlockVolume

VOXEL = 0.05


def moved_by(keyframe, offset):
    pose = keyframe.world_from_cam.copy()
    pose[:3, 3] += offset
    return replace(keyframe, world_from_cam=pose)


@pytest.mark.parametrize("kilometres", [1.0, 50.0])
def test_far_from_the_origin_the_surface_is_as_exact_as_at_it(
    make_mesher, sphere_keyframes, kilometres
):
    offset = np.array([1000.0 * kilometres, -700.0 * kilometres, 300.0])
    near, far = make_mesher(), make_mesher()
    for keyframe in sphere_keyframes(12):
        near.integrate(keyframe)
        far.integrate(moved_by(keyframe, offset))
    errors = []
    for mesher, centre in ((near, np.zeros(3)), (far, offset)):
        mesher.settle(0)
        cells = mesher.surface.cells(mesher.surface.all_ids())
        corners = 8.0 * cells.index[cells.block_of_vertex()].astype(np.float64)
        places = (corners + cells.lattice_places()) * VOXEL - centre
        errors.append((np.linalg.norm(places, axis=1) - 1.0) / VOXEL)
    assert len(errors[1]) == pytest.approx(len(errors[0]), rel=0.01)
    assert np.abs(errors[1]).mean() == pytest.approx(np.abs(errors[0]).mean(), rel=0.03)


@pytest.mark.parametrize("offset", [1e7, 1e12, 1e30, -1e9])
def test_places_beyond_the_lattice_are_counted_and_left_out(make_mesher, sphere_keyframes, offset):
    mesher = make_mesher()
    keyframes = sphere_keyframes(6)
    mesher.integrate(keyframes[0])
    before = mesher.stats()["blocks"]
    mesher.integrate(moved_by(replace(keyframes[1], id=90), np.array([offset, 0.0, 0.0])))
    stats = mesher.stats()
    assert stats["blocks"] == before
    assert stats["out_of_reach"] == 1
    mesher.move({90: keyframes[1].world_from_cam})  # and it can come back
    mesher.settle(0)
    assert mesher.stats()["blocks"] > before


def test_a_fused_keyframe_that_is_moved_beyond_the_lattice_takes_its_surface_along(
    make_mesher, sphere_keyframes
):
    """As a graph that has diverged tells it; and it can come back."""
    keyframes = sphere_keyframes(6)
    mesher, without, fresh = make_mesher(), make_mesher(), make_mesher()
    for keyframe in keyframes:
        for each in (mesher, fresh, *([without] if keyframe.id != 2 else [])):
            each.integrate(keyframe)
    for each in (mesher, without, fresh):
        each.settle(0)
    away = np.array(keyframes[2].world_from_cam)
    away[0, 3] += 1e9
    mesher.move({2: away})
    mesher.settle(0)
    assert mesher.stats()["out_of_reach"] == 1
    assert mesher.stats()["triangles"] == without.stats()["triangles"]
    mesher.move({2: keyframes[2].world_from_cam})
    mesher.settle(0)
    assert mesher.stats()["triangles"] == fresh.stats()["triangles"]


def test_points_at_a_huge_distance_do_not_reach_back(make_mesher, sphere_keyframes):
    mesher = make_mesher(max_depth_ratio=1e9)
    (keyframe, *_) = sphere_keyframes(6)
    pointmap = keyframe.pointmap.copy()
    pointmap[64, 80] *= np.float32(1e8)  # of the pixels along whose rays free space is looked for
    mesher.integrate(replace(keyframe, pointmap=pointmap))
    assert mesher.stats()["out_of_reach"] == 1
    assert mesher.stats()["blocks"] < 100_000


def test_a_keyframe_told_a_hundred_million_times_as_large_ends_nothing(
    make_mesher, sphere_keyframes
):
    """As a graph that has diverged tells it; what the others showed stays."""
    keyframes = sphere_keyframes(3)
    mesher, without = make_mesher(min_weight=0.5), make_mesher(min_weight=0.5)
    for keyframe in keyframes:
        mesher.integrate(keyframe)
        if keyframe.id != 1:
            without.integrate(keyframe)
    mesher.move({1: keyframes[1].world_from_cam}, {1: 1e8})
    for each in (mesher, without):
        each.settle(0)
    assert mesher.stats()["out_of_reach"] > 0
    assert_same_voxels(mesher, without)


def test_a_weight_that_no_voxel_can_reach_is_refused():
    with pytest.raises(ConfigError, match=r"min_weight = 16\.0 .* max_weight = 15\.0"):
        MeshConfig(min_weight=16.0, max_weight=15.0)
    assert MeshConfig(min_weight=2.1, max_weight=2.1).max_weight == 2.1


@pytest.mark.parametrize("weight", [2.0, 2.1, 7.94, 16.0])
def test_a_voxel_of_the_greatest_weight_counts_where_that_is_also_the_least(weight):
    """Also as whole numbers of units, in which voxels hold it."""
    launcher = Launcher("cpu", 1)
    volume = BlockVolume(MeshConfig(min_weight=weight, max_weight=weight), launcher, VOXEL)
    assert volume.state.voxels.min_weight == volume.state.voxels.max_weight
    launcher.close()


def test_a_single_known_point_is_fused(make_mesher, sphere_keyframes):
    mesher = make_mesher(min_weight=0.5)
    (keyframe, *_) = sphere_keyframes(6)
    pointmap = np.full_like(keyframe.pointmap, np.nan)
    pointmap[60, 80] = keyframe.pointmap[60, 80]
    assert mesher.integrate(replace(keyframe, pointmap=pointmap)) > 0
    mesher.settle(0)  # one pixel's cone holds no whole cell, or a few
    assert mesher.stats()["triangles"] < 100


def test_an_infinite_point_or_confidence_is_no_point(make_mesher, sphere_keyframes):
    clean, dirty = make_mesher(), make_mesher()
    (keyframe, *_) = sphere_keyframes(6)
    pointmap, confidence = keyframe.pointmap.copy(), keyframe.confidence.copy()
    pointmap[50:60, 70:90] = np.nan
    clean.integrate(replace(keyframe, pointmap=pointmap))
    pointmap = keyframe.pointmap.copy()
    pointmap[50:55, 70:90] = np.inf
    pointmap[55:60, 70:80] = -np.inf
    confidence[55:60, 80:90] = np.inf
    dirty.integrate(replace(keyframe, pointmap=pointmap, confidence=confidence))
    blocks = np.arange(clean.volume.block_count, dtype=np.int32)
    assert clean.volume.block_count == dirty.volume.block_count
    np.testing.assert_array_equal(clean.volume.samples(blocks), dirty.volume.samples(blocks))


def test_a_camera_that_turns_its_back_changes_nothing(make_mesher, sphere_keyframes):
    mesher = make_mesher()
    (keyframe, *_) = sphere_keyframes(6)
    mesher.integrate(keyframe)
    before = mesher.volume.samples(np.arange(mesher.volume.block_count, dtype=np.int32))
    behind = replace(keyframe, id=5, pointmap=-keyframe.pointmap)
    assert mesher.integrate(behind) == 0
    after = mesher.volume.samples(np.arange(mesher.volume.block_count, dtype=np.int32))
    np.testing.assert_array_equal(before, after)


def test_pictures_of_one_pixel_and_of_odd_sizes_are_fused(make_mesher, sphere_keyframes):
    mesher = make_mesher(min_weight=0.5)
    (keyframe, *_) = sphere_keyframes(6)
    camera = replace(keyframe.camera, width=1, height=1, cx=0.0, cy=0.0)
    one = replace(
        keyframe,
        id=1,
        camera=camera,
        pointmap=np.array([[[0.0, 0.0, 2.0]]], np.float32),
        confidence=np.ones((1, 1), np.float32),
        rgb=np.zeros((1, 1, 3), np.uint8),
    )
    assert mesher.integrate(one) > 0
    cut = replace(keyframe.camera, width=37, height=3)
    v, u = np.mgrid[:3, :37]
    rays = np.dstack([(u - cut.cx) / cut.fx, (v - cut.cy) / cut.fy, np.ones_like(u)])
    odd = replace(
        keyframe,
        id=2,
        camera=cut,
        pointmap=(2.0 * rays).astype(np.float32),
        confidence=np.ones((3, 37), np.float32),
        rgb=keyframe.rgb[:3, :37],
    )
    blocks = mesher.integrate(odd)
    kept = mesher.views.get(2)
    assert blocks == len(kept.blocks)
    width_m = 2.0 * 36 / cut.fx
    # the band holds at least the row of blocks that the picture's width crosses
    assert len(kept.band) >= width_m / (8 * VOXEL)
    np.testing.assert_allclose(kept.depth * kept.depth_step, np.full((3, 37), 2.0), rtol=1e-3)


def test_blocks_without_room_are_unknown_to_whoever_looks(sphere_keyframes):
    """Not what others are, whose voxels lie in the last slots."""
    config = MeshConfig(voxel=0.5 * VOXEL, memory_mb=8, min_weight=0.5)
    launcher = Launcher("cpu", 1)
    volume = BlockVolume(config, launcher, config.voxel)
    volume.pool._budget_bytes = 0  # the least: eight blocks
    volume.add(view_from_keyframe(sphere_keyframes(6)[0], config, 1))
    blocks = np.arange(50, dtype=np.int32)
    assert volume.block_count > len(blocks)
    volume.state.voxels.sdf.numpy()[:] = 1234
    volume.state.voxels.paint.numpy()[:] = 200 << 24 | 0x030201
    samples, colours = volume.samples(blocks), volume.colours(blocks)
    here = volume.pool.slot[blocks] >= 0
    assert here.sum() == 8
    assert (samples[here] == 1234).all()
    assert (samples[~here] == -32768).all()
    assert (colours[here] == (1, 2, 3)).all()
    assert (colours[~here] == 0).all()
    launcher.close()


def test_the_surface_of_a_single_block_is_not_changed_by_the_next_extraction(sphere_keyframes):
    config = MeshConfig(voxel=VOXEL, redraw_voxels=0.0, min_weight=0.5)
    launcher = Launcher("cpu", 1)
    volume, extractor = BlockVolume(config, launcher, VOXEL), SurfaceExtractor(launcher)
    for i, keyframe in enumerate(sphere_keyframes(6)):
        volume.add(view_from_keyframe(keyframe, config, i + 1))
    (whole,) = extractor.surfaces(volume, volume.dirty_blocks())
    counts = whole.cells.face_counts
    drawn = np.flatnonzero(counts)
    few, many = drawn[counts[drawn].argmin()], drawn[counts[drawn].argmax()]
    (one,) = extractor.surfaces(volume, whole.blocks[few : few + 1])
    (other,) = extractor.surfaces(volume, whole.blocks[many : many + 1])
    assert one.cells.face_counts.tolist() == [counts[few]]
    assert other.cells.face_counts.tolist() == [counts[many]]
    assert counts[few] < counts[many]
    assert not np.shares_memory(one.cells.face_counts, other.cells.face_counts)
    launcher.close()


@pytest.mark.gpu
def test_a_cpu_and_a_cuda_device_build_the_same_surface(sphere_keyframes):
    """Vertices within 1e-4 voxel for 999 of 1000; a pixel taken on the other side of a border
    moves the rest."""
    wp = pytest.importorskip("warp")
    wp.init()
    if not wp.is_cuda_available():
        pytest.skip("no CUDA device")
    config = MeshConfig(voxel=VOXEL, redraw_voxels=0.0)
    found = []
    for device in ("cpu", "cuda"):
        launcher = Launcher(device, 2)
        volume = BlockVolume(config, launcher, VOXEL)
        for i, keyframe in enumerate(sphere_keyframes(12)):
            view = view_from_keyframe(keyframe, config, i + 1)
            volume.add(view)
        places = {}
        for part in SurfaceExtractor(launcher).surfaces(volume, volume.dirty_blocks()):
            cells = part.cells
            index = cells.index[cells.block_of_vertex()]
            at = cells.lattice_places()
            for key, edge, place in zip(index.tolist(), cells.edges.tolist(), at, strict=True):
                places[(*key, edge)] = place
        found.append(places)
        launcher.close()
    cpu, cuda = found
    both = cpu.keys() & cuda.keys()
    assert len(both) >= 0.999 * max(len(cpu), len(cuda))
    gap = np.array([np.abs(cpu[key] - cuda[key]).max() for key in both])
    assert (gap <= 1e-4).mean() >= 0.999


def test_where_a_device_has_no_memory_for_more_blocks_older_ones_go_to_disk(
    sphere_keyframes, monkeypatch, tmp_path
):
    config = MeshConfig(voxel=VOXEL, min_weight=0.5, page_dir=str(tmp_path))
    launcher = Launcher("cpu", 1)
    whole, short = (BlockVolume(config, launcher, VOXEL) for _ in range(2))
    views = [view_from_keyframe(one, config, one.id + 1) for one in sphere_keyframes(6)]
    most = max(len(whole.add(view).blocks) for view in views)
    assert most < whole.block_count

    def no_memory(self, slots):
        raise RuntimeError(f"Failed to allocate {slots} slots on device 'cuda:0'")

    monkeypatch.setattr(BlockPool, "_allocate", no_memory)
    short.pool._slots = most
    for view in views:
        short.add(view)
    assert (short.slot_limit, short.refused_blocks) == (most, 0)
    assert short.pool.paged_out > 0
    for first in range(0, whole.block_count, 8):
        some = np.arange(first, min(first + 8, whole.block_count), dtype=np.int32)
        np.testing.assert_array_equal(short.samples(some), whole.samples(some))
    for each in (whole, short):
        each.close()
    launcher.close()
