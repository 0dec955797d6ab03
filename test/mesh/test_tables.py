# SPDX-License-Identifier: Apache-2.0
"""The marching-cubes table, by its laws."""

from __future__ import annotations

from collections import Counter
from itertools import product

import numpy as np
import pytest

from worldsystem_mesh.tables import EDGES, case_triangles, edge_offset_table, triangle_count_table


def test_every_case_uses_exactly_the_edges_whose_ends_differ():
    for case, triangles in enumerate(case_triangles()):
        crossed = {
            i for i, (low, high) in enumerate(EDGES) if (case >> low & 1) != (case >> high & 1)
        }
        assert {edge for triangle in triangles for edge in triangle} == crossed


def test_no_case_needs_more_than_five_triangles_and_none_draw_nothing():
    counts = triangle_count_table()
    assert counts.max() == 5
    assert [case for case in range(256) if counts[case] == 0] == [0, 255]


def test_a_corner_alone_gives_a_triangle_that_looks_away_from_it():
    for corner in range(8):
        (triangle,) = case_triangles()[1 << corner]
        a, b, c = (_edge_middle(edge) for edge in triangle)
        away = (a + b + c) / 3 - _corner(corner)
        assert np.cross(b - a, c - a) @ away > 0


def test_edge_numbers_agree_between_cells_that_share_an_edge():
    offsets = edge_offset_table(9)
    owner = {}
    for x, y, z in product(range(2), repeat=3):
        for edge, (low, high) in enumerate(EDGES):
            cell = np.array([x, y, z])
            ends = (*(_corner(low) + cell), *(_corner(high) + cell))
            number = 3 * (x + 9 * y + 81 * z) + offsets[edge]
            assert owner.setdefault(ends, number) == number
    assert len(set(owner.values())) == len(owner)


@pytest.mark.parametrize("seed", range(4))
def test_random_signs_give_surfaces_that_are_closed_manifold_and_oriented(seed):
    inside = np.random.default_rng(seed).random((9, 9, 9)) < 0.5
    inside[[0, -1]] = inside[:, [0, -1]] = inside[:, :, [0, -1]] = False
    offsets, half_edges = edge_offset_table(9), Counter()
    for x, y, z in product(range(8), repeat=3):
        corners = [(x + (c & 1), y + (c >> 1 & 1), z + (c >> 2)) for c in range(8)]
        case = sum(int(inside[corner]) << c for c, corner in enumerate(corners))
        base = 3 * (x + 9 * y + 81 * z)
        for triangle in case_triangles()[case]:
            a, b, c = (base + int(offsets[edge]) for edge in triangle)
            half_edges.update([(a, b), (b, c), (c, a)])
    assert set(half_edges.values()) == {1}
    assert all((b, a) in half_edges for a, b in half_edges)


def _corner(corner: int) -> np.ndarray:
    return np.array([corner & 1, corner >> 1 & 1, corner >> 2])


def _edge_middle(edge: int) -> np.ndarray:
    low, high = EDGES[edge]
    return (_corner(low) + _corner(high)) / 2
