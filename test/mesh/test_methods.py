# SPDX-License-Identifier: Apache-2.0
"""Quality methods: what each makes of points of a known surface, and how regions join the rest."""

from __future__ import annotations

import os
import signal
import time
import tracemalloc
from dataclasses import replace
from multiprocessing.connection import Connection

import numpy as np
import pytest
from block_lab import VOXEL, blocks_of, delta, sphere

from worldsystem_core.errors import BackendError
from worldsystem_core.mesh_code.cells import SurfaceCells
from worldsystem_core.surface import join_blocks
from worldsystem_mesh.config import MeshConfig
from worldsystem_mesh.methods import worker as worker_module
from worldsystem_mesh.methods.choice import (
    CameraSpeed,
    MethodChooser,
    usable_method,
    world_per_metre,
)
from worldsystem_mesh.methods.fields import FieldBlend, FusedSamples, RegionField
from worldsystem_mesh.methods.lattice import cells_of_samples, mesh_distances
from worldsystem_mesh.methods.regions import RegionMap, fused_points, region_points
from worldsystem_mesh.methods.worker import MethodWorker
from worldsystem_mesh.surface_store import INDEX_BYTES
from worldsystem_mesh.weld import weld

RADIUS = 11.0
CENTRE = np.array([0.3, -0.2, 0.1])
HOLE = 2.2


@pytest.fixture(scope="module")
def ball():
    return blocks_of(sphere(RADIUS), 2)


@pytest.fixture(scope="module")
def ball_points(ball):
    return region_points(ball, np.zeros(3, int), VOXEL)


def ball_samples(index: np.ndarray, hole: float = 0.0) -> FusedSamples:
    """What a volume that saw the ball would hold: a band, with a hole around the +x pole."""
    z, y, x = np.mgrid[:9, :9, :9]
    points = 8.0 * index[:, None, None, None, :] + np.stack([x, y, z], axis=-1)
    distance = np.linalg.norm(points - CENTRE, axis=-1) - RADIUS
    beside = np.linalg.norm(points[..., 1:] - CENTRE[1:], axis=-1)
    unknown = (np.abs(distance) > 4.0) | ((beside < hole) & (points[..., 0] > 0))
    return FusedSamples(
        np.where(unknown, np.nan, distance).astype(np.float32),
        np.full((*points.shape[:-1], 3), 90, np.uint8),
    )


def all_blocks(half: int) -> np.ndarray:
    z, y, x = np.mgrid[-half:half, -half:half, -half:half].reshape(3, -1)
    return np.stack([x, y, z], axis=-1).astype(np.int32)


def fused_blocks(hole: float) -> list:
    index = all_blocks(2)
    samples = ball_samples(index, hole)
    cells = cells_of_samples(
        index, np.ones(len(index), np.int32), samples.distances, samples.colours
    )
    return [block for block in cells.blocks(VOXEL) if len(block.faces)]


def test_marching_cubes_in_numpy_agree_with_those_cell_by_cell(ball):
    found = {block.index: block for block in fused_blocks(0.0)}
    assert found.keys() == {block.index for block in ball}
    for block in ball:
        for name in ("cells", "cases", "edges", "faces"):
            np.testing.assert_array_equal(getattr(found[block.index], name), getattr(block, name))
        np.testing.assert_allclose(found[block.index].vertices, block.vertices, atol=1e-5)


@pytest.mark.parametrize("name", ["tsdf", "poisson", "ball_pivoting", "alpha_shape"])
def test_a_method_finds_the_ball_that_its_points_lie_on(ball_points, name):
    mesh = usable_method(name).mesh(ball_points)
    off = np.abs(np.linalg.norm(mesh.vertices - CENTRE, axis=1) - RADIUS)
    assert off.mean() < 0.15
    # an alpha shape of points on a thin shell has holes; it is here because it was asked for
    assert len(mesh.faces) > (100 if name == "alpha_shape" else 2000)
    rng = np.random.default_rng(0)
    ways = rng.normal(size=(500, 3))
    ways /= np.linalg.norm(ways, axis=1, keepdims=True)
    outside = mesh_distances(mesh, (CENTRE + (RADIUS + 1.0) * ways).astype(np.float32))
    known = np.isfinite(outside)
    assert known.mean() > (0.2 if name == "alpha_shape" else 0.9)
    assert (outside[known] > 0.5).mean() > 0.97  # faces look outward
    assert (mesh.colours.max(axis=0) - mesh.colours.min(axis=0) > 100).all()


@pytest.mark.parametrize("name", ["poisson", "ball_pivoting", "alpha_shape"])
def test_a_method_given_almost_nothing_gives_nothing(ball, name):
    empty = region_points([], np.zeros(3, int), VOXEL)
    assert len(usable_method(name).mesh(empty).faces) == 0


def test_nksr_says_that_the_indexs_package_is_a_placeholder():
    if not usable_or_reason("nksr"):
        pytest.skip("NKSR is installed")
    with pytest.raises(BackendError, match="placeholder"):
        usable_method("nksr")
    with pytest.raises(BackendError, match="nksr"):
        MethodChooser(MeshConfig(method_still="nksr"))
    with pytest.raises(BackendError, match="known: tsdf, poisson"):
        usable_method("magic")


def usable_or_reason(name: str) -> str:
    from worldsystem_mesh.methods.choice import METHODS

    return METHODS[name].missing()


@pytest.fixture(scope="module")
def fields_of_the_half_with_the_hole():
    """Poisson's fields of the four regions on the +x side."""
    regions = RegionMap(MeshConfig(method_region_blocks=2))
    regions.take(delta(fused_blocks(HOLE), 1), 0.0)
    return {
        region: RegionField.of(
            usable_method("poisson").mesh(
                fused_points(region, 2, lambda index: ball_samples(index, HOLE))
            ),
            2,
        )
        for region in regions.settled(10.0)
        if region[0] == 0
    }


@pytest.mark.parametrize("only_fill", [True, False])
def test_poisson_closes_a_hole_and_joins_without_a_seam(
    only_fill, edge_uses, fields_of_the_half_with_the_hole
):
    """The hole lies where the four regions meet."""
    fused = fused_blocks(HOLE)
    assert set(edge_uses(weld(join_blocks(fused)))) == {1, 2}
    blend = FieldBlend(2, only_fill=only_fill)
    blend.fields |= fields_of_the_half_with_the_hole
    index = all_blocks(3)
    cells = blend.cells(index, ball_samples(index, HOLE))
    mended = weld(join_blocks([block for block in cells.blocks(VOXEL) if len(block.faces)]))
    assert set(edge_uses(mended)) == {2}
    off = np.abs(np.linalg.norm(mended.vertices / VOXEL - CENTRE, axis=1) - RADIUS)
    assert off.max() < 0.5
    assert off.mean() < (0.03 if only_fill else 0.1)


def test_one_region_alone_joins_its_neighbours_without_a_seam(edge_uses):
    """Its field is off by half a voxel; the step is spread over its rim, nothing tears."""
    blend = FieldBlend(2, only_fill=False)
    shape = (2 * 8 + 9,) * 3
    at = np.arange(-4, 21)
    z, y, x = np.meshgrid(at, at, at, indexing="ij")
    distance = np.linalg.norm(np.stack([x, y, z], axis=-1) - CENTRE, axis=-1) - RADIUS - 0.5
    blend.fields[(0, 0, 0)] = RegionField(
        distance.astype(np.float16), np.full((*shape, 3), 9, np.uint8)
    )
    whole = {block.index: block for block in fused_blocks(0.0)}
    reached = np.array(blend.affected((0, 0, 0)), np.int32)
    cells = blend.cells(reached, ball_samples(reached))
    whole |= {block.index: block for block in cells.blocks(VOXEL) if len(block.faces)}
    mesh = weld(join_blocks(list(whole.values())))
    assert set(edge_uses(mesh)) == {2}
    off = np.linalg.norm(mesh.vertices / VOXEL - CENTRE, axis=1) - RADIUS
    deep = (mesh.vertices / VOXEL > 5.0).all(axis=1)
    assert off[deep].min() > 0.4
    assert off.max() < 0.6
    assert np.abs(off[(mesh.vertices < -4.1 * VOXEL).any(axis=1)]).max() < 0.1


def test_regions_settle_one_by_one_and_say_which_method_they_have(ball):
    regions = RegionMap(MeshConfig(method_region_blocks=2, method_settle_s=2.0))
    regions.take(delta(ball, 1), 0.0)
    assert list(regions.settled(1.0)) == []
    assert len(list(regions.settled(2.0))) == 8
    first = next(regions.settled(2.0))
    assert regions.size(first) == (
        sum(len(b.vertices) for b in ball if tuple(i // 2 for i in b.index) == first),
        sum(tuple(i // 2 for i in b.index) == first for b in ball),
    )
    regions.mark(first, "poisson")
    assert regions.methods() == {first: "poisson"}
    assert first not in regions.settled(9.0)
    again = [b for b in ball if tuple(i // 2 for i in b.index) == first]
    regions.take(delta(again, 2), 9.0)
    assert regions.methods() == {}
    assert first not in regions.settled(10.0)
    assert first in regions.settled(11.0)


def test_a_region_forgets_the_blocks_that_lost_their_surface(ball):
    regions = RegionMap(MeshConfig(method_region_blocks=2))
    regions.take(delta(ball, 1), 0.0)
    first = next(regions.settled(9.0))
    members = [b for b in ball if tuple(i // 2 for i in b.index) == first]
    elsewhere = (40, -40, 7)
    regions.take(delta([], 2, removed=(members[0].index, elsewhere)), 5.0)
    assert regions.size(first) == (
        sum(len(b.vertices) for b in members[1:]),
        len(members) - 1,
    )
    assert (regions.change(first), regions.size((20, -20, 3))) == (2, (0, 0))
    assert list(regions.settled(9.0))[-1] == first, "the others have been left alone for longer"


def test_a_region_that_lost_all_its_surface_is_forgotten(ball):
    regions = RegionMap(MeshConfig(method_region_blocks=2))
    assert len(regions.take(delta(ball, 1), 0.0)) == len(regions) == 8
    first = next(regions.settled(9.0))
    regions.mark(first, "poisson")
    members = tuple(b.index for b in ball if tuple(i // 2 for i in b.index) == first)
    assert regions.take(delta([], 2, removed=members), 5.0) == {first}
    assert len(regions) == len(list(regions.settled(9.0))) == 7
    assert (regions.methods(), regions.size(first), regions.change(first)) == ({}, (0, 0), -1)
    regions.take(delta([b for b in ball if b.index in members], 3), 6.0)
    assert regions.size(first)[1] == len(members)


def test_no_region_is_followed_where_no_method_can_be_chosen(ball):
    regions = RegionMap(MeshConfig(method_region_blocks=2, method_still="tsdf"))
    assert regions.take(delta(ball, 1), 0.0) == set()
    assert len(regions) == 0
    assert regions.voxel == pytest.approx(VOXEL), "by which speeds are measured"


def test_regions_take_less_memory_than_the_surface_that_they_follow():
    """Of which places alone are 48 bytes a block."""
    at = np.arange(60_000)
    index = np.stack([at % 245, at // 245, (at * 7) % 3], axis=-1).astype(np.int32)
    plane = delta([], 1)
    regions = RegionMap(MeshConfig())
    tracemalloc.start()
    sizes = np.full(len(index), 90)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("worldsystem_mesh.methods.regions.block_sizes", lambda _: (index, sizes))
        regions.take(plane, 0.0)
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(regions) > 0
    assert used < INDEX_BYTES * len(index)


def test_speed_chooses_the_method_and_density_may_refuse_it():
    chooser = MethodChooser(MeshConfig(method_sparse="ball_pivoting"))
    assert chooser.at_speed(0.05, 1.0) == "poisson"
    assert chooser.at_speed(0.3, 1.0) == "ball_pivoting"
    assert chooser.at_speed(0.7, 1.0) == "tsdf"
    assert chooser.at_speed(float("nan"), 1.0) == "tsdf"
    # 0.05 world units a second are slow where a voxel is one, and fast where it is a thousandth
    assert chooser.at_speed(0.05, world_per_metre(False, 1.0)) == "poisson"
    assert chooser.at_speed(0.05, world_per_metre(False, 0.001)) == "tsdf"
    assert world_per_metre(True, 0.001) == 1.0
    assert chooser.for_region("poisson", 5000, 40) == "poisson"
    assert chooser.for_region("poisson", 60, 1) == "tsdf"
    assert chooser.for_region("poisson", 300, 60) == "tsdf"


def test_speed_is_measured_along_the_path_of_the_last_second():
    speed = CameraSpeed()
    assert np.isnan(speed.per_second())
    for i in range(40):
        angle = i / 10
        speed.add(i * 100_000_000, 2.0 * np.array([np.cos(angle), np.sin(angle), 0.0]))
    assert speed.per_second() == pytest.approx(2.0, rel=0.01)
    for i in range(40, 60):
        speed.add(i * 100_000_000, np.array([5.0, 0.0, 0.0]))
    assert speed.per_second() == pytest.approx(0.0, abs=1e-9)
    speed.add(0, np.zeros(3))
    assert np.isnan(speed.per_second())


def finished(worker: MethodWorker, limit_s: float = 60.0):
    deadline = time.monotonic() + limit_s
    while (result := worker.poll()) is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return result


def test_a_worker_survives_what_goes_wrong_in_its_process(ball_points):
    worker = MethodWorker(40.0, 2)
    try:
        worker.start("tsdf", ball_points)
        field = finished(worker).field
        assert field.distances.shape == (25, 25, 25)
        np.testing.assert_allclose(field.distances[4, 4, 14], -1.3, atol=0.1)  # at (10, 0, 0)
        worker.start("no such method", ball_points)
        assert "KeyError" in finished(worker).problem
        os.kill(worker._process.pid, signal.SIGSTOP)  # it cannot be done before it is killed
        worker.start("tsdf", ball_points)
        worker._process.kill()
        assert "ended" in finished(worker).problem
        worker.start("tsdf", ball_points)
        assert finished(worker).field is not None
    finally:
        worker.close()
    assert worker.poll() is None


def test_a_job_that_takes_too_long_is_given_up(ball_points):
    worker = MethodWorker(0.0, 2)
    try:
        worker.start("poisson", ball_points)
        time.sleep(0.01)
        assert "longer than" in finished(worker).problem
        assert not worker.busy
    finally:
        worker.close()


def test_a_process_that_ends_before_it_reads_its_job_costs_no_more_than_that_job(
    ball_points, monkeypatch
):
    """The job is larger than what a pipe takes before somebody reads."""
    large = replace(ball_points, points=np.zeros((500_000, 3), np.float32))
    worker = MethodWorker(40.0, 2)
    try:
        monkeypatch.setattr(worker_module, "_work", Connection.close)
        begun_s = time.monotonic()
        worker.start("tsdf", large)
        assert time.monotonic() - begun_s < 1.0
        assert worker.busy
        assert "ended with" in finished(worker).problem
        assert not worker.busy
    finally:
        worker.close()


def test_an_end_of_an_edge_that_has_no_colour_takes_that_of_the_other():
    index = all_blocks(2)
    samples = ball_samples(index)
    samples.colours[samples.distances > 0.0] = 0  # only seen through
    version = np.zeros(len(index), np.int32)
    cells = cells_of_samples(index, version, samples.distances, samples.colours)
    assert len(cells.colours) > 1000
    assert (cells.colours == 90).all()


def test_no_samples_give_no_cells():
    empty = np.full((1, 9, 9, 9), np.nan, np.float32)
    cells = cells_of_samples(
        np.zeros((1, 3), np.int32),
        np.zeros(1, np.int32),
        empty,
        np.zeros((1, 9, 9, 9, 3), np.uint8),
    )
    assert isinstance(cells, SurfaceCells)
    assert len(cells.edges) == len(cells.cells) == 0
    assert [len(block.faces) for block in cells.blocks(VOXEL)] == [0]
