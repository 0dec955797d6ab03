# SPDX-License-Identifier: Apache-2.0
"""Blocks that are drawn when they are looked at: the same as blocks that were drawn at once."""

from __future__ import annotations

import gc
import pickle
import weakref
from dataclasses import fields, replace

import numpy as np
import pytest
from block_lab import blocks_of, sphere

from worldsystem_core.surface import MeshBlock, StackedBlocks, join_blocks, stack_blocks
from worldsystem_mesh import drawing
from worldsystem_mesh.pile_keeper import PileKeeper
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


def test_blocks_of_several_piles_are_the_same_as_those_of_one(delta, monkeypatch):
    monkeypatch.setattr(drawing, "BATCH_BLOCKS", 16)
    made = delta.blocks
    (pile,) = made._piles
    parted = drawing.BlockMeshes(pile._drawer, made.cells, pile._voxel)
    assert len(parted) == len(made) > 3 * 16
    assert len({id(block.pile[0]) for block in parted}) == -(-len(made) // 16)
    for one, other in zip(parted, made, strict=True):
        assert (one.index, one.version) == (other.index, other.version)
        for part in PARTS:
            np.testing.assert_array_equal(getattr(one, part), getattr(other, part))
    assert_same(stack_blocks(list(parted)[::3]), stack_blocks(list(made)[::3]))


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


@pytest.mark.parametrize("looked", [False, True])
def test_the_last_blocks_of_a_pile_keep_only_their_own_arrays(
    make_mesher, sphere_keyframes, looked
):
    mesher = make_mesher()
    for keyframe in sphere_keyframes(6):
        mesher.integrate(keyframe)
    blocks = list(mesher.extract(7).blocks)
    as_they_were = [plain(block) for block in blocks[::9]] if looked else []
    left, pile = blocks[::9], blocks[0].pile[0]
    before = sum(column.nbytes for column in pile.draw()[:2]) if looked else 0
    number_of_vertices = [block.vertex_count for block in left]
    held = weakref.ref(pile)
    keeper = PileKeeper()
    keeper.add(blocks)
    del blocks, pile
    keeper.add([])  # looks at the older ones
    assert held() is not left[0].pile[0]
    assert [block.pile[1] for block in left] == list(range(len(left)))
    assert [block.vertex_count for block in left] == number_of_vertices
    for block, was in zip(left, as_they_were, strict=False):
        for part in PARTS:
            np.testing.assert_array_equal(getattr(block, part), getattr(was, part))
    assert_same(stack_blocks(left), stack_blocks([plain(block) for block in left]))
    if looked:
        after = sum(column.nbytes for column in left[0].pile[0].draw()[:2])
        assert after < 0.2 * before
        assert all(column.base is None for column in left[0].pile[0].draw()[:2])
    assert held() is None, "nothing keeps the old arrays"


def test_a_surface_of_which_a_corner_changes_again_and_again_keeps_no_old_corners(delta):
    """Each time, another of the other blocks is made beside the corner, and then stays as it is."""
    keeper = PileKeeper()
    surface = dict(enumerate(delta.blocks))
    whole = surface[0].pile[0]
    corner, others = range(30), range(30, len(surface))
    for turn, other in enumerate(others):
        new = whole.thinned([*corner, other])
        blocks = [type(surface[0]).of(new, at, (0, 0, 0), turn) for at in range(len(corner) + 1)]
        keeper.add(blocks)
        surface.update(zip([*corner, other], blocks, strict=True))
    del blocks, new
    for _ in range(len(others)):
        keeper.add([])
    sizes = {id(block.pile[0]): len(block.pile[0].vertex_counts) for block in surface.values()}
    assert sum(sizes.values()) < 2 * len(surface)


def test_a_message_of_drawn_blocks_is_that_of_plain_ones_and_makes_no_arrays(delta):
    pytest.importorskip("rclpy", reason="ROS is not set up: run these through `make test`")
    from worldsystem_core.ros import topics

    def has_faces(block):
        try:
            MeshBlock.faces.__get__(block, MeshBlock)
        except AttributeError:
            return False
        return True

    drawn, made = list(delta.blocks), blocks_of(sphere(6.0), 1)
    mixed = [*drawn[:3], *made[:4], *drawn[10:12], *made[4:], *drawn[20:]]
    (told,) = topics.MESH.adapter.dump(delta.with_blocks(mixed))
    assert not any(map(has_faces, drawn))
    (wanted,) = topics.MESH.adapter.dump(delta.with_blocks([plain(block) for block in mixed]))
    assert told == wanted
