# SPDX-License-Identifier: Apache-2.0
"""The stream topic: made while somebody listens, whole for who comes late, in three encodings."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from block_lab import VOXEL, blocks_of, delta, sphere

from worldsystem_core.errors import ProtocolError
from worldsystem_core.mesh_code.code import decode
from worldsystem_core.mesh_code.draco import decode_draco, encode_draco
from worldsystem_core.mesh_stream.streamed import MeshEncoding, streamed
from worldsystem_core.surface import join_blocks
from worldsystem_mesh import drawing
from worldsystem_mesh.config import MeshConfig
from worldsystem_mesh.stream import MeshStreamer


@pytest.fixture(scope="module")
def ball():
    return blocks_of(sphere(11.0), 2)


def received(message) -> list:
    """The blocks that a listener gets out of a message."""
    if message.encoding is MeshEncoding.CODE:
        return decode(message.code) if message.code else []
    if message.encoding is MeshEncoding.DRACO:
        return [
            decode_draco(data, block.index, block.version, block.level)
            for data, block in zip(message.payloads, message.delta.blocks, strict=True)
        ]
    return list(message.delta.blocks)


def run(streamer: MeshStreamer, seconds: float, begin_s: float = 0.0) -> list:
    ticks = (streamer.next(begin_s + 0.1 * tick) for tick in range(int(10 * seconds)))
    return [message for messages in ticks for message in messages]


@pytest.mark.parametrize("encoding", ["code", "draco", "raw"])
def test_a_listener_gets_the_whole_surface_in_any_encoding(ball, encoding):
    pytest.importorskip("DracoPy", reason="DracoPy is not installed")
    streamer = MeshStreamer(
        MeshConfig(stream_encoding=encoding, stream_mbps=0.3), lambda: delta(ball, 3)
    )
    streamer.listeners(1)
    messages = run(streamer, 60)
    assert [message.part for message in messages] == list(range(1, len(messages) + 1))
    blocks = {block.index: block for message in messages for block in received(message)}
    assert blocks.keys() == {block.index for block in ball}
    for block in ball:
        there = blocks[block.index]
        assert (there.level, len(there.faces)) == (0, len(block.faces))
        apart = np.linalg.norm(block.vertices[:, None] - there.vertices[None], axis=-1)
        assert apart.min(axis=1).max() < VOXEL / 100
    assert messages[-1].delta.sequence == 3
    assert streamer.missing_blocks == 0
    assert streamer.bytes == sum(message.bytes for message in messages)


def test_nothing_is_made_while_nobody_listens(ball):
    streamer = MeshStreamer(MeshConfig(), lambda: delta(ball, 1))
    streamer.take(delta(ball, 1))
    assert run(streamer, 5) == []
    streamer.listeners(1)
    assert run(streamer, 5)
    streamer.listeners(0)
    streamer.take(delta(ball, 2))
    assert run(streamer, 5, 10.0) == []


def test_a_second_listener_is_given_the_whole_surface(ball):
    newest = [delta(ball[:20], 1)]
    streamer = MeshStreamer(MeshConfig(), lambda: newest[0])
    streamer.listeners(1)
    run(streamer, 10)
    streamer.take(delta(ball[20:], 2))
    newest[0] = delta(ball, 2)
    streamer.listeners(2)
    late = {block.index for message in run(streamer, 20, 20.0) for block in received(message)}
    assert late == {block.index for block in ball}


def test_a_listener_that_takes_another_s_place_is_given_the_whole_surface(ball):
    """As one that is begun anew: whoever looks ten times a second sees one there all the time."""
    streamer = MeshStreamer(MeshConfig(), lambda: delta(ball, 1))
    streamer.listeners(1, joins=1)
    run(streamer, 10)
    streamer.listeners(1, joins=1)
    assert run(streamer, 5, 10.0) == []
    streamer.listeners(1, joins=2)
    late = {block.index for message in run(streamer, 20, 20.0) for block in received(message)}
    assert late == {block.index for block in ball}


def test_who_listens_already_is_told_what_went_just_before_another_came(ball):
    gone = ball[0].index
    newest = [delta(ball, 1)]
    streamer = MeshStreamer(MeshConfig(), lambda: newest[0])
    streamer.listeners(1)
    run(streamer, 10)
    assert streamer.missing_blocks == 0
    newest[0] = delta(ball[1:], 2, removed=(gone,))
    streamer.take(delta([], 2, removed=(gone,)))
    streamer.listeners(2)
    messages = run(streamer, 20, 20.0)
    assert [index for message in messages for index in message.delta.removed] == [gone]
    late = {block.index for message in messages for block in received(message)}
    assert late == {block.index for block in ball[1:]}
    assert messages[-1].delta.sequence == 2


def test_a_listener_that_missed_a_part_asks_from_where_it_was_complete(
    make_mesher, sphere_keyframes, triangle_set
):
    """Sequences of the stream are those of the surface: `mesh/request` mends every gap."""
    mesher = make_mesher(min_weight=0.5)
    for keyframe in sphere_keyframes(3):
        mesher.integrate(keyframe)
    mesher.settle(0)
    unrounded = MeshConfig(stream_encoding="raw", stream_mbps=4.0)
    streamer = MeshStreamer(unrounded, lambda: mesher.all_blocks(0, 0))
    streamer.listeners(1)
    before = run(streamer, 10)
    assert before[-1].delta.sequence == mesher.surface.sequence
    mesher.remove([0])
    streamer.take(mesher.settle(1))
    lost = run(streamer, 10, 20.0)
    assert any(message.delta.removed for message in lost), "what only that keyframe saw is gone"
    assert lost[0].delta.base_sequence == before[-1].delta.sequence
    mesher.integrate(replace(sphere_keyframes(5)[4], id=9))
    streamer.take(mesher.settle(2))
    after = run(streamer, 10, 40.0)
    assert streamer.missing_blocks == 0
    held: dict = {}
    for message in (*before, *after):
        take(held, message.delta.removed, received(message))
    assert after[0].part > before[-1].part + 1
    answer = mesher.all_blocks(before[-1].delta.sequence, 3)
    take(held, answer.removed, answer.blocks)
    wanted = list(mesher.all_blocks(0, 3).blocks)
    assert held.keys() == {block.index for block in wanted}
    assert triangle_set(join_blocks(list(held.values()))) == triangle_set(join_blocks(wanted))


def take(held: dict, removed, blocks) -> None:
    """What a listener does with what it is told."""
    for index in removed:
        held.pop(index, None)
    held.update((block.index, block) for block in blocks)


def test_who_listens_again_after_nobody_did_sees_that_a_part_is_missing(ball):
    gone = ball[0].index
    newest = [delta(ball, 1)]
    streamer = MeshStreamer(MeshConfig(), lambda: newest[0])
    streamer.listeners(0)
    streamer.listeners(1)
    before = run(streamer, 10)
    assert before[0].part == 1
    for _ in range(3):  # the node looks ten times a second
        streamer.listeners(0)
    newest[0] = delta(ball[1:], 2, removed=(gone,))
    streamer.take(newest[0])
    streamer.listeners(1)
    after = run(streamer, 10, 20.0)
    first = before[-1].part + 2
    assert [message.part for message in after] == list(range(first, first + len(after)))


@pytest.fixture
def whole_sphere(make_mesher, sphere_keyframes):
    """The whole surface that a mesher has of a ball, which nobody has looked at."""

    def fused():
        mesher = make_mesher()
        for keyframe in sphere_keyframes(6):
            mesher.integrate(keyframe)
        mesher.settle(0)
        return mesher.all_blocks(0, 0)

    return fused


def test_a_listener_has_only_those_blocks_drawn_that_it_is_sent(whole_sphere, monkeypatch):
    monkeypatch.setattr(drawing, "BATCH_BLOCKS", 16)
    whole = whole_sphere()
    streamer = MeshStreamer(MeshConfig(stream_mbps=0.02), lambda: whole)
    streamer.listeners(1)
    assert not whole.blocks.is_drawn
    coarse = received(next(streamer.next(0.0)))
    assert {block.level for block in coarse} == {2}
    drawn = {block.index for block in whole.blocks if block.pile[0].is_drawn}
    assert {block.index for block in coarse} <= drawn
    assert len(drawn) < len(coarse) + 16 < len(whole.blocks)


def test_nothing_is_drawn_for_a_line_that_takes_all_at_full_level(whole_sphere):
    whole = whole_sphere()
    streamer = MeshStreamer(MeshConfig(stream_mbps=0.0), lambda: whole)
    streamer.listeners(1)
    (message,) = run(streamer, 1)
    assert not whole.blocks.is_drawn
    assert len(received(message)) == len(whole.blocks) > 50


def test_a_listener_is_never_told_that_it_has_more_than_it_has(ball):
    """The snapshot gives all blocks its own sequence, 2; the first twenty became so at 1."""
    became = {block.index: 1 if number < 20 else 2 for number, block in enumerate(ball)}
    streamer = MeshStreamer(MeshConfig(stream_mbps=0.2), lambda: delta(ball, 2))
    streamer.listeners(1)
    held, told = set(), []
    for message in run(streamer, 60):
        held |= {block.index for block in received(message) if block.level == 0}
        told.append(message.delta.sequence)
        assert {index for index, at in became.items() if at <= told[-1]} <= held
    assert (told[0], told[-1]) == (0, 2)


@pytest.mark.parametrize("level", [1, 2])
def test_the_surface_can_be_asked_for_at_a_coarser_level(ball, level):
    coarse = received(streamed(delta(ball, 1), MeshEncoding.CODE, level=level))
    assert {block.level for block in coarse} == {level}
    assert len(coarse) == len(ball)


@pytest.mark.parametrize("encoding", list(MeshEncoding))
@pytest.mark.parametrize("count", [0, 3], ids=["before the first keyframe", "with a surface"])
def test_a_level_that_is_not_known_is_refused_by_name(ball, encoding, count):
    with pytest.raises(ValueError, match="level 3 is not known; known: 0, 1, 2"):
        streamed(delta(ball[:count], 1), encoding, level=3)


def test_draco_refuses_what_is_not_draco(ball):
    pytest.importorskip("DracoPy", reason="DracoPy is not installed")
    data = encode_draco(ball[0], 8 * VOXEL)
    with pytest.raises(ProtocolError, match="damaged Draco"):
        decode_draco(b"no" + data, (0, 0, 0), 1, 0)
    assert len(decode_draco(b"", (0, 0, 0), 1, 0).faces) == 0


def test_rims_of_draco_blocks_meet(ball):
    """The grid of 11 bits is the block's cube, so both neighbours round a rim alike."""
    pytest.importorskip("DracoPy", reason="DracoPy is not installed")
    points = np.concatenate(
        [
            decode_draco(encode_draco(b, 8 * VOXEL), b.index, 1, 0).vertices.astype(np.float64)
            for b in ball
        ]
    )
    welded = len(np.unique(np.concatenate([block.vertices for block in ball]), axis=0))
    assert len(np.unique(np.round(points / (1e-5 * VOXEL)), axis=0)) <= 1.02 * welded
