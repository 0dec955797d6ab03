# SPDX-License-Identifier: Apache-2.0
"""Inertial measurements and attitudes: the messages that come hundreds of times a second.

Both are `sensor_msgs/Imu`, each with its other half marked as unknown (REP-145). They are packed
at once, since a message object's making and serialising costs more than all else that is done with
a sample; the tests compare every byte with what rclpy makes of the object.
"""

from __future__ import annotations

import struct

import numpy as np
from jaxtyping import Float64
from sensor_msgs.msg import Imu

from worldsystem_core.ros.cdr import CdrReader
from worldsystem_core.telemetry import AttitudeSample, ImuSample

BODY_FRAME = "base_link"
_FRAME = BODY_FRAME.encode() + b"\x00"
# the encapsulation; then stamp and frame, up to the next multiple of eight; then all the doubles
_STAMP_AND_FRAME = struct.Struct(f"<4s iI I{len(_FRAME)}s {-(12 + len(_FRAME)) % 8}x")
_NINE = (0.0,) * 9
_UNKNOWN = (-1.0, *_NINE[1:])
_NO_ROTATION, _NO_VECTOR = (0.0, 0.0, 0.0, 1.0), (0.0, 0.0, 0.0)
_DOUBLES = struct.Struct("<37d")
_ORIENTATION, _ANGULAR_VELOCITY, _ACCELERATION = slice(0, 4), slice(13, 16), slice(25, 28)


class ImuAdapter:
    """Rates and accelerations; `orientation` is marked as unknown."""

    ros_type = Imu

    def dump(self, item: ImuSample) -> list[bytes]:
        rates = (*item.angular_velocity, *_NINE, *item.acceleration, *_NINE)
        doubles = _DOUBLES.pack(*_NO_ROTATION, *_UNKNOWN, *rates)
        return [_stamp_and_frame(item.stamp_ns) + doubles]

    def load(self, cdr: bytes) -> ImuSample:
        stamp_ns, doubles = _read(cdr)
        ax, ay, az = doubles[_ACCELERATION].tolist()
        wx, wy, wz = doubles[_ANGULAR_VELOCITY].tolist()
        return ImuSample(
            stamp_ns=stamp_ns, acceleration=(ax, ay, az), angular_velocity=(wx, wy, wz)
        )


class AttitudeAdapter:
    """The orientation alone; rates and accelerations are marked as unknown."""

    ros_type = Imu

    def dump(self, item: AttitudeSample) -> list[bytes]:
        unknown = (*_NO_VECTOR, *_UNKNOWN, *_NO_VECTOR, *_UNKNOWN)
        doubles = _DOUBLES.pack(*item.map_from_body, *_NINE, *unknown)
        return [_stamp_and_frame(item.stamp_ns) + doubles]

    def load(self, cdr: bytes) -> AttitudeSample:
        stamp_ns, doubles = _read(cdr)
        x, y, z, w = doubles[_ORIENTATION].tolist()
        return AttitudeSample(stamp_ns=stamp_ns, map_from_body=(x, y, z, w))


def _stamp_and_frame(stamp_ns: int) -> bytes:
    seconds, nanoseconds = divmod(stamp_ns, 10**9)
    return _STAMP_AND_FRAME.pack(b"\x00\x01\x00\x00", seconds, nanoseconds, len(_FRAME), _FRAME)


def _read(cdr: bytes) -> tuple[int, Float64[np.ndarray, "37"]]:
    """The stamp [ns] and all doubles of one message, whatever its frame is called."""
    reader = CdrReader(cdr)
    stamp_ns = reader.stamp()
    reader.string()
    return stamp_ns, reader.doubles(_DOUBLES.size // 8)
