# SPDX-License-Identifier: Apache-2.0
"""The kernels against their plain twins, on views of random depth."""

from __future__ import annotations

import numpy as np
import pytest

from worldsystem_core.frames import Camera
from worldsystem_core.geometry.se3 import look_at
from worldsystem_mesh import reference, volume
from worldsystem_mesh.config import MeshConfig
from worldsystem_mesh.extraction import SurfaceExtractor
from worldsystem_mesh.launcher import Launcher
from worldsystem_mesh.view import StoredView
from worldsystem_mesh.volume import BlockVolume

CAMERA = Camera.from_horizontal_fov(40, 30, 1.0)
VOXEL = 0.1


@pytest.fixture(
    params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)],
)
def launcher(request):
    if request.param == "cuda":
        wp = pytest.importorskip("warp")
        if not wp.is_cuda_available():
            pytest.skip("no CUDA device")
    made = Launcher(request.param, 2)
    yield made
    made.close()


@pytest.fixture
def config():
    return MeshConfig(voxel=VOXEL, truncation_voxels=4.0, min_weight=0.5)


def random_view(seed: int) -> StoredView:
    """A wavy surface some 40 voxels away, with holes and random trust."""
    rng = np.random.default_rng(seed)
    v, u = np.mgrid[0:30, 0:40]
    depth = 40 + 3 * np.sin(u / 5 + seed) + 2 * np.cos(v / 4) + rng.normal(0, 0.2, u.shape)
    depth[rng.random(u.shape) < 0.05] = 0
    eye = np.array([0.3 * seed, -4.0, 0.1])
    return StoredView(
        id=seed,
        camera=CAMERA,
        depth_voxels=depth.astype(np.float16),
        confidence=rng.integers(100, 256, u.shape).astype(np.uint8),
        rgb=rng.integers(0, 256, (*u.shape, 3)).astype(np.uint8),
        world_from_cam=look_at(eye, np.array([0.1 * seed, 0.0, 0.0]), np.array([0.0, 0.1, 1.0])),
        median_voxels=40.0,
        blocks=np.zeros(0, np.int32),
    )


def twin_camera(view: StoredView, config: MeshConfig) -> reference.Camera:
    return reference.Camera(view, VOXEL, config.truncation_voxels, config.depth_noise)


def fused_pair(launcher, config, count=3):
    """The same views in the volume and in its twin, over the volume's blocks."""
    fused, voxels = BlockVolume(config, launcher, VOXEL), {}
    for seed in range(count):
        view = fused.add(random_view(seed))
        blocks = [tuple(index) for index in fused.coords(view.blocks).tolist()]
        reference.fuse(voxels, blocks, twin_camera(view, config))
    return fused, voxels


def test_the_blocks_of_a_view_are_those_along_its_rays(launcher, config):
    fused = BlockVolume(config, launcher, VOXEL)
    view = fused.add(random_view(0))
    found = {tuple(index) for index in fused.coords(view.blocks).tolist()}
    expected = reference.band_blocks(twin_camera(view, config), volume.BAND_STRIDE_PX)
    assert len(found ^ expected) <= 0.01 * len(expected)  # a ray on a rim may round either way
    assert len(view.blocks) == len(found) == fused.block_count


def test_a_view_touches_existing_blocks_in_its_free_space(launcher, config):
    fused = BlockVolume(config, launcher, VOXEL)
    near, far = random_view(0), random_view(0)
    near = StoredView(**{**near.__dict__, "depth_voxels": near.depth_voxels - np.float16(20)})
    fused.add(near)
    before = {tuple(index) for index in fused.coords(np.arange(fused.block_count)).tolist()}
    view = fused.add(far)
    found = {tuple(index) for index in fused.coords(view.blocks).tolist()}
    camera = twin_camera(far, config)
    band = reference.band_blocks(camera, volume.BAND_STRIDE_PX)
    free = reference.free_space_blocks(camera, volume.FREE_SPACE_STRIDE_PX) & before
    assert len(free - band) > 10
    assert len(found ^ (band | free)) <= 0.02 * len(band | free)


def test_fused_sums_agree_with_the_twin(launcher, config):
    fused, voxels = fused_pair(launcher, config)
    state = fused.state
    differing = compared = 0
    for block, index in enumerate(fused.coords(np.arange(fused.block_count)).tolist()):
        for offset in range(512):
            point = tuple(8 * index[axis] + (offset >> 3 * axis & 7) for axis in range(3))
            twin = voxels[point]
            mine = [
                int(state.weight.numpy()[block, offset]),
                int(state.colour_weight.numpy()[block, offset]),
            ]
            close = (
                abs(int(state.sdf_sum.numpy()[block, offset]) - twin.sdf_sum) <= 0.02 * 2000 * 255
            )
            same_colour = state.colour_sum.numpy()[block, offset].tolist() == twin.colour_sum
            differing += not (mine == [twin.weight, twin.colour_weight] and close and same_colour)
            compared += 1
    assert compared > 50_000
    assert differing <= 0.005 * compared  # voxels that project onto the border of two pixels


def test_the_extracted_surface_agrees_with_the_twin(launcher, config):
    fused, voxels = fused_pair(launcher, config, count=2)
    extractor = SurfaceExtractor(launcher, config.min_weight)
    for block, index in enumerate(fused.coords(np.arange(fused.block_count)).tolist()):
        for offset in range(512):
            point = tuple(8 * index[axis] + (offset >> 3 * axis & 7) for axis in range(3))
            voxels[point].weight = int(fused.state.weight.numpy()[block, offset])
            voxels[point].sdf_sum = int(fused.state.sdf_sum.numpy()[block, offset])
    blocks = np.arange(fused.block_count, dtype=np.int32)
    mine = {s.index: s.vertices[s.faces] / VOXEL for s in extractor.surfaces(fused, blocks)}
    twin = reference.surface(voxels, mine, round(config.min_weight * 255))
    assert sum(len(triangles) for triangles in mine.values()) > 1000
    for index, triangles in mine.items():
        expected = np.array(twin[index]).reshape(-1, 3, 3)
        np.testing.assert_allclose(triangles, expected, atol=1e-3)


def test_dirty_blocks_are_the_changed_ones_and_their_lower_neighbours(launcher, config):
    fused = BlockVolume(config, launcher, VOXEL)
    fused.add(random_view(0))
    fused.dirty_blocks()
    before = fused.state.weight.numpy().copy()
    fused.add(random_view(1))
    kept = len(before)
    changed = (fused.state.weight.numpy()[:kept] != before).any(axis=1)
    numbers = np.arange(fused.block_count)
    existing = {tuple(index) for index in fused.coords(numbers).tolist()}
    new = fused.state.weight.numpy()[kept : fused.block_count].any(axis=1)
    flags = np.concatenate([changed, new])[: fused.block_count]
    touched = {tuple(index) for index in fused.coords(numbers[flags]).tolist()}
    found = {tuple(index) for index in fused.coords(fused.dirty_blocks()).tolist()}
    assert found == reference.dirty_blocks(touched, existing)
    assert len(fused.dirty_blocks()) == 0


def test_taking_a_view_out_restores_every_sum(launcher, config):
    fused = BlockVolume(config, launcher, VOXEL)
    fused.add(random_view(0))
    names = ("sdf_sum", "weight", "colour_sum", "colour_weight")
    before = {name: getattr(fused.state, name).numpy().copy() for name in names}
    fused.take_out(fused.add(random_view(1)))
    for name in names:
        after = getattr(fused.state, name).numpy()
        kept = len(before[name])
        np.testing.assert_array_equal(after[:kept], before[name])
        assert not after[kept:].any()


def test_threads_do_not_change_a_bit(config):
    sums = []
    for threads in (1, 3):
        made = Launcher("cpu", threads)
        fused = BlockVolume(config, made, VOXEL)
        for seed in range(3):
            fused.add(random_view(seed))
        sums.append((fused.state.sdf_sum.numpy().copy(), fused.state.colour_sum.numpy().copy()))
        made.close()
    np.testing.assert_array_equal(sums[0][0], sums[1][0])
    np.testing.assert_array_equal(sums[0][1], sums[1][1])


def test_a_full_volume_refuses_blocks_and_counts_them(launcher):
    fused = BlockVolume(MeshConfig(voxel=VOXEL, max_blocks=16), launcher, VOXEL)
    view = fused.add(random_view(0))
    assert fused.block_count == 16
    assert len(view.blocks) <= 16
    assert fused.refused_blocks > 0
    fused.take_out(view)
    assert not fused.state.weight.numpy().any()


def test_growing_keeps_what_was_fused(launcher, monkeypatch):
    config = MeshConfig(voxel=VOXEL)
    whole = BlockVolume(config, launcher, VOXEL)
    monkeypatch.setattr(volume, "first_capacity", lambda device: 16)
    grown = BlockVolume(config, launcher, VOXEL)
    for seed in range(3):
        whole.add(random_view(seed))
        grown.add(random_view(seed))
    assert grown.block_count == whole.block_count > 16
    sums = []
    for fused in (whole, grown):
        coords = fused.coords(np.arange(fused.block_count))
        order = np.lexsort(coords.T)
        sums.append(fused.state.sdf_sum.numpy()[: fused.block_count][order])
    np.testing.assert_array_equal(sums[0], sums[1])
