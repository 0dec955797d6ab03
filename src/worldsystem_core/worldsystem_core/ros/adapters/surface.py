# SPDX-License-Identifier: Apache-2.0
"""Mesh deltas as flat arrays: nested points would cost a hundred times more."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8
from rclpy.serialization import deserialize_message
from worldsystem_msgs.msg import MeshBlock as MeshBlockMessage
from worldsystem_msgs.msg import MeshDelta as MeshDeltaMessage
from worldsystem_msgs.msg import MeshStatistics

from worldsystem_core.errors import ProtocolError
from worldsystem_core.mesh_code.cells import EDGES, POINTS
from worldsystem_core.mesh_code.code import decode
from worldsystem_core.mesh_code.draco import decode_draco
from worldsystem_core.mesh_stream.streamed import MeshEncoding, StreamedDelta
from worldsystem_core.reconstruction import ScaleState
from worldsystem_core.ros.adapters.messages import nanoseconds, time_message, world_frame
from worldsystem_core.ros.cdr import CdrWriter
from worldsystem_core.surface import BlockIndex, BlockPile, MeshBlock, MeshDelta, RawPile

_RAW_HEAD = struct.Struct("<3iIIII")  # index, version, vertices, faces, bytes of data


class MeshDeltaAdapter:
    """`MeshDelta` ↔ `worldsystem_msgs/MeshDelta`: out raw, in whatever its encoding is."""

    ros_type = MeshDeltaMessage

    def dump(self, item: MeshDelta) -> list[bytes]:
        raw = StreamedDelta(delta=item, part=0, encoding=MeshEncoding.RAW)
        return MeshStreamAdapter().dump(raw)

    def load(self, cdr: bytes) -> MeshDelta:
        return mesh_delta(deserialize_message(cdr, MeshDeltaMessage))


class MeshStreamAdapter:
    """`StreamedDelta` ↔ `worldsystem_msgs/MeshDelta` in the encoding that it has."""

    ros_type = MeshDeltaMessage

    def dump(self, item: StreamedDelta) -> list[bytes]:
        delta, writer = item.delta, CdrWriter()
        blocks = () if item.encoding is MeshEncoding.CODE else delta.blocks
        writer.header(delta.stamp_ns, world_frame(delta.scale))
        writer.number("Q", delta.sequence)
        writer.number("Q", delta.base_sequence)
        writer.number("B", item.encoding.value)
        writer.number("f", delta.block_size)
        writer.number("I", len(blocks))
        if item.payloads:
            for block, payload in zip(blocks, item.payloads, strict=True):
                _write_encoded(writer, block, payload)
        else:
            _write_raw(writer, blocks)
        writer.int_sequence([number for index in delta.removed for number in index])
        writer.number("Q", delta.total_vertices)
        writer.number("Q", delta.total_faces)
        writer.number("I", delta.keyframe_count)
        writer.stamp(delta.capture_ns)
        writer.number("B", delta.scale.value)
        writer.number("I", item.part)
        writer.octets(item.code)
        return [writer.finish()]

    def load(self, cdr: bytes) -> StreamedDelta:
        message = deserialize_message(cdr, MeshDeltaMessage)
        return StreamedDelta(
            delta=mesh_delta(message),
            part=message.part,
            encoding=known_encoding(message.encoding),
            code=bytes(message.code),
        )


def mesh_delta(message: MeshDeltaMessage) -> MeshDelta:
    """The native delta of a message; raises `ProtocolError` for an encoding it does not know."""
    removed = np.array(message.removed, dtype=np.int64).reshape(-1, 3).tolist()
    return MeshDelta(
        stamp_ns=nanoseconds(message.header.stamp),
        sequence=message.sequence,
        base_sequence=message.base_sequence,
        block_size=message.block_size,
        blocks=_blocks(message),
        removed=tuple((i, j, k) for i, j, k in removed),
        total_vertices=message.total_vertices,
        total_faces=message.total_faces,
        keyframe_count=message.keyframe_count,
        capture_ns=nanoseconds(message.capture),
        scale=ScaleState(message.scale_state),
    )


def known_encoding(value: int) -> MeshEncoding:
    """The encoding that a message says or asks for; raises `ProtocolError` for one of no name."""
    try:
        return MeshEncoding(value)
    except ValueError as error:
        known = ", ".join(f"{one.value} ({one.name.lower()})" for one in MeshEncoding)
        raise ProtocolError(f"mesh encoding {value} is not known; known: {known}") from error


def _blocks(message: MeshDeltaMessage) -> tuple[MeshBlock, ...]:
    encoding = known_encoding(message.encoding)
    if encoding is MeshEncoding.RAW:
        blocks = tuple(_raw_block(block) for block in message.blocks)
        _check_lattice([block for block in blocks if block.cells is not None])
        return blocks
    if encoding is MeshEncoding.DRACO:
        return tuple(
            decode_draco(bytes(block.data), _index(block), block.version, block.level)
            for block in message.blocks
        )
    return tuple(decode(bytes(message.code))) if len(message.code) else ()


def _write_encoded(writer: CdrWriter, block: MeshBlock, payload: bytes) -> None:
    writer.ints(block.index)
    writer.number("I", block.version)
    writer.number("I", len(block.vertices))
    writer.number("I", len(block.faces))
    writer.octets(payload)
    writer.number("B", block.level)


def _write_raw(writer: CdrWriter, blocks: Sequence[MeshBlock]) -> None:
    """The same for raw blocks, hundreds at a time, at a tenth of the cost: a block's numbers are
    packed at once, and its arrays are joined as they are.

    A block begins at a multiple of four; the bytes behind the last are what the next field, a
    sequence of 32-bit numbers, would leave out itself.
    """
    parts: list[bytes | memoryview | np.ndarray] = []
    size = 0
    piles: dict[BlockPile, RawPile] = {}
    for block in blocks:
        v, f, columns = _raw_columns(block, piles)
        octets = sum(column.nbytes for column in columns)
        parts += (
            _RAW_HEAD.pack(*block.index, block.version, v, f, octets),
            *columns,
            block.level.to_bytes(1 + -(octets + 1) % 4, "little"),
        )
        size += _RAW_HEAD.size + octets + 1 + -(octets + 1) % 4
    writer.laid_out(parts, size)


def _raw_columns(
    block: MeshBlock, piles: dict[BlockPile, RawPile]
) -> tuple[int, int, Sequence[np.ndarray | memoryview]]:
    """How many vertices and faces a block has, and what lies one behind the other; of one in a
    pile that is cut out of the pile's columns, and no array is made for it."""
    place = block.pile  # read once: a block may get another pile
    if place is None:
        columns = (
            np.ascontiguousarray(block.vertices, "<f4"),
            np.ascontiguousarray(block.colours, np.uint8),
            np.ascontiguousarray(block.faces, "<i4"),
            *_lattice_form(block),
        )
        return len(block.vertices), len(block.faces), columns
    pile, at = place
    if pile not in piles:
        piles[pile] = pile.raw()
    return piles[pile].block(at)


def _lattice_form(block: MeshBlock) -> tuple[np.ndarray, ...]:
    """What lies behind the faces, so that another process can code the block, too."""
    if block.edges is None or block.shares is None or block.cells is None or block.cases is None:
        return ()
    return (
        np.ascontiguousarray(block.edges, "<u2"),
        np.ascontiguousarray(block.shares, "<u2"),
        np.ascontiguousarray(block.cells, "<u2"),
        np.ascontiguousarray(block.cases, np.uint8),
    )


def _index(message: MeshBlockMessage) -> tuple[int, int, int]:
    i, j, k = message.index.tolist()
    return i, j, k


def _raw_block(message: MeshBlockMessage) -> MeshBlock:
    v, f = message.vertex_count, message.face_count
    data, end = np.frombuffer(message.data, np.uint8), 15 * v + 12 * f
    of_cells = len(data) - end - 4 * v
    if len(data) != end and (of_cells < 0 or of_cells % 3):
        raise ProtocolError(
            f"mesh block of {len(data)} bytes cannot hold {v} vertices, {f} faces, "
            "with or without their lattice form"
        )
    edges, shares, cells, cases = _lattice_columns(data[end:], v)
    return MeshBlock(
        index=_index(message),
        version=message.version,
        vertices=data[: 12 * v].view("<f4").reshape(-1, 3),
        colours=data[12 * v : 15 * v].reshape(-1, 3),
        faces=data[15 * v : end].copy().view("<i4").reshape(-1, 3),
        level=message.level,
        edges=edges,
        shares=shares,
        cells=cells,
        cases=cases,
    )


def _lattice_columns(
    data: UInt8[np.ndarray, "n"], vertices: int
) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None, np.ndarray | None]:
    """The inverse of `_lattice_form`; bags of before have nothing behind the faces."""
    if not len(data):
        return None, None, None, None
    data = data.copy()  # behind the colours it may begin at an odd address
    of_shares, of_cells = 2 * vertices, 4 * vertices
    of_cases = of_cells + (len(data) - of_cells) // 3 * 2
    edges, shares = data[:of_shares].view("<u2"), data[of_shares:of_cells].view("<u2")
    return edges, shares, data[of_cells:of_cases].view("<u2"), data[of_cases:]


def _check_lattice(blocks: Sequence[MeshBlock]) -> None:
    """All blocks of a message at once: a call for each would cost more than all they hold."""
    for column, count in (("edges", EDGES), ("cells", POINTS**3)):
        numbers = [getattr(block, column) for block in blocks]
        if numbers and np.concatenate(numbers).max(initial=0) >= count:
            raise ProtocolError("mesh block with an edge or a cell that no block has")


def statistics_message(
    stamp_ns: int, figures: Mapping[str, Any], methods: Mapping[BlockIndex, str]
) -> MeshStatistics:
    """The mesher's figures as a message; `methods` by region, those of tsdf left out."""
    message = MeshStatistics(
        voxel=float(figures["voxel"]),
        sequence=figures["sequence"],
        keyframes=figures["keyframes"],
        volume_blocks=figures["blocks"],
        mesh_blocks=figures["mesh_blocks"],
        vertices=figures["vertices"],
        faces=figures["triangles"],
        memory_bytes=figures["memory_bytes"],
        integrate_ms=float(figures["last_integrate_ms"]),
        extract_ms=float(figures["last_extract_ms"]),
        extracted_blocks=figures["last_extracted_blocks"],
        stream_mbps=float(figures["stream_mbps"]),
        stream_missing_blocks=figures["stream_missing_blocks"],
        camera_speed=float(figures["camera_speed"]),
        method=str(figures["method"]),
        region_index=[number for region in methods for number in region],
        region_method=list(methods.values()),
    )
    message.header.stamp = time_message(stamp_ns)
    return message
