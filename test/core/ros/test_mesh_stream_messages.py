# SPDX-License-Identifier: Apache-2.0
"""The mesh stream as ROS messages, in each encoding, and the service that mends gaps."""

from __future__ import annotations

import array
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS is not set up: run these through `make test`")
sys.path.insert(0, str(Path(__file__).parents[2] / "mesh"))

from block_lab import VOXEL, blocks_of, bumpy, delta, sphere
from rclpy.serialization import deserialize_message, serialize_message
from worldsystem_msgs.msg import MeshDelta as MeshDeltaMessage

from worldsystem_core.errors import ProtocolError
from worldsystem_core.mesh_code.code import decode, encode
from worldsystem_core.mesh_stream.catalogue import SurfaceCatalogue
from worldsystem_core.mesh_stream.link import COARSE, MeshLink
from worldsystem_core.mesh_stream.streamed import MeshEncoding, streamed
from worldsystem_core.ros import topics

pytestmark = pytest.mark.ros


@pytest.fixture(scope="module")
def ball():
    return blocks_of(sphere(6.0), 1)


@pytest.mark.parametrize("encoding", list(MeshEncoding))
@pytest.mark.parametrize("level", [0, 2])
def test_a_streamed_delta_comes_back_in_its_encoding(ball, encoding, level):
    if encoding is MeshEncoding.DRACO:
        pytest.importorskip("DracoPy", reason="DracoPy is not installed")
    sent = streamed(delta(ball, 4, removed=((7, 8, 9),)), encoding, level=level, part=5)
    (cdr,) = topics.MESH_STREAM.adapter.dump(sent)
    back = topics.MESH_STREAM.adapter.load(cdr)
    assert (back.part, back.encoding, back.delta.sequence) == (5, encoding, 4)
    assert back.delta.removed == ((7, 8, 9),)
    assert [(b.index, b.version, b.level) for b in back.delta.blocks] == [
        (b.index, b.version, level) for b in ball
    ]
    expected = decode(encode(ball, VOXEL, level))
    for got, wanted in zip(back.delta.blocks, expected, strict=True):
        assert len(got.faces) == len(wanted.faces)
        if encoding is MeshEncoding.CODE:
            np.testing.assert_array_equal(got.vertices, wanted.vertices)


def test_the_bytes_are_as_long_as_those_that_rclpy_writes(ball):
    """Every field is there, in its place; only the padding between them may differ."""
    (cdr,) = topics.MESH_STREAM.adapter.dump(streamed(delta(ball, 4), MeshEncoding.RAW, part=2))
    message = deserialize_message(cdr, MeshDeltaMessage)
    assert len(serialize_message(message)) == len(cdr)
    assert deserialize_message(serialize_message(message), MeshDeltaMessage) == message
    assert message.part == 2


def test_an_unknown_encoding_is_named(ball):
    (cdr,) = topics.MESH.adapter.dump(delta(ball, 1))
    message = deserialize_message(cdr, MeshDeltaMessage)
    message.encoding = 9
    with pytest.raises(ProtocolError, match=r"9 is not known; known: 0 \(raw\), 1 \(draco\)"):
        topics.MESH.adapter.load(serialize_message(message))


def test_the_size_of_a_message_is_known_beforehand(ball):
    for encoding in (MeshEncoding.RAW, MeshEncoding.CODE):
        item = streamed(delta(ball, 4, removed=((7, 8, 9),)), encoding)
        (cdr,) = topics.MESH_STREAM.adapter.dump(item)
        assert 0.8 * item.bytes < len(cdr) < 1.05 * item.bytes


def test_a_stage_that_codes_nothing_reads_everything(ball):
    """The adapter of `mesh/delta` loads whatever encoding comes."""
    (cdr,) = topics.MESH_STREAM.adapter.dump(streamed(delta(ball, 4), MeshEncoding.CODE))
    back = topics.MESH.adapter.load(cdr)
    assert len(back.blocks) == len(ball)
    assert replace(back, blocks=()).sequence == 4


LATTICE_FORM = ("edges", "shares", "cells", "cases")


def test_a_surface_that_came_from_another_process_is_sent_to_a_page_in_the_code():
    """As the viewer gets it from a mesher in a process of its own: coarse first on a thin line."""
    made = blocks_of(bumpy(11.0), 2)
    (cdr,) = topics.MESH.adapter.dump(delta(made, 1))
    came = topics.MESH.adapter.load(cdr)
    for got, sent in zip(came.blocks, made, strict=True):
        for name in ("vertices", "colours", "faces", *LATTICE_FORM):
            np.testing.assert_array_equal(getattr(got, name), getattr(sent, name))
    catalogue = SurfaceCatalogue()
    catalogue.apply(came)
    parcel = MeshLink(48_000).next(catalogue, 0.0)
    assert (parcel.raw, parcel.level) == (False, COARSE)
    shown = {block.index: block.level for block in decode(parcel.code())}
    assert shown == {block.index: COARSE for block in parcel.blocks} != {}
    assert encode(came.blocks, VOXEL) == encode(made, VOXEL)


def test_a_raw_block_without_its_lattice_form_is_read_as_before(ball):
    """Bags of before hold such blocks, and so do answers at a coarser level."""
    bare = [replace(block, **dict.fromkeys(LATTICE_FORM)) for block in ball]
    (cdr,) = topics.MESH.adapter.dump(delta(bare, 1))
    v, f = (sum(len(getattr(b, name)) for b in ball) for name in ("vertices", "faces"))
    message = deserialize_message(cdr, MeshDeltaMessage)
    assert sum(len(block.data) for block in message.blocks) == 15 * v + 12 * f
    for got, sent in zip(topics.MESH.adapter.load(cdr).blocks, ball, strict=True):
        assert not got.has_lattice
        np.testing.assert_array_equal(got.vertices, sent.vertices)
        np.testing.assert_array_equal(got.faces, sent.faces)


@pytest.mark.parametrize(
    "wrong",
    [lambda plain, _: plain - 1, lambda plain, _: plain + 2, lambda _, whole: whole - 1],
    ids=["faces cut off", "edges cut off", "cases cut off"],
)
def test_a_raw_block_of_a_wrong_length_is_refused(ball, wrong):
    (cdr,) = topics.MESH.adapter.dump(delta(ball, 1))
    message = deserialize_message(cdr, MeshDeltaMessage)
    block = message.blocks[0]
    plain = 15 * block.vertex_count + 12 * block.face_count
    block.data = block.data[: wrong(plain, len(block.data))]
    with pytest.raises(ProtocolError, match=f"cannot hold {block.vertex_count} vertices"):
        topics.MESH.adapter.load(serialize_message(message))


@pytest.mark.parametrize("column", ["edges", "cells"])
def test_a_raw_block_with_an_edge_or_a_cell_that_no_block_has_is_refused(ball, column):
    (cdr,) = topics.MESH.adapter.dump(delta(ball, 1))
    message = deserialize_message(cdr, MeshDeltaMessage)
    block = message.blocks[0]
    at = 15 * block.vertex_count + 12 * block.face_count
    at += 0 if column == "edges" else 4 * block.vertex_count
    block.data[at : at + 2] = array.array("B", [255, 255])
    with pytest.raises(ProtocolError, match="that no block has"):
        topics.MESH.adapter.load(serialize_message(message))
