# SPDX-License-Identifier: Apache-2.0
"""Drawing only what moved: less work, bounded lag, and no cracks between old and new blocks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from worldsystem_core.mesh_code.cells import edge_points

VOXEL = 0.05


def shaken(keyframes, count: int, rng: np.random.Generator, share: float = 0.003):
    """The keyframes over and over, each time with other errors (0.003: about 0.2 voxel)."""
    for i in range(count):
        keyframe = keyframes[i % len(keyframes)]
        error = 1.0 + rng.normal(0.0, share) + rng.normal(0.0, share / 3, (120, 160, 1))
        yield replace(keyframe, id=i, pointmap=(keyframe.pointmap * error).astype(np.float32))


def places_by_edge(surface) -> tuple[int, int]:
    """Of the lattice edges that several blocks have a vertex on: how many there are, and on how
    many of them the blocks disagree about the place."""
    cells = surface.cells(surface.all_ids())
    axis = cells.edges % 3
    whole = edge_points(cells.edges) + 8 * cells.index[cells.block_of_vertex()].astype(np.int64)
    _, edge = np.unique(np.column_stack([whole, axis]), axis=0, return_inverse=True)
    edge = edge.reshape(-1)
    low = np.full(edge.max() + 1, 1 << 17)
    high = np.zeros(edge.max() + 1, np.int64)
    np.minimum.at(low, edge, cells.shares)
    np.maximum.at(high, edge, cells.shares)
    shared = np.bincount(edge) > 1
    return int(shared.sum()), int((low < high)[shared].sum())


@pytest.mark.parametrize("redraw_voxels", [0.0, 0.1, 0.5])
def test_blocks_drawn_at_different_times_share_their_rims(
    make_mesher, sphere_keyframes, redraw_voxels
):
    mesher = make_mesher(redraw_voxels=redraw_voxels)
    for keyframe in shaken(sphere_keyframes(12), 36, np.random.default_rng(0)):
        mesher.integrate(keyframe)
        mesher.extract(0)
        if mesher.surface.block_count:
            shared, torn = places_by_edge(mesher.surface)
            assert torn == 0
    assert shared > 1000


def test_a_gated_surface_is_closed_and_up_to_date_once_it_settles(
    make_mesher, sphere_keyframes, edge_uses, triangle_set
):
    gated, exact = make_mesher(redraw_voxels=0.3), make_mesher(redraw_voxels=0.0)
    for mesher in (gated, exact):
        for keyframe in shaken(sphere_keyframes(48), 48, np.random.default_rng(0)):
            mesher.integrate(keyframe)
            mesher.extract(0)
    assert triangle_set(gated.mesh()) != triangle_set(exact.mesh())
    assert not gated.is_settled
    assert gated.settle(0) is not None
    assert gated.is_settled
    mesh = gated.mesh()
    assert set(edge_uses(mesh)) == {2}
    assert len(mesh.vertices) - len(edge_uses(mesh)) + len(mesh.faces) == 2
    assert triangle_set(mesh) == triangle_set(exact.mesh())


def test_a_surface_that_is_still_being_drawn_is_not_settled(
    make_mesher, sphere_keyframes, monkeypatch
):
    """Other threads ask, too."""
    mesher = make_mesher(redraw_voxels=0.3)
    for keyframe in sphere_keyframes(3):
        mesher.integrate(keyframe)
    surfaces, settled = mesher._extractor.surfaces, []

    def drawn(*given):
        settled.append(mesher.is_settled)
        return surfaces(*given)

    monkeypatch.setattr(mesher._extractor, "surfaces", drawn)
    mesher.go_on(0)
    assert settled == [False]
    assert mesher.is_settled


def test_the_gate_saves_drawing_and_the_lag_is_bounded(make_mesher, sphere_keyframes):
    counts, meshes = [], []
    for redraw_voxels in (0.0, 0.5):
        mesher = make_mesher(redraw_voxels=redraw_voxels)
        drawn, rng = 0, np.random.default_rng(1)
        for i, keyframe in enumerate(shaken(sphere_keyframes(12), 48, rng, 0.0005)):
            mesher.integrate(keyframe)
            mesher.extract(0)
            drawn += mesher.stats()["last_extracted_blocks"] if i > 24 else 0
        counts.append(drawn)
        meshes.append(mesher.mesh())
    assert counts[1] < 0.7 * counts[0]
    lag = (
        np.linalg.norm(meshes[1].vertices, axis=1).mean()
        - np.linalg.norm(meshes[0].vertices, axis=1).mean()
    )
    assert abs(lag) < 0.5 * VOXEL


def test_a_change_of_colour_alone_is_drawn(make_mesher, plane_keyframes):
    mesher = make_mesher(redraw_voxels=0.1, min_weight=0.5)
    (keyframe,) = plane_keyframes(1)
    for i in range(20):
        mesher.integrate(replace(keyframe, id=i))
        mesher.settle(0)
    red = np.zeros_like(keyframe.rgb)
    red[..., 0] = 255
    mesher.integrate(replace(keyframe, id=50, rgb=red))
    mesher.integrate(replace(keyframe, id=51, rgb=red))
    assert mesher.extract(0) is not None  # 28 levels each, and 32 count as a tenth of a voxel
    for i in range(52, 80):
        mesher.integrate(replace(keyframe, id=i, rgb=red))
    mesher.settle(0)
    colours = mesher.mesh().colours
    assert np.median(colours[:, 0]) > 220
    assert np.median(colours[:, 2]) < 40


def test_with_decay_a_place_seen_long_ago_yields_to_what_is_seen_now(make_mesher, plane_keyframes):
    """A floor seen 24 times, then from elsewhere, then raised by a voxel."""
    heights = []
    here, elsewhere = plane_keyframes(8)[0], plane_keyframes(8)[7]
    for decay_keyframes in (0.0, 4.0):
        mesher = make_mesher(min_weight=0.5, decay_keyframes=decay_keyframes)
        for i in range(24):
            mesher.integrate(replace(here, id=i))
        for i in range(24, 44):
            mesher.integrate(replace(elsewhere, id=i))
        raised = here.world_from_cam.copy()
        raised[2, 3] += VOXEL
        for i in range(44, 46):
            mesher.integrate(replace(here, id=i, world_from_cam=raised))
        mesher.settle(0)
        vertices = mesher.mesh().vertices
        near = np.abs(vertices[:, 0]) < 0.5
        heights.append(float(vertices[near, 2].mean()) / VOXEL)
    assert heights[0] < 0.2
    assert heights[1] > 0.6
