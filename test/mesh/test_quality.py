# SPDX-License-Identifier: Apache-2.0
"""Quality methods on the live surface: while the camera is still, region after region."""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
from depth_keyframe import depth_keyframe
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from worldsystem_core.frames import Camera
from worldsystem_core.reconstruction import Keyframe
from worldsystem_core.surface import Mesh, MeshAssembly
from worldsystem_mesh.config import MeshConfig
from worldsystem_mesh.methods import quality as quality_module
from worldsystem_mesh.methods.fields import RIM, FieldBlend, RegionField
from worldsystem_mesh.methods.fused import differing, fused_samples, with_face_counts
from worldsystem_mesh.methods.quality import QualityPass
from worldsystem_mesh.methods.worker import MethodResult

SETTINGS = {"voxel": 0.08, "device": "cpu", "min_weight": 0.5, "free_space": False}
METHODS = {"method_settle_s": 0.0, "method_region_blocks": 2}


@pytest.fixture
def make_quality():
    made = []

    def make(mesher, **settings) -> QualityPass:
        made.append(QualityPass(MeshConfig(**SETTINGS, **METHODS, **settings), mesher))
        return made[-1]

    yield make
    for quality in made:
        quality.close()


def stand_still(quality: QualityPass) -> None:
    for i in range(5):
        quality.camera(i * 200_000_000, np.zeros(3), metric=False)


def work_through(quality: QualityPass, client: MeshAssembly, limit_s: float = 200.0) -> int:
    """Step until nothing is left to do; the number of deltas that came of it."""
    deltas, deadline = 0, time.monotonic() + limit_s
    quality.step(0)
    while quality._worker.busy:
        assert time.monotonic() < deadline
        delta = quality.step(0)
        if delta is not None:
            assert client.apply(delta)
            deltas += 1
        time.sleep(0.005)
    return deltas


@pytest.mark.timeout(100)
def test_a_settled_region_is_given_to_the_method_and_shown(
    make_mesher, make_quality, sphere_keyframes, triangle_set
):
    mesher, client = make_mesher(**SETTINGS), MeshAssembly()
    quality = make_quality(mesher, method_still="ball_pivoting", method_only_fill=False)
    for keyframe in sphere_keyframes(9):
        mesher.integrate(keyframe)
    fused = mesher.extract(0)
    client.apply(fused)
    quality.take(fused)
    delta, deadline = None, time.monotonic() + 60.0
    while delta is None:
        assert time.monotonic() < deadline
        delta = quality.step(0)
        time.sleep(0.005)
    assert client.apply(delta)
    assert quality.failures == 0
    assert set(quality.methods().values()) == {"ball_pivoting"}
    assert triangle_set(client.mesh()) == triangle_set(mesher.mesh())
    assert all(block.version == delta.sequence for block in delta.blocks)


@pytest.mark.slow
def test_a_still_camera_has_holes_closed_and_the_client_follows(
    make_mesher, make_quality, sphere_keyframes, edge_uses, triangle_set
):
    mesher, client = make_mesher(**SETTINGS), MeshAssembly()
    quality = make_quality(mesher)
    for keyframe in sphere_keyframes(9):
        mesher.integrate(keyframe)
    fused = mesher.extract(0)
    assert client.apply(fused)
    quality.take(fused)
    open_before = (edge_uses(mesher.mesh()) == 1).sum()
    assert open_before > 20
    stand_still(quality)
    assert quality.method == "poisson"
    deltas = work_through(quality, client)
    assert quality.failures == 0
    assert deltas > 0
    assert set(quality.methods().values()) == {"poisson"}
    assert (edge_uses(mesher.mesh()) == 1).sum() < 0.5 * open_before
    off = np.abs(np.linalg.norm(mesher.mesh().vertices, axis=1) - 1.0) / SETTINGS["voxel"]
    assert off.max() < 1.0
    assert triangle_set(client.mesh()) == triangle_set(mesher.mesh())
    # what is fused anew is tsdf again
    mesher.remove([0])
    delta = mesher.settle(1)
    quality.take(delta)
    touched = {tuple(i // 2 for i in block.index) for block in delta.blocks}
    assert touched
    assert not touched & quality.methods().keys()


def test_what_a_neighbour_has_filled_stays_when_its_field_is_kept_no_more(
    make_mesher, make_quality
):
    quality, field = make_quality(make_mesher(**SETTINGS)), object()
    here, beside = (0, 0, 0), (1, 0, 0)

    def reaches_beside() -> bool:
        return (2, 1, 0) in quality._affected(here)

    assert reaches_beside(), "what is fused there is blended with this field"
    quality._showing |= {here, beside}
    assert not reaches_beside()
    assert (1, 1, 1) in quality._affected(here)
    quality._blend.fields[beside] = field
    assert reaches_beside()


def half_a_voxel_larger(region: tuple[int, int, int], side: int) -> RegionField:
    """The field of a sphere around the origin that is larger than the fused one."""
    at = np.arange(-RIM, 8 * side + RIM + 1)
    z, y, x = np.meshgrid(at, at, at, indexing="ij")
    points = np.stack([x, y, z], axis=-1) + 8 * side * np.array(region)
    distance = np.linalg.norm(points, axis=-1) - 1.0 / SETTINGS["voxel"] - 0.5
    return RegionField(distance.astype(np.float16), np.full((*distance.shape, 3), 9, np.uint8))


def welded(mesh: Mesh) -> Mesh:
    """Vertices within a hundredth of a voxel made one: blocks that a method left as they were are
    not told again where rounding moved them by less than a five-hundredth."""
    near = cKDTree(mesh.vertices).query_pairs(0.01 * SETTINGS["voxel"], output_type="ndarray")
    pairs = coo_matrix((np.ones(len(near)), near.T), shape=(len(mesh.vertices),) * 2)
    faces = connected_components(pairs)[1][mesh.faces]
    whole = (faces != np.roll(faces, 1, axis=1)).all(axis=1)
    return replace(mesh, faces=faces[whole])


def test_a_small_change_tears_nothing_that_a_method_has_blended(
    make_mesher, make_quality, sphere_keyframes, edge_uses, triangle_set
):
    mesher, client = make_mesher(**SETTINGS), MeshAssembly()
    quality = make_quality(mesher, method_only_fill=False)
    keyframes = sphere_keyframes(30)
    for keyframe in keyframes:
        mesher.integrate(keyframe)
    fused = mesher.settle(0)
    client.apply(fused)
    quality.take(fused)
    for region in list(quality._regions.settled(np.inf)):
        result = MethodResult(half_a_voxel_larger(region, 2), 0.0)
        client.apply(quality._finished(region, "poisson", result, 0))
    assert set(edge_uses(mesher.mesh())) == {2}, "the sphere is closed"
    nearer = np.full_like(keyframes[0].pointmap, np.nan)
    patch = slice(55, 62), slice(75, 83)
    nearer[patch] = keyframes[0].pointmap[patch] * np.float32(0.975)  # 5 cm
    mesher.integrate(replace(keyframes[0], id=900, pointmap=nearer))
    delta = mesher.settle(1)
    while delta is not None:  # as the node does when nothing comes
        assert client.apply(delta)
        quality.take(delta)
        delta = mesher.go_on(1)
    assert mesher.is_settled
    while quality._fading:
        if (delta := quality.step(1)) is not None:
            assert client.apply(delta)
    assert set(edge_uses(welded(mesher.mesh()))) == {2}
    assert triangle_set(client.mesh()) == triangle_set(mesher.mesh())
    stale = set(quality._regions._stale)
    assert 0 < len(stale) < len(quality._regions)
    larger = np.linalg.norm(mesher.mesh().vertices, axis=1) / SETTINGS["voxel"]
    assert (larger - 1.0 / SETTINGS["voxel"] > 0.4).mean() > 0.3, "the others show what was found"


def test_regions_that_fade_give_others_their_turn(make_mesher, make_quality, monkeypatch):
    """A clock of its own says what each takes: 20 ms, and nothing is changed by it."""
    quality, now_s = make_quality(make_mesher(**SETTINGS), method_still="tsdf"), [0.0]
    monkeypatch.setattr(quality_module, "time", SimpleNamespace(monotonic=lambda: now_s[0]))

    def shown(region: tuple[int, int, int], stamp_ns: int) -> None:
        now_s[0] += 0.02

    monkeypatch.setattr(quality, "_shown", shown)
    quality._fading = {(x, 0, 0) for x in range(100)}
    while quality._fading:
        begun_s = now_s[0]
        assert quality.step(0) is None
        assert 0.0 < now_s[0] - begun_s < 0.2
    assert now_s[0] == pytest.approx(100 * 0.02)


def test_regions_are_drawn_as_they_are_fused_all_at_once(make_mesher, make_quality, monkeypatch):
    mesher = make_mesher(**SETTINGS)
    quality, drawn = make_quality(mesher), []
    monkeypatch.setattr(mesher, "show_fused", drawn.append)
    quality._let_fade({(0, 0, 0), (-2, 1, 3)})
    (index,) = drawn
    assert sorted(map(tuple, index.tolist())) == sorted(
        (2 * x + i, 2 * y + j, 2 * z + k)
        for x, y, z in ((0, 0, 0), (-2, 1, 3))
        for i, j, k in product((0, 1), repeat=3)
    )


def test_what_lies_on_the_lattice_is_no_other_surface_without_any_field(
    make_mesher, plane_keyframes
):
    mesher = make_mesher(voxel=0.05, min_weight=0.5)
    for keyframe in plane_keyframes(4):
        mesher.integrate(keyframe)
    mesher.extract(0)
    volume, surface = mesher.volume, mesher.surface
    ids = surface.all_ids()
    raw = volume.samples(ids[:64])
    assert (raw == 0).any(), "the plane lies on voxels"
    index = surface.index(ids)
    made = FieldBlend(2, only_fill=True).cells(index, fused_samples(volume, index))
    assert not differing(with_face_counts(made), surface.cells_of(ids)).any()


def test_samples_are_the_same_however_few_blocks_fit_in_memory(
    make_mesher, plane_keyframes, tmp_path
):
    small = make_mesher(min_weight=0.5, page_dir=str(tmp_path))
    roomy = make_mesher(min_weight=0.5)
    for mesher in (small, roomy):
        for keyframe in plane_keyframes(2):
            mesher.integrate(keyframe)
        mesher.extract(0)
    pool, every = small.volume.pool, np.arange(small.volume.block_count, dtype=np.int32)
    pool._clock += 1
    pool._page_out(every[pool.slot[every] >= 0])
    pool._budget_bytes = 0
    assert small.volume.slot_limit == 8, "the least"
    index = roomy.surface.index(roomy.surface.all_ids())
    assert len(index) > 2 * 8
    mine, theirs = fused_samples(small.volume, index), fused_samples(roomy.volume, index)
    assert np.isfinite(theirs.distances).any()
    np.testing.assert_array_equal(mine.distances, theirs.distances)
    np.testing.assert_array_equal(mine.colours, theirs.colours)


def test_nothing_is_done_while_the_camera_moves(make_mesher, make_quality, sphere_keyframes):
    mesher = make_mesher(**SETTINGS)
    quality = make_quality(mesher)
    for keyframe in sphere_keyframes(3):
        mesher.integrate(keyframe)
    quality.take(mesher.extract(0))
    for i in range(5):
        quality.camera(i * 200_000_000, np.array([5.0 * i, 0.0, 0.0]), metric=True)
    assert quality.method == "tsdf"
    assert quality.camera_speed == pytest.approx(25.0)
    assert quality.step(0) is None
    assert not quality._worker.busy
    assert quality.methods() == {}


def test_a_camera_that_was_never_seen_is_still(make_mesher, make_quality):
    quality = make_quality(make_mesher(**SETTINGS), method_still="ball_pivoting")
    assert quality.method == "ball_pivoting"
    assert quality.camera_speed == 0.0
    assert quality.step(0) is None


@pytest.mark.parametrize(("side", "kept"), [(4, 256), (8, 51), (16, 27)])
def test_of_larger_regions_fewer_fields_are_kept(make_mesher, monkeypatch, side, kept):
    """At 16 blocks an edge a field takes 12.9 MB."""
    field = RegionField(np.zeros((1, 1, 1), np.float16), np.zeros((1, 1, 1, 3), np.uint8))
    config = MeshConfig(**SETTINGS, method_region_blocks=side)
    quality = QualityPass(config, make_mesher(**SETTINGS))
    monkeypatch.setattr(quality, "_shown", lambda region, stamp_ns: None)
    for x in range(300):
        quality._finished((x, 0, 0), "poisson", MethodResult(field, 0.0), 0)
    assert len(quality._blend.fields) == kept
    quality.close()


def wall(id: int, voxels_away: float) -> Keyframe:
    """A wall straight ahead of a camera at the origin."""
    camera = Camera.from_horizontal_fov(96, 96, 1.0)
    depth = np.full((96, 96), voxels_away * SETTINGS["voxel"])
    return depth_keyframe(id, depth, camera)


def filled_behind_the_wall() -> RegionField:
    """A plane 28.5 voxels away, in the region from 16 to 32."""
    z = np.arange(-RIM, 2 * 8 + RIM + 1.0)
    near = np.where(np.abs(12.5 - z) <= 2.5, 12.5 - z, np.nan)
    shape = (len(z),) * 3
    distances = np.broadcast_to(near[:, None, None], shape).astype(np.float16)
    return RegionField(distances, np.full((*shape, 3), 9, np.uint8))


@pytest.mark.parametrize("vanishes", [True, False], ids=["no surface left", "too few vertices"])
def test_what_was_filled_goes_where_no_method_sees_the_region_again(
    make_mesher, make_quality, vanishes
):
    """The wall is in blocks 1 and 2 along z. One keyframe alone, which is too few to count, reached
    block 3, which is filled and not fused into again."""
    mesher, client = make_mesher(**{**SETTINGS, "min_weight": 1.5}), MeshAssembly()
    quality = make_quality(mesher, method_min_points=1 << 20)
    for keyframe in (wall(0, 18.0), wall(1, 18.0), wall(2, 29.0)):
        mesher.integrate(keyframe)
    fused = mesher.settle(0)
    assert client.apply(fused)
    quality.take(fused)
    result = MethodResult(filled_behind_the_wall(), 0.0)
    assert client.apply(quality._finished((0, 0, 1), "poisson", result, 0))
    assert {z for _, _, z in client.blocks} == {2, 3}
    if vanishes:
        mesher.remove([0, 1])
        delta = mesher.settle(1)
    else:
        quality.take(fused)  # as when fusion changes the region
        assert quality.step(1) is None
        delta = mesher.go_on(1)
    while delta is not None:  # as the node does when nothing comes
        assert client.apply(delta)
        quality.take(delta)
        delta = mesher.go_on(1)
    while quality._fading:
        if (delta := quality.step(1)) is not None:
            assert client.apply(delta)
    assert {z for _, _, z in client.blocks} == (set() if vanishes else {2})
