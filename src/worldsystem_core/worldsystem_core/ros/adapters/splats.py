# SPDX-License-Identifier: Apache-2.0
"""Changes to the world of splats as messages."""

from __future__ import annotations

import numpy as np
from rclpy.serialization import deserialize_message
from worldsystem_msgs.msg import SplatDelta as SplatDeltaMessage

from worldsystem_core.errors import ProtocolError
from worldsystem_core.geometry.rotation import quaternion_xyzw_from_matrix
from worldsystem_core.geometry.sim3 import Sim3
from worldsystem_core.ros.adapters.messages import nanoseconds, pose_matrix, scale_of, world_frame
from worldsystem_core.ros.cdr import CdrWriter
from worldsystem_core.splats.delta import SplatDelta, SplatOperation


class SplatDeltaAdapter:
    """`SplatDelta` ↔ `worldsystem_msgs/SplatDelta`: out packed, in whatever its encoding is."""

    ros_type = SplatDeltaMessage

    def dump(self, item: SplatDelta) -> list[bytes]:
        place = item.world_from_chunk
        writer = CdrWriter()
        writer.header(item.stamp_ns, world_frame(item.scale))
        writer.number("I", item.chunk)
        writer.number("B", item.operation.value)
        writer.number("B", SplatDeltaMessage.ENCODING_PACKED16)
        writer.number("I", len(item.words))
        writer.doubles([*place.translation, *quaternion_xyzw_from_matrix(place.rotation)])
        writer.octets(np.ascontiguousarray(item.words, dtype="<u4"))
        writer.number("d", place.scale)
        writer.number("Q", item.sequence)
        writer.number("Q", item.total)
        return [writer.finish()]

    def load(self, cdr: bytes) -> SplatDelta:
        message = deserialize_message(cdr, SplatDeltaMessage)
        return SplatDelta(
            stamp_ns=nanoseconds(message.header.stamp),
            sequence=message.sequence,
            chunk=message.chunk,
            operation=SplatOperation(message.operation),
            world_from_chunk=Sim3.from_pose(pose_matrix(message.pose), message.scale or 1.0),
            words=_words(message),
            total=message.total,
            scale=scale_of(message.header.frame_id),
        )


def _words(message: SplatDeltaMessage) -> np.ndarray:
    # Imported here: its compiler takes half a second, and every stage knows this message.
    from worldsystem_core.splats.packed import BYTES, inflate

    data, count = bytes(message.data), message.count
    if message.encoding == SplatDeltaMessage.ENCODING_DEFLATED:
        return inflate(data, count)
    if message.encoding != SplatDeltaMessage.ENCODING_PACKED16:
        raise ProtocolError(
            f"splat encoding {message.encoding} is not known; known: 0 (packed16), 1 (deflated)"
        )
    if len(data) != BYTES * count:
        raise ProtocolError(f"{count} splats are {BYTES * count} bytes, not {len(data)}")
    return np.frombuffer(data, "<u4").reshape(count, 4)
