# SPDX-License-Identifier: Apache-2.0
"""Coarser levels, and blocks of different levels side by side: nothing cracks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from block_lab import NODE, VOXEL, blocks_of, bumpy, sphere, stitched_by_node

from worldsystem_core.mesh_code.code import decode, encode
from worldsystem_core.mesh_levels import (
    CLUSTER_VOXELS,
    CLUSTERS,
    canonical_faces,
    clustered,
    stitched,
)

RADIUS = 13.0


@pytest.fixture(scope="module")
def ball():
    return blocks_of(sphere(RADIUS), 2)


def mixed(blocks, seed: int):
    """Each block at a level of its own."""
    levels = np.random.default_rng(seed).integers(0, 3, len(blocks))
    by_level = [list(blocks), clustered(blocks, 1), clustered(blocks, 2)]
    return [by_level[level][i] for i, level in enumerate(levels)]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("shape", ["sphere", "bumpy"])
def test_a_closed_surface_stays_closed_at_any_mixture_of_levels(ball, seed, shape, edge_uses):
    blocks = ball if shape == "sphere" else blocks_of(bumpy(RADIUS, seed), 2)
    uses = edge_uses(stitched(mixed(blocks, seed)))
    assert len(uses) > 200
    assert (uses % 2 == 0).all()


def test_a_ball_of_mixed_levels_holds_what_a_ball_holds(ball):
    mesh = stitched(mixed(ball, 5))
    a, b, c = np.moveaxis(mesh.vertices[mesh.faces].astype(float), 1, 0)
    volume = np.einsum("ij,ij->", a, np.cross(b, c)) / 6
    assert volume == pytest.approx(4 / 3 * np.pi * (RADIUS * VOXEL) ** 3, rel=0.06)


@pytest.mark.parametrize("level", [1, 2])
def test_a_coarser_level_lies_near_the_surface_with_a_fraction_of_the_vertices(ball, level):
    coarse = clustered(ball, level)
    vertices = np.concatenate([block.vertices for block in coarse])
    off = np.abs(np.linalg.norm(vertices / VOXEL - (0.3, -0.2, 0.1), axis=1) - RADIUS)
    assert off.max() < 0.5 * CLUSTER_VOXELS[level]
    fine = sum(len(block.vertices) for block in ball)
    assert len(vertices) < fine / (2.5 if level == 1 else 6.0)
    assert [block.index for block in coarse] == [block.index for block in ball]


@pytest.mark.parametrize("level", [1, 2])
def test_the_code_keeps_clusters_faces_and_places_to_a_32nd_of_a_cluster(ball, level):
    coarse = clustered(ball, level)
    sent = {}  # a cluster on a rim comes as the first block has it
    for block, there in zip(coarse, decode(encode(ball, VOXEL, level)), strict=True):
        np.testing.assert_array_equal(there.clusters, block.clusters)
        np.testing.assert_array_equal(there.faces, block.faces)
        side, k = CLUSTERS[level], block.clusters.astype(int)
        local = np.stack([k % side, k // side % side, k // side**2], axis=-1)
        for place, mine, got in zip(
            local + (side - 1) * np.array(block.index), block.vertices, there.vertices, strict=True
        ):
            first = sent.setdefault(tuple(place), mine)
            assert np.abs(got - first).max() <= CLUSTER_VOXELS[level] * VOXEL / 32 + 1e-6


def test_opposite_faces_cancel_and_broken_ones_go():
    faces = np.array([[0, 1, 2], [2, 1, 0], [3, 3, 4], [5, 3, 4], [1, 2, 0]])
    assert canonical_faces(faces).tolist() == [[0, 1, 2], [3, 4, 5]]
    assert canonical_faces(np.zeros((0, 3), int)).shape == (0, 3)


def test_a_block_without_lattice_form_has_no_coarser_level(ball):
    with pytest.raises(ValueError, match="lattice form"):
        clustered([replace(ball[0], edges=None)], 1)
    assert clustered([], 2) == []
    assert len(stitched([]).faces) == 0


@pytest.mark.skipif(NODE is None, reason="node is not installed")
def test_the_page_stitches_as_python_does(tmp_path):
    blocks = blocks_of(bumpy(RADIUS), 2)
    levels = np.random.default_rng(3).integers(0, 3, len(blocks))
    codes = [
        encode([b for b, at in zip(blocks, levels, strict=True) if at == level], VOXEL, level)
        for level in (0, 1, 2)
    ]
    expected = stitched([block for code in codes for block in decode(code)])
    corners = []
    for block in stitched_by_node(codes, tmp_path):
        vertices = np.array(block["vertices"], np.float32).reshape(-1, 3)
        corners.append(vertices[np.array(block["faces"], int).reshape(-1, 3)])
    corners = np.concatenate(corners)
    apart = [(corners[:, a] != corners[:, b]).any(axis=1) for a, b in ((0, 1), (1, 2), (2, 0))]
    corners = corners[np.logical_and.reduce(apart)]
    wanted = expected.vertices[expected.faces]
    # pairs of opposite faces that cancel between blocks are drawn by the page, on top of each other
    drawn = {np.sort(corner.view("f4,f4,f4").ravel()).tobytes() for corner in corners}
    assert {np.sort(corner.view("f4,f4,f4").ravel()).tobytes() for corner in wanted} <= drawn
    assert len(corners) - len(wanted) < 0.05 * len(wanted)
