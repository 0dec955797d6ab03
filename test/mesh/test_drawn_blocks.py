# SPDX-License-Identifier: Apache-2.0
"""Blocks that are drawn when they are looked at: the same as blocks that were drawn at once."""

from __future__ import annotations

import gc
import pickle
import sys
import weakref
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from block_lab import blocks_of, sphere

from worldsystem_core.surface import MeshBlock, StackedBlocks, join_blocks, stack_blocks
from worldsystem_viewer.history import History
from worldsystem_viewer.world import World

PARTS = ("vertices", "colours", "faces", "edges", "shares", "cells", "cases")


@pytest.fixture
def delta(make_mesher, sphere_keyframes):
    mesher = make_mesher()
    for keyframe in sphere_keyframes(6):
        mesher.integrate(keyframe)
    return mesher.extract(7)


def plain(block: MeshBlock) -> MeshBlock:
    """The same block with arrays of its own."""
    return MeshBlock(**{item.name: getattr(block, item.name) for item in fields(MeshBlock)})


def assert_same(one: StackedBlocks, other: StackedBlocks) -> None:
    for item in fields(StackedBlocks):
        np.testing.assert_array_equal(getattr(one, item.name), getattr(other, item.name))


def test_nobody_looks_so_nothing_is_drawn(delta):
    world, history = World(), History(2**30)
    world.apply(delta)
    history.surface(delta)
    assert not delta.blocks.is_drawn
    blocks = list(delta.blocks)
    assert [block.vertex_count for block in blocks] == [len(block.vertices) for block in blocks]
    assert delta.blocks.is_drawn


def test_whoever_looks_later_sees_the_same(delta):
    world = World()
    world.apply(delta)
    change = world.newer_mesh(0, 10**9, world.change)
    whole = {block.index: block for block in change.blocks}
    assert len(whole) == len(delta.blocks) > 50
    assert sum(len(block.faces) for block in whole.values()) == delta.total_faces
    radius = np.linalg.norm(join_blocks(change.blocks).vertices, axis=1)
    assert np.abs(radius - 1.0).max() < 0.05  # a voxel; the sphere's radius is 1


@pytest.mark.parametrize("step", [1, 2, 3, 50])
def test_blocks_of_one_pile_are_stacked_as_they_are_one_by_one(delta, step):
    some = list(delta.blocks)[::step]
    assert_same(stack_blocks(some), stack_blocks([plain(block) for block in some]))


def test_blocks_of_several_origins_keep_their_order(delta):
    drawn, made = list(delta.blocks), blocks_of(sphere(6.0), 1)
    mixed = [*drawn[:3], *made[:4], *drawn[10:12], *made[4:]]
    assert_same(stack_blocks(mixed), stack_blocks([plain(block) for block in mixed]))


def test_no_blocks_are_stacked_to_nothing():
    nothing = stack_blocks([])
    assert len(nothing.index) == len(nothing.vertices) == len(nothing.faces) == 0


def test_a_block_is_copied_with_changes_and_travels_like_any_other(delta):
    block = next(iter(delta.blocks))
    red = replace(block, colours=np.full_like(block.colours, (255, 0, 0)))
    assert (red.colours == (255, 0, 0)).all()
    assert red.pile is None  # its pile has other colours
    assert replace(block, cells=None).has_lattice is False
    for other in (red, pickle.loads(pickle.dumps(block))):
        assert other.vertex_count == len(block.vertices)
        np.testing.assert_array_equal(other.faces, block.faces)
    for part in PARTS:
        assert getattr(block, part) is getattr(block, part)  # made once


def test_a_block_cannot_be_changed(delta):
    block = next(iter(delta.blocks))
    with pytest.raises(AttributeError):
        block.version = 3
    with pytest.raises(ValueError, match="read-only"):
        block.vertices[0] = 0.0


def test_a_block_that_is_replaced_is_gone_while_others_of_its_pile_stay(delta):
    gc.disable()  # nothing waits for a collection
    try:
        blocks = list(delta.blocks)
        kept, gone = blocks[0], weakref.ref(blocks[1].faces)
        pile = weakref.ref(kept.pile[0])
        del blocks
        object.__setattr__(delta, "blocks", ())
        assert gone() is None
        assert len(kept.vertices) == kept.vertex_count
        del kept
        assert pile() is None
    finally:
        gc.enable()
