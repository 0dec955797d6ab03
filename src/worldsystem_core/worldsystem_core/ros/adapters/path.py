# SPDX-License-Identifier: Apache-2.0
"""The whole path as a message: one of hours has hundreds of thousands of poses, told often."""

from __future__ import annotations

import numpy as np
from nav_msgs.msg import Path
from rclpy.serialization import deserialize_message

from worldsystem_core.errors import ProtocolError
from worldsystem_core.geometry.rotation import (
    matrices_from_quaternions_xyzw,
    quaternion_xyzw_from_matrix,
)
from worldsystem_core.ros.adapters.messages import (
    nanoseconds,
    pose_matrix,
    scale_of,
    world_frame,
)
from worldsystem_core.ros.cdr import CdrReader, CdrWriter
from worldsystem_core.trajectory import StampedPoses


class PathAdapter:
    """`StampedPoses` ↔ `nav_msgs/Path`."""

    ros_type = Path

    def dump(self, item: StampedPoses) -> list[bytes]:
        frame = world_frame(item.scale)
        numbers = np.empty((len(item), 7))
        numbers[:, :3] = item.positions
        numbers[:, 3:] = quaternion_xyzw_from_matrix(item.world_from_cam[:, :3, :3])
        writer = CdrWriter()
        writer.header(int(item.stamps_ns[-1]) if len(item) else 0, frame)
        writer.number("I", len(item))
        if len(item):  # the first starts where it may; after it all are alike
            writer.header(int(item.stamps_ns[0]), frame)
            writer.doubles(numbers[0])
            writer.raw(_rows(item.stamps_ns[1:], frame, numbers[1:]))
        return [writer.finish()]

    def load(self, cdr: bytes) -> StampedPoses:
        poses = _read_at_once(cdr)
        return _read_one_by_one(cdr) if poses is None else poses


def _read_at_once(cdr: bytes) -> StampedPoses | None:
    """The poses, where there are some and all name the path's own frame, as ours do; else None."""
    try:
        reader = CdrReader(cdr)
        reader.stamp()
        frame, count = reader.string(), reader.number("I")
        if not count:
            return None
        first_ns, first_frame, first = reader.stamp(), reader.string(), reader.doubles(7)
        rest = reader.rest()
    except ProtocolError:
        return None
    kind = _row_kind(frame)
    if first_frame != frame or len(rest) != (count - 1) * kind.itemsize:
        return None
    rows = np.frombuffer(rest, kind)
    text = frame.encode()
    if not ((rows["length"] == len(text) + 1) & (rows["frame"] == text)).all():
        return None
    stamps_ns = rows["sec"].astype(np.int64) * 10**9 + rows["nanosec"]
    numbers = np.concatenate([first[None], rows["pose"]])
    poses = np.tile(np.eye(4), (count, 1, 1))
    poses[:, :3, :3] = matrices_from_quaternions_xyzw(numbers[:, 3:])
    poses[:, :3, 3] = numbers[:, :3]
    return StampedPoses(np.concatenate([[first_ns], stamps_ns]), poses, scale_of(frame))


def _read_one_by_one(cdr: bytes) -> StampedPoses:
    message = deserialize_message(cdr, Path)
    poses = message.poses
    return StampedPoses(
        np.array([nanoseconds(pose.header.stamp) for pose in poses], dtype=np.int64),
        np.array([pose_matrix(pose.pose) for pose in poses]).reshape(-1, 4, 4),
        scale_of(message.header.frame_id),
    )


def _row_kind(frame: str) -> np.dtype:
    """`PoseStamped` after `PoseStamped` as they lie in CDR from an offset that 8 divides."""
    length = len(frame.encode()) + 1
    at = 12 + length + -(12 + length) % 8
    return np.dtype(
        {
            "names": ["sec", "nanosec", "length", "frame", "pose"],
            "formats": ["<i4", "<u4", "<u4", f"S{length}", ("<f8", (7,))],
            "offsets": [0, 4, 8, 12, at],
            "itemsize": at + 7 * 8,
        }
    )


def _rows(stamps_ns: np.ndarray, frame: str, numbers: np.ndarray) -> np.ndarray:
    rows = np.zeros(len(stamps_ns), _row_kind(frame))
    rows["sec"], rows["nanosec"] = np.divmod(stamps_ns, 10**9)
    rows["length"] = len(frame.encode()) + 1
    rows["frame"] = frame.encode()
    rows["pose"] = numbers
    return rows
