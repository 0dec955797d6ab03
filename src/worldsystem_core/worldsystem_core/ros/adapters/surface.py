# SPDX-License-Identifier: Apache-2.0
"""Mesh deltas as flat arrays: nested points would cost a hundred times more."""

from __future__ import annotations

import numpy as np
from rclpy.serialization import deserialize_message
from worldsystem_msgs.msg import MeshBlock as MeshBlockMessage
from worldsystem_msgs.msg import MeshDelta as MeshDeltaMessage

from worldsystem_core.errors import ProtocolError
from worldsystem_core.reconstruction import ScaleState
from worldsystem_core.ros.adapters.messages import nanoseconds, world_frame
from worldsystem_core.ros.cdr import CdrWriter
from worldsystem_core.surface import MeshBlock, MeshDelta


class MeshDeltaAdapter:
    """`MeshDelta` ↔ `worldsystem_msgs/MeshDelta` with raw blocks."""

    ros_type = MeshDeltaMessage

    def dump(self, item: MeshDelta) -> list[bytes]:
        writer = CdrWriter()
        writer.header(item.stamp_ns, world_frame(item.scale))
        writer.number("Q", item.sequence)
        writer.number("Q", item.base_sequence)
        writer.number("B", MeshDeltaMessage.ENCODING_RAW)
        writer.number("f", item.block_size)
        writer.number("I", len(item.blocks))
        for block in item.blocks:
            _write_block(writer, block)
        writer.int_sequence([number for index in item.removed for number in index])
        writer.number("Q", item.total_vertices)
        writer.number("Q", item.total_faces)
        writer.number("I", item.keyframe_count)
        writer.stamp(item.capture_ns)
        writer.number("B", item.scale.value)
        return [writer.finish()]

    def load(self, cdr: bytes) -> MeshDelta:
        return mesh_delta(deserialize_message(cdr, MeshDeltaMessage))


def mesh_delta(message: MeshDeltaMessage) -> MeshDelta:
    """The native delta of a message; raises `ProtocolError` for an encoding it does not know."""
    if message.encoding != MeshDeltaMessage.ENCODING_RAW:
        raise ProtocolError(f"mesh encoding {message.encoding} is not known; known: 0 (raw)")
    removed = np.array(message.removed, dtype=np.int64).reshape(-1, 3).tolist()
    return MeshDelta(
        stamp_ns=nanoseconds(message.header.stamp),
        sequence=message.sequence,
        base_sequence=message.base_sequence,
        block_size=message.block_size,
        blocks=tuple(_block(block) for block in message.blocks),
        removed=tuple((i, j, k) for i, j, k in removed),
        total_vertices=message.total_vertices,
        total_faces=message.total_faces,
        keyframe_count=message.keyframe_count,
        capture_ns=nanoseconds(message.capture),
        scale=ScaleState(message.scale_state),
    )


def _write_block(writer: CdrWriter, block: MeshBlock) -> None:
    writer.ints(block.index)
    writer.number("I", block.version)
    writer.number("I", len(block.vertices))
    writer.number("I", len(block.faces))
    writer.octets(
        block.vertices.astype("<f4", copy=False), block.colours, block.faces.astype("<u4")
    )


def _block(message: MeshBlockMessage) -> MeshBlock:
    v, f = message.vertex_count, message.face_count
    data = np.frombuffer(message.data, np.uint8)
    if len(data) != 15 * v + 12 * f:
        raise ProtocolError(f"mesh block of {len(data)} bytes cannot hold {v} vertices, {f} faces")
    i, j, k = (int(number) for number in message.index)
    return MeshBlock(
        index=(i, j, k),
        version=message.version,
        vertices=data[: 12 * v].view("<f4").reshape(-1, 3),
        colours=data[12 * v : 15 * v].reshape(-1, 3),
        faces=data[15 * v :].copy().view("<u4").astype(np.int32).reshape(-1, 3),
    )
