# SPDX-License-Identifier: Apache-2.0
"""The surface in chunks for viewers of others, within a bound."""

from __future__ import annotations

from world_for_viewers import delta, ground_block

from worldsystem_core.surface import Mesh
from worldsystem_viewer.chunks import ChunkedSurface, ChunkIndex

BLOCK_BYTES = 40 * 13 * 13  # 40 a vertex


def shown(surface: ChunkedSurface) -> dict[ChunkIndex, Mesh]:
    """What a viewer is told now."""
    found = {}
    while (part := surface.take_changed()) is not None:
        found[part[0]] = part[1]
    return found


def test_above_the_limit_goes_what_changed_longest_ago():
    surface = ChunkedSurface(10 * BLOCK_BYTES)
    for number in range(30):
        surface.apply(delta([ground_block(4 * number, 0)], number + 1))
        assert surface.bytes <= 10 * BLOCK_BYTES
    told = shown(surface)
    assert set(told) == {(number, 0, 0) for number in range(30)}
    full = {chunk for chunk, mesh in told.items() if len(mesh.faces)}
    assert 8 <= len(full) <= 10
    assert full == {(number, 0, 0) for number in range(30 - len(full), 30)}
    assert shown(surface) == {}


def test_a_block_that_changes_again_and_again_counts_once_and_stays():
    surface = ChunkedSurface(10 * BLOCK_BYTES)
    for number in range(30):
        surface.apply(delta([ground_block(0, 0), ground_block(4 * number + 4, 0)], number + 1))
    assert len(shown(surface)[0, 0, 0].faces) == 288
    assert surface.bytes <= 10 * BLOCK_BYTES


def test_a_removed_block_takes_no_room():
    surface = ChunkedSurface(10 * BLOCK_BYTES)
    surface.apply(delta([ground_block(0, k) for k in range(4)], 1))
    assert surface.bytes == 4 * BLOCK_BYTES
    surface.apply(delta([], 2, removed=((0, 0, 0), (0, 0, 0), (7, 7, 7))))
    assert surface.bytes == 3 * BLOCK_BYTES
    assert len(shown(surface)[0, 0, 0].faces) == 3 * 288


def test_of_no_surface_nothing_is_shown():
    surface = ChunkedSurface(0)
    surface.apply(delta([], 1))
    assert shown(surface) == {}
    surface.apply(delta([ground_block(0, 0)], 2))
    assert surface.bytes == 0
    assert [len(mesh.faces) for mesh in shown(surface).values()] == [0]
