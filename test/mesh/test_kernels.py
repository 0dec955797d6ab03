# SPDX-License-Identifier: Apache-2.0
"""The kernels against their plain twins, on views of random depth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import warp as wp

from worldsystem_core.frames import Camera
from worldsystem_core.geometry.se3 import look_at
from worldsystem_mesh import (
    kernels_fusion,
    kernels_sampling,
    kernels_surface,
    reference,
    volume,
)
from worldsystem_mesh.config import MeshConfig
from worldsystem_mesh.drawing import SurfaceDrawer
from worldsystem_mesh.extraction import PER_BATCH_BLOCK, SurfaceExtractor
from worldsystem_mesh.launcher import Launcher, gathered, head, rows, scatter
from worldsystem_mesh.view import StoredView, painted, view_from_keyframe
from worldsystem_mesh.volume import BlockVolume

CAMERA = Camera.from_horizontal_fov(40, 30, 1.0)
VOXEL = 0.1
STEP = 0.0001
CONFIG = MeshConfig(voxel=VOXEL, truncation_voxels=4.0, min_weight=0.5, redraw_voxels=0.0)


@pytest.fixture(
    params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)],
)
def launcher(request):
    if request.param == "cuda" and not wp.is_cuda_available():
        pytest.skip("no CUDA device")
    made = Launcher(request.param, 2)
    yield made
    made.close()


def random_view(seed: int, nearer: float = 0.0) -> StoredView:
    """A wavy surface some 40 voxels away, with holes and random trust."""
    rng = np.random.default_rng(seed)
    v, u = np.mgrid[0:30, 0:40]
    depth = 40 + 3 * np.sin(u / 5 + seed) + 2 * np.cos(v / 4) + rng.normal(0, 0.2, u.shape)
    depth[rng.random(u.shape) < 0.05] = nearer
    eye = np.array([0.3 * seed, -4.0, 0.1])
    return StoredView(
        id=seed,
        order=seed + 1,
        camera=CAMERA,
        depth=((depth - nearer) * VOXEL / STEP).astype(np.uint16),
        depth_step=STEP,
        paint=painted(
            rng.integers(0, 256, (*u.shape, 3)).astype(np.uint8),
            rng.integers(100, 256, u.shape).astype(np.uint8),
        ),
        world_from_cam=look_at(eye, np.array([0.1 * seed, 0.0, 0.0]), np.array([0.0, 0.1, 1.0])),
        median=40.0 * VOXEL,
    )


def twin_camera(view: StoredView) -> reference.Camera:
    return reference.Camera(view, VOXEL, CONFIG.truncation_voxels, CONFIG.depth_noise)


def twin_rules(fused: BlockVolume) -> reference.Rules:
    voxels = fused.state.voxels
    return reference.Rules(voxels.min_weight, voxels.max_weight, voxels.watched)


def all_blocks(fused: BlockVolume) -> np.ndarray:
    return np.arange(fused.block_count, dtype=np.int32)


def indices(fused: BlockVolume, blocks: np.ndarray) -> list[tuple[int, int, int]]:
    return [tuple(index) for index in fused.coords(blocks).tolist()]


def state_of(fused: BlockVolume) -> dict[str, np.ndarray]:
    """Every voxel of every block, whatever slot it lies in."""
    slots = fused.pool.slot[: fused.block_count]
    return {name: fused.pool.rows(name, slots) for name in ("sdf", "paint", "rim")}


def voxels_of(fused: BlockVolume) -> dict[reference.Point, reference.Voxel]:
    held = state_of(fused)
    found = {}
    for block, (x, y, z) in enumerate(indices(fused, all_blocks(fused))):
        for o in range(512):
            point = (8 * x + (o & 7), 8 * y + (o >> 3 & 7), 8 * z + (o >> 6))
            paint = int(held["paint"][block, o])
            rgb = (paint & 255, paint >> 8 & 255, paint >> 16 & 255)
            found[point] = reference.Voxel(int(held["sdf"][block, o]), paint >> 24, rgb)
    return found


def test_the_blocks_of_a_view_are_those_along_its_rays(launcher):
    fused = BlockVolume(CONFIG, launcher, VOXEL)
    view = fused.add(random_view(0))
    found = set(indices(fused, view.band))
    stride = volume.band_stride_px(view, VOXEL)
    expected = reference.band_blocks(twin_camera(view), stride)
    assert len(found ^ expected) <= 0.01 * len(expected)  # a ray on a rim may round either way
    assert len(view.band) == len(found) == fused.block_count


def test_a_point_that_is_too_far_away_is_in_no_block_and_counted(launcher):
    view, step = random_view(0), 0.3
    depth = np.rint(view.depth * (STEP / step)).astype(np.uint16)
    depth[16, 24] = 60_000  # a ray of every walk, 180,000 voxels long
    fused = BlockVolume(CONFIG, launcher, VOXEL)
    view = fused.add(replace(view, depth=depth, depth_step=step))
    expected = reference.band_blocks(twin_camera(view), volume.band_stride_px(view, VOXEL))
    assert len(set(indices(fused, view.band)) ^ expected) <= 0.01 * len(expected)
    assert fused.outside == 1


def test_a_view_touches_existing_blocks_in_its_free_space(launcher):
    fused = BlockVolume(CONFIG, launcher, VOXEL)
    fused.add(random_view(0, nearer=20.0))
    before = set(indices(fused, all_blocks(fused)))
    view = fused.add(random_view(0))
    found = set(indices(fused, view.free))
    camera = twin_camera(view)
    band = reference.band_blocks(camera, volume.band_stride_px(view, VOXEL))
    free = reference.free_space_blocks(camera, volume.FREE_SPACE_STRIDE_PX) & before
    assert len(free - band) > 10
    assert len(found ^ (free - band)) <= 0.02 * len(free)


def test_fused_voxels_agree_with_the_twin(launcher):
    fused, voxels = BlockVolume(CONFIG, launcher, VOXEL), {}
    for seed in range(3):
        view = fused.add(random_view(seed))
        reference.fuse(voxels, indices(fused, view.blocks), twin_camera(view), twin_rules(fused))
    mine = voxels_of(fused)
    differing = 0
    for point, voxel in mine.items():
        twin = voxels.get(point, reference.Voxel())
        close = abs(voxel.sdf - twin.sdf) <= 4 and voxel.weight == twin.weight
        near = max(abs(a - b) for a, b in zip(voxel.rgb, twin.rgb, strict=True)) <= 1
        differing += not (close and near)
    assert len(mine) > 40_000
    assert differing <= 0.005 * len(mine)  # voxels that project onto the border of two pixels


def test_a_block_moves_by_as_much_as_its_twin_says(launcher):
    fused, voxels = BlockVolume(replace_gate(0.1), launcher, VOXEL), {}
    for seed in range(3):
        view = fused.touch(random_view(seed))
        before = fused.change(view.blocks)
        fused.fuse(view, view.blocks)
        fused.note(view.blocks, view.order)
        moved = fused.change(view.blocks) - before
        blocks = indices(fused, view.blocks)
        twin = reference.fuse(voxels, blocks, twin_camera(view), twin_rules(fused))
        expected = np.array([twin[block] for block in blocks]) / 2000.0
        agree = np.abs(moved - expected) < 0.01
        assert agree.mean() > 0.9  # a pixel taken on the other side of a border can be a big move
    assert (moved > 0).mean() > 0.5


def replace_gate(redraw_voxels: float) -> MeshConfig:
    return replace(CONFIG, redraw_voxels=redraw_voxels)


def test_the_extracted_surface_agrees_with_the_twin(launcher):
    fused = BlockVolume(CONFIG, launcher, VOXEL)
    for seed in range(2):
        fused.add(random_view(seed))
    (extracted,) = SurfaceExtractor(launcher).surfaces(fused, all_blocks(fused))
    cells = extracted.cells
    mine = {}
    for i, index in enumerate(cells.index.tolist()):
        drawn = reference.drawn(cells.taken(np.array([i])))
        mine[tuple(index)] = np.array(drawn).reshape(-1, 3, 3)
    twin = reference.surface(voxels_of(fused), mine, fused.state.voxels.min_weight)
    assert sum(len(triangles) for triangles in mine.values()) > 1000
    for index, triangles in mine.items():
        expected = np.array(twin[index]).reshape(-1, 3, 3)
        np.testing.assert_allclose(triangles, expected, atol=1e-4)


def test_one_survey_of_a_block_finds_what_its_three_parts_find():
    """On a CPU they are one kernel; on CUDA three, of which one shares a block among threads."""
    made = Launcher("cpu", 2)
    fused, extractor = BlockVolume(CONFIG, made, VOXEL), SurfaceExtractor(made)
    fused.add(random_view(0))
    (whole,) = extractor.surfaces(fused, all_blocks(fused))
    batch, n, lanes = extractor._batch, fused.block_count, 5
    surveyed = {name: getattr(batch, name).numpy()[:n].copy() for name in PER_BATCH_BLOCK}
    for name in PER_BATCH_BLOCK:
        getattr(batch, name).fill_(0)
    blocks = wp.array(all_blocks(fused), dtype=wp.int32, device="cpu")
    made.whole(kernels_sampling.find_slots, (n, 8), [fused.state, blocks, batch])
    made.whole(kernels_sampling.sample_rows, (n, lanes), [fused.state, batch, lanes])
    made.whole(kernels_surface.count_surface, n, [extractor._tables, batch])
    made.close()
    by_block = np.split(whole.cells.edges.astype(int), whole.cells.vertex_start[1:-1])
    assert all(
        (np.diff(edges) > 0).all() for edges in by_block
    )  # a code's order, docs/mesh_code.md
    counts = batch.counts.numpy()[:n]
    assert counts[:, 0].sum() == len(whole.cells.edges) > 1000
    for name in ("slots", "inside", "known", "counts"):
        np.testing.assert_array_equal(getattr(batch, name).numpy()[:n], surveyed[name])
    for name, column in (("edge_of_vertex", 0), ("cell", 1), ("case_of_cell", 1)):
        used = np.arange(surveyed[name].shape[1]) < counts[:, column, None]
        found = getattr(batch, name).numpy()[:n]
        np.testing.assert_array_equal(found[used], surveyed[name][used])


def test_threads_that_share_a_range_take_every_item_once():
    made = Launcher("cpu", 4)
    for count in (1, 63, 64, 1001):
        fused = BlockVolume(CONFIG, made, VOXEL)
        blocks = np.arange(count, dtype=np.int32)
        fused.state.step.numpy()[:count] = 1000
        fused.make_resident(blocks)
        fused.note(blocks, 1)
        np.testing.assert_array_equal(fused.change(blocks), np.full(count, 0.5, np.float32))
        fused.close()
    made.close()


@wp.kernel
def fade_block(paint: wp.array2d[wp.uint32], share: wp.float32, seed: wp.uint32):
    kernels_fusion.fade(paint, 0, share, seed, wp.vec2i(wp.tid(), 4))


def test_weights_fade_by_as_much_as_they_should_however_small_they_are(launcher):
    paint = wp.array(np.full((1, 512), 200 << 24 | 0x030201, np.uint32), device=launcher.device)
    share, mean = 0.5 ** (1 / 100), []
    for seed in range(400):
        wp.launch(fade_block, 4, [paint, share, 7919 * seed], device=launcher.device)
        mean.append((paint.numpy() >> 24).mean())
    for times in (100, 200, 300, 400):
        assert mean[times - 1] == pytest.approx(200 * share**times, rel=0.1)
    assert (paint.numpy() & 0xFFFFFF == 0x030201).all(), "colours do not fade"


def test_drawn_meshes_agree_with_the_twin(launcher):
    fused = BlockVolume(CONFIG, launcher, VOXEL)
    for seed in range(2):
        fused.add(random_view(seed))
    (extracted,) = SurfaceExtractor(launcher).surfaces(fused, all_blocks(fused))
    on_cpu = Launcher("cpu", 2)
    vertices, faces, starts = SurfaceDrawer(on_cpu).draw(extracted.cells, VOXEL)
    on_cpu.close()
    owner = np.repeat(extracted.cells.vertex_start[:-1], np.diff(starts))
    triangles = vertices[faces + owner[:, None]]
    expected = np.array(reference.drawn(extracted.cells)) * VOXEL
    np.testing.assert_allclose(triangles, expected, atol=1e-5)
    np.testing.assert_array_equal(vertices, extracted.cells.vertices(VOXEL))


def test_dirty_blocks_are_the_changed_ones_and_their_lower_neighbours(launcher):
    fused = BlockVolume(CONFIG, launcher, VOXEL)
    fused.add(random_view(0))
    fused.dirty_blocks()
    before = fused.change(all_blocks(fused))
    fused.add(random_view(1))
    after = fused.change(all_blocks(fused))
    changed = after > np.concatenate([before, np.zeros(len(after) - len(before))])
    existing = set(indices(fused, all_blocks(fused)))
    touched = set(indices(fused, all_blocks(fused)[changed]))
    found = set(indices(fused, fused.dirty_blocks()))
    assert found == reference.dirty_blocks(touched, existing)
    assert len(fused.dirty_blocks()) == 0


def test_a_block_is_drawn_again_once_its_moves_add_up(launcher):
    gated = BlockVolume(replace_gate(0.5), launcher, VOXEL)
    exact = BlockVolume(replace_gate(0.0), launcher, VOXEL)
    drawn = {gated: 0, exact: 0}
    for turn in range(6):
        for fused in drawn:
            fused.add(replace(random_view(0), id=turn, order=turn + 1))
            drawn[fused] += len(fused.dirty_blocks())
    assert drawn[gated] < 0.7 * drawn[exact]
    blocks = all_blocks(gated)
    stale = gated.change(blocks) - gated.state.change_drawn.numpy()[blocks]
    assert 0 < stale.max() <= 0.5
    gated.note_pending()
    pending = set(gated.dirty_blocks().tolist())
    assert set(blocks[stale > 0].tolist()) <= pending
    assert len(gated.dirty_blocks()) == 0


def test_making_blocks_anew_gives_what_fusing_gave(launcher):
    fused, views = BlockVolume(CONFIG, launcher, VOXEL), []
    for seed in range(3):
        views.append(fused.add(random_view(seed)))
    before = state_of(fused)
    blocks = all_blocks(fused)
    masks = np.array([np.isin(blocks, view.blocks) for view in views])
    start = np.concatenate([[0], np.cumsum(masks.sum(axis=0))]).astype(np.int32)
    pairs = np.nonzero(masks.T)[1].astype(np.int32)
    fused.rebuild(blocks, [fused.on_device(view) for view in views], start, pairs)
    after = state_of(fused)
    for name in ("sdf", "paint"):
        np.testing.assert_array_equal(after[name], before[name])


def test_rows_are_gathered_and_scattered_on_their_device(launcher):
    values = np.random.default_rng(0).integers(0, 256, (9, 8, 3)).astype(np.uint8)
    array = wp.array(values, dtype=wp.uint8, device=launcher.device)
    chosen = np.array([7, 0, 3], np.int32)
    np.testing.assert_array_equal(gathered(array, chosen), values[chosen])
    scatter(array, chosen, values[[1, 1, 2]])
    values[chosen] = values[[1, 1, 2]]
    np.testing.assert_array_equal(array.numpy(), values)
    np.testing.assert_array_equal(rows(array, chosen), values[chosen])
    np.testing.assert_array_equal(head(array, 4), values[:4])
    assert len(rows(array, chosen[:0])) == len(head(array, 0)) == 0


def test_compacted_keyframes_agree_with_the_twin(sphere_keyframes):
    keyframe = sphere_keyframes(4)[1]
    rng = np.random.default_rng(2)
    confidence = rng.uniform(-0.2, 1.3, keyframe.confidence.shape).astype(np.float32)
    confidence[10:20] = np.nan
    confidence[20:22] = np.inf
    pointmap = keyframe.pointmap.copy()
    pointmap[40:50, :, 2] *= -1
    keyframe = replace(keyframe, pointmap=pointmap, confidence=confidence)
    view = view_from_keyframe(keyframe, CONFIG, 1)
    farthest = view.depth_step * 65535
    depth, paint = reference.compacted(keyframe, farthest, CONFIG.min_confidence)
    assert (view.depth > 0).sum() > 1000
    assert (np.abs(view.depth.astype(int) - depth) <= 1).all()
    assert ((view.depth == 0) == (depth == 0)).all()
    assert (view.rgb == keyframe.rgb).all()
    assert (np.abs(view.confidence.astype(int) - (paint >> 24)) <= 1).all()


def test_threads_do_not_change_a_bit():
    states = []
    for threads in (1, 3):
        made = Launcher("cpu", threads)
        fused = BlockVolume(CONFIG, made, VOXEL)
        for seed in range(3):
            fused.add(random_view(seed))
        states.append(state_of(fused))
        made.close()
    for name, values in states[0].items():
        np.testing.assert_array_equal(values, states[1][name])


def test_a_full_memory_refuses_what_one_view_needs_at_once(launcher, monkeypatch):
    monkeypatch.setattr(volume, "FIRST_CAPACITY", 256)
    fused = BlockVolume(CONFIG, launcher, VOXEL)
    fused.pool._budget_bytes = 0  # the least: eight blocks
    view = fused.add(random_view(0))
    assert len(view.band) > 50
    assert (fused.pool.slot[: fused.block_count] >= 0).sum() == 8
    assert fused.refused_blocks == len(view.band) - 8


def test_growing_keeps_what_was_fused(launcher, monkeypatch):
    whole = BlockVolume(CONFIG, launcher, VOXEL)
    monkeypatch.setattr(volume, "FIRST_CAPACITY", 16)
    grown = BlockVolume(CONFIG, launcher, VOXEL)
    for seed in range(3):
        whole.add(random_view(seed))
        grown.add(random_view(seed))
    assert grown.block_count == whole.block_count > 16
    states = []
    for fused in (whole, grown):
        order = np.lexsort(fused.coords(all_blocks(fused)).T)
        states.append({name: values[order] for name, values in state_of(fused).items()})
    for name, values in states[0].items():
        np.testing.assert_array_equal(values, states[1][name])


def test_rounding_by_chance_has_the_right_mean(launcher):
    """Small corrections to a saturated voxel arrive, though each is below half a step."""
    fused = BlockVolume(replace(CONFIG, max_weight=31.0), launcher, VOXEL)
    view = fused.touch(random_view(0))
    for turn in range(64):
        fused.fuse(replace(view, id=turn), view.blocks)
    settled = state_of(fused)
    shifted = replace(view, depth_step=view.depth_step * (1 + 0.02 / 40))  # 0.02 voxel, 40 steps
    for turn in range(64, 264):
        fused.fuse(replace(shifted, id=turn), view.blocks)
    now = state_of(fused)
    near = (np.abs(settled["sdf"]) < 2000) & (settled["paint"] >> 24 == now["paint"] >> 24)
    near &= settled["paint"] >> 24 == 248
    moved = (now["sdf"].astype(int) - settled["sdf"])[near]
    assert near.sum() > 1000
    assert np.median(moved) == pytest.approx(40, abs=8)  # the chance leaves a spread of some steps
