# SPDX-License-Identifier: Apache-2.0
"""Adapters that go through rclpy's message classes: small messages, where that costs nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point, Pose, Quaternion, TransformStamped
from jaxtyping import Float, Float64
from rclpy.serialization import deserialize_message, serialize_message

from worldsystem_core.geometry.rotation import (
    matrix_from_quaternion_xyzw,
    quaternion_xyzw_from_matrix,
)
from worldsystem_core.reconstruction import ScaleState

T = TypeVar("T")

CAMERA_FRAME = "camera_optical_frame"


class MessageAdapter(Generic[T]):
    """An adapter from two functions: native object → messages, message → native object."""

    def __init__(
        self, ros_type: type, to_messages: Callable[[T], list], from_message: Callable[[object], T]
    ) -> None:
        self.ros_type = ros_type
        self._to_messages = to_messages
        self._from_message = from_message

    def dump(self, item: T) -> list[bytes]:
        return [serialize_message(message) for message in self._to_messages(item)]

    def load(self, cdr: bytes) -> T:
        return self._from_message(deserialize_message(cdr, self.ros_type))


class PlainAdapter(MessageAdapter[T]):
    """For topics whose native object is the ROS message itself."""

    def __init__(self, ros_type: type) -> None:
        super().__init__(ros_type, lambda message: [message], lambda message: message)


def world_frame(scale: ScaleState) -> str:
    """Name of the root frame: `map` when metric, `scene` while the scale is unknown."""
    return "map" if scale is ScaleState.METRIC else "scene"


def scale_of(frame_id: str) -> ScaleState:
    """What the root frame `frame_id` says of the scale; any other frame than `map` is unscaled."""
    return ScaleState.METRIC if frame_id == "map" else ScaleState.SCENE


def time_message(stamp_ns: int) -> Time:
    """Nanoseconds since 1970 as a message; exact."""
    return Time(sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)


def nanoseconds(time: Time) -> int:
    """Undo `time_message`."""
    return time.sec * 10**9 + time.nanosec


def pose_message(parent_from_child: Float[np.ndarray, "4 4"]) -> Pose:
    """The pose of a child frame in its parent, in the parent's unit."""
    x, y, z, w = (float(v) for v in quaternion_xyzw_from_matrix(parent_from_child[:3, :3]))
    px, py, pz = (float(v) for v in parent_from_child[:3, 3])
    return Pose(position=Point(x=px, y=py, z=pz), orientation=Quaternion(x=x, y=y, z=z, w=w))


def pose_matrix(pose: Pose) -> Float64[np.ndarray, "4 4"]:
    """Undo `pose_message`: `parent_from_child`."""
    q, p = pose.orientation, pose.position
    parent_from_child = np.eye(4)
    parent_from_child[:3, :3] = matrix_from_quaternion_xyzw(np.array([q.x, q.y, q.z, q.w]))
    parent_from_child[:3, 3] = (p.x, p.y, p.z)
    return parent_from_child


def transform_message(
    stamp_ns: int, parent: str, child: str, parent_from_child: Float[np.ndarray, "4 4"]
) -> TransformStamped:
    """Where a child frame lies in its parent, for the transform tree."""
    message = TransformStamped(child_frame_id=child)
    message.header.stamp = time_message(stamp_ns)
    message.header.frame_id = parent
    pose, target = pose_message(parent_from_child), message.transform
    target.rotation = pose.orientation
    target.translation.x = pose.position.x
    target.translation.y = pose.position.y
    target.translation.z = pose.position.z
    return message
