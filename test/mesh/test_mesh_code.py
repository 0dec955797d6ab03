# SPDX-License-Identifier: Apache-2.0
"""The block code: what goes in comes out, in Python and in the page's JavaScript alike."""

from __future__ import annotations

import contextlib
import struct
import tracemalloc
import zlib
from dataclasses import replace

import numpy as np
import pytest
from block_lab import (
    NODE,
    VOXEL,
    block_of,
    blocks_of,
    bumpy,
    decoded_by_node,
    read_by_node,
    shuffled,
    sphere,
)

from worldsystem_core import marching_cubes
from worldsystem_core.errors import ProtocolError
from worldsystem_core.mesh_code import colours
from worldsystem_core.mesh_code.cells import SurfaceCells
from worldsystem_core.mesh_code.code import decode, encode
from worldsystem_core.mesh_code.container import Head, blocks_section, numbers_section, packed
from worldsystem_core.surface import join_blocks
from worldsystem_mesh.weld import weld
from worldsystem_viewer.page_files import WEB

SHAPES = {
    "sphere": lambda: blocks_of(sphere(11.3), 2),
    "bumpy": lambda: shuffled(blocks_of(bumpy(9.0), 2)),
    "noise": lambda: blocks_of(bumpy(3.0, rough=6.0), 1),
    "one block": lambda: blocks_of(sphere(2.0, (4.0, 4.0, 4.0)), 1),
}


@pytest.fixture(params=SHAPES, scope="module")
def blocks(request):
    return SHAPES[request.param]()


def quantised(block):
    """The block with its vertices in the middle of 1/64 of their edges."""
    shares = (block.shares >> 10 << 10) + 512
    at = np.arange(len(shares))
    moved = (shares.astype(float) - block.shares) / 65536 * VOXEL
    vertices = block.vertices.astype(float)
    vertices[at, block.edges % 3] += moved
    return replace(block, shares=shares.astype(np.uint16), vertices=vertices.astype(np.float32))


def test_a_block_comes_back_with_its_triangles_and_to_1_128_of_a_voxel(blocks):
    got = decode(encode(blocks, VOXEL))
    assert [(b.index, b.version, b.level) for b in got] == [(b.index, 1, 0) for b in blocks]
    for sent, there in zip(blocks, got, strict=True):
        for name in ("faces", "edges", "cells", "cases"):
            np.testing.assert_array_equal(getattr(there, name), getattr(sent, name))
        np.testing.assert_array_equal(there.shares, quantised(sent).shares)
        np.testing.assert_allclose(there.vertices, quantised(sent).vertices, atol=1e-6)
        assert np.abs(there.vertices - sent.vertices).max() <= VOXEL / 128 + 1e-6
        # half a step of each difference, and clipping where a colour leaves the cube
        assert np.abs(there.colours.astype(int) - sent.colours).max() <= 8


def test_the_order_of_a_blocks_vertices_does_not_matter(blocks):
    """Older recordings have them in the order in which the faces first use them."""

    def turned_round(block):
        last = len(block.vertices) - 1
        columns = ("vertices", "colours", "edges", "shares")
        flipped = {name: getattr(block, name)[::-1] for name in columns}
        return replace(block, faces=last - block.faces, **flipped)

    assert encode([turned_round(block) for block in blocks], VOXEL) == encode(blocks, VOXEL)


def test_coding_what_was_decoded_changes_nothing(blocks):
    once = encode(blocks, VOXEL)
    assert encode(decode(once), VOXEL) == once


def test_blocks_agree_on_their_rims_after_decoding(edge_uses):
    """A closed surface stays closed: every vertex on a rim is the same in all blocks."""
    smooth = weld(join_blocks(decode(encode(shuffled(blocks_of(sphere(9.0), 2)), VOXEL))))
    uses = edge_uses(smooth)
    assert set(uses) == {2}
    assert len(smooth.vertices) - len(uses) + len(smooth.faces) == 2
    rough = weld(join_blocks(decode(encode(shuffled(blocks_of(bumpy(9.0), 2)), VOXEL))))
    assert set(edge_uses(rough)) == {2}


def test_a_block_extracted_at_another_time_keeps_its_own_rim():
    older = blocks_of(sphere(11.3), 2)
    newer = blocks_of(sphere(11.35), 2, version=2)
    mixed = [
        new if i % 3 == 0 else old for i, (old, new) in enumerate(zip(older, newer, strict=True))
    ]
    for sent, there in zip(mixed, decode(encode(mixed, VOXEL)), strict=True):
        np.testing.assert_array_equal(there.shares >> 10, sent.shares >> 10)


def test_no_blocks_make_an_empty_code():
    for level in (0, 1, 2):
        assert decode(encode([], VOXEL, level)) == []


def test_indices_far_away_and_versions_of_32_bits_come_back():
    near = blocks_of(sphere(5.0), 1)
    far = [replace(b, index=tuple(i * 99_999 for i in b.index), version=2**31 - 1) for b in near]
    got = decode(encode(far, VOXEL))
    assert [(b.index, b.version) for b in got] == [(b.index, b.version) for b in far]


def test_a_block_without_lattice_form_is_refused():
    bare = replace(blocks_of(sphere(5.0), 1)[0], cells=None)
    with pytest.raises(ValueError, match="send it raw"):
        encode([bare], VOXEL)


def test_a_vertex_takes_less_than_three_bytes():
    surface = blocks_of(bumpy(20.0, rough=0.1), 3)
    welded = len(np.unique(np.concatenate([b.vertices for b in surface]), axis=0))
    assert (
        len(encode(surface, VOXEL)) < 3.0 * welded
    )  # on colours that change wildly from vertex to vertex


def damaged_codes() -> list[bytes]:
    """Codes that were damaged before they were packed: no checksum gives them away."""
    rng, codes = np.random.default_rng(1), []
    for level in (0, 1, 2):
        whole = encode(blocks_of(sphere(5.0), 1), VOXEL, level)
        sections = zlib.decompress(whole[16:])
        for trial in range(40):
            damaged = bytearray(sections)
            damaged[rng.integers(len(damaged))] ^= 1 << int(rng.integers(8))
            kept = rng.integers(len(damaged)) if trial % 3 == 0 else len(damaged)
            codes.append(whole[:16] + zlib.compress(bytes(damaged[:kept])))
    return codes


def test_a_damaged_code_is_refused_or_decodes_to_something_whole():
    """Never another error, and never a face of a vertex that is not there."""
    codes, refused = damaged_codes(), 0
    for code in codes:
        try:
            got = decode(code)
        except ProtocolError:
            refused += 1
            continue
        for block in got:
            assert ((block.faces >= 0) & (block.faces < len(block.vertices))).all()
    assert 10 < refused < len(codes) - 10


@pytest.mark.parametrize("level", [0, 1, 2])
def test_a_code_that_is_damaged_on_its_way_raises_nothing_else(level):
    code = encode(blocks_of(sphere(5.0), 1), VOXEL, level)
    rng = np.random.default_rng(level)
    for trial in range(150):
        damaged = bytearray(code)
        damaged[rng.integers(len(code))] ^= 1 << int(rng.integers(8))
        if trial % 3 == 0:
            damaged = damaged[: rng.integers(len(code))]
        with contextlib.suppress(ProtocolError):
            decode(bytes(damaged))


def test_columns_and_blocks_are_two_forms_of_one_thing(blocks):
    again = SurfaceCells.of(blocks).blocks(VOXEL)
    for a, b in zip(blocks, again, strict=True):
        np.testing.assert_array_equal(a.faces, b.faces)
        np.testing.assert_array_equal(a.vertices, b.vertices)


def test_grey_stays_grey_and_colours_stay_near():
    grey = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)
    back = colours.restored(colours.quantised(grey)).astype(int)
    assert (back == back[:, :1]).all()
    assert np.abs(back - grey).max() <= 2
    some = np.random.default_rng(0).integers(0, 256, (5000, 3)).astype(np.uint8)
    assert np.abs(colours.restored(colours.quantised(some)).astype(int) - some).max() <= 8


@pytest.mark.skipif(NODE is None, reason="node is not installed")
def test_the_page_decodes_what_python_decodes(tmp_path):
    surfaces = [make() for make in SHAPES.values()]
    surfaces.append([replace(b, index=tuple(99_999 * i for i in b.index)) for b in surfaces[0]])
    codes = [encode(blocks, VOXEL, level) for blocks in surfaces for level in (0, 1, 2)]
    for code, there in zip(codes, decoded_by_node(codes, tmp_path), strict=True):
        for ours, theirs in zip(decode(code), there, strict=True):
            assert list(ours.index) == theirs["index"]
            assert (ours.version, ours.level) == (theirs["version"], theirs["level"])
            for name in ("vertices", "colours", "faces"):
                mine = getattr(ours, name)
                got = np.array(theirs[name], mine.dtype).reshape(-1, 3)
                np.testing.assert_array_equal(got, mine, err_msg=name)


@pytest.mark.skipif(NODE is None, reason="node is not installed")
def test_the_page_takes_damaged_codes_as_python_does(tmp_path):
    """Refused by both or by none, and never decoded to a face of a vertex that is not there."""
    codes, refused = damaged_codes(), []
    for code in codes:
        try:
            assert all((block.faces < len(block.vertices)).all() for block in decode(code))
            refused.append(False)
        except ProtocolError:
            refused.append(True)
    answers = read_by_node(codes, tmp_path)
    assert [answer == "refused" for answer in answers] == refused
    assert "broken" not in answers
    assert 10 < sum(refused) < len(codes) - 10


def test_the_pages_table_is_the_one_that_marching_cubes_py_prints():
    assert (WEB / "marching_cubes.js").read_text() == marching_cubes.javascript(), (
        "run `python -m worldsystem_core.marching_cubes > .../web/marching_cubes.js`"
    )


@pytest.mark.parametrize("level", [0, 1, 2])
def test_many_blocks_in_few_bytes_are_refused_before_they_take_memory(level):
    count = 1 << 17
    head = struct.pack("<2sBBId", b"WM", 1, level, count, 0.05)
    code = head + zlib.compress(bytes(100 * count), 9)
    tracemalloc.start()
    with pytest.raises(ProtocolError, match=f"{count} blocks in only"):
        decode(code)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 2**20


def test_a_plane_of_one_colour_is_not_too_many_blocks_for_its_bytes():
    block = block_of(lambda points: points[..., 2] - 3.3, (0, 0, 0))
    block = replace(block, colours=np.full_like(block.colours, 128))
    plane = [replace(block, index=(i, j, 0)) for i in range(80) for j in range(80)]
    assert len(decode(encode(plane, VOXEL))) == len(plane)


def test_faces_that_are_not_there_are_refused_before_room_is_made_for_them():
    """2.5 kB that speak of four thousand million faces."""
    count = 2000
    index = np.repeat(4 * np.arange(count, dtype=np.int32)[:, None], 3, axis=1)
    active = np.full((count, 16), 255, np.uint8)
    active[:, 15] = 31  # all 125 clusters of a block at level 1
    faces = numbers_section(np.full(125 * count, 1 << 14))
    sections = [blocks_section(index, np.zeros(count, np.int32)), active.reshape(-1)]
    sections += [np.zeros(125 * count, np.uint8)] * 6
    code = packed(Head(level=1, block_count=count, voxel=0.1), [*sections, faces])
    tracemalloc.start(1)
    try:
        with pytest.raises(ProtocolError):
            decode(code)
        assert tracemalloc.get_traced_memory()[1] < 200e6
    finally:
        tracemalloc.stop()


@pytest.mark.skipif(NODE is None, reason="node is not installed")
def test_blocks_outside_the_world_and_versions_that_are_none_are_refused_by_both(tmp_path):
    rows = [(1 << 28, 0, 0, 0), (0, 0, -(1 << 28), 0), (0, 0, 0, -1), (0, 0, 0, 1 << 31)]
    codes = []
    for row in rows:
        steps = np.array(row, np.int64)
        numbers = numbers_section((steps << 1) ^ (steps >> 63))
        sections = [numbers, np.zeros(1, np.uint8), np.zeros(64, np.uint8)]
        codes.append(packed(Head(level=0, block_count=1, voxel=0.1), sections))
    for code in codes:
        with pytest.raises(ProtocolError, match="far outside the world"):
            decode(code)
    assert list(read_by_node(codes, tmp_path)) == ["refused"] * len(rows)
