# SPDX-License-Identifier: Apache-2.0
"""The camera and what was measured beside it, out of messages."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from worldsystem_core.distortion import plumb_bob
from worldsystem_core.frames import Camera
from worldsystem_core.telemetry import (
    AttitudeSample,
    BatterySample,
    GpsFix,
    ImuSample,
    OdometrySample,
    PressureSample,
    Telemetry,
)

CAMERA_INFO = "sensor_msgs/msg/CameraInfo"
_ODOMETRY = "nav_msgs/msg/Odometry"
_LEVEL = "/odometry/level"  # others' may be of any frame, or the truth that is to be found out
_PICTURES = re.compile(r"(.*)/camera/(?:video|image/compressed)")  # as our recorder names them
_TRANSPORT = re.compile(r"/(?:compressed|ffmpeg|foxglove)$")  # image_transport puts it last
_RECTIFIED = re.compile(r"(?<![a-z])rect")  # not `direct`, nor `unrectified`
_UNKNOWN = -1.0  # in the first covariance: this is not measured (REP-145)
_NO_FIX = -1
_CHARGING, _DISCHARGING, _NOT_CHARGING, _FULL = 1, 2, 3, 4


def camera_info_topic(picture_topic: str, info_topics: Iterable[str]) -> str:
    """The intrinsics that belong to a topic of pictures: the nearest above it; empty if none."""
    above = [topic for topic in info_topics if picture_topic.startswith(_namespace(topic))]
    return max(above, key=lambda topic: len(_namespace(topic)), default="")


def is_rectified(picture_topic: str) -> bool:
    """Whether a topic's name says so, as image_proc names it, whatever transport it came by."""
    name = _TRANSPORT.sub("", picture_topic).rpartition("/")[2]
    return bool(_RECTIFIED.search(name.lower()))


def camera_of(info: Any, *, rectified: bool) -> Camera | None:
    """The camera of a `CameraInfo`; None while it is not calibrated.

    A `rectified` picture is that of the projection matrix and has no distortion. Distortion other
    than plumb-bob is left out, with a warning.
    """
    matrix = info.K if hasattr(info, "K") else info.k
    projection = np.asarray(info.P if hasattr(info, "P") else info.p, float).reshape(3, 4)
    K = projection[:, :3] if rectified else np.asarray(matrix, float).reshape(3, 3)
    if not np.isfinite(K).all() or K[0, 0] <= 0 or K[1, 1] <= 0 or not info.width:
        return None
    return Camera(
        width=int(info.width),
        height=int(info.height),
        fx=float(K[0, 0]),
        fy=float(K[1, 1]),
        cx=float(K[0, 2]),
        cy=float(K[1, 2]),
        distortion=() if rectified else plumb_bob(info.distortion_model, _coefficients(info)),
    )


def telemetry_topics(picture_topic: str, types: Mapping[str, str]) -> list[str]:
    """The topics, of those with these `types`, that tell of the camera of `picture_topic`.

    What was measured beside another stream of a recording of ours is not among them.
    """
    streams = [found[1] for topic in types if (found := _PICTURES.fullmatch(topic))]
    stream = _stream_of(picture_topic, streams)
    return sorted(
        topic
        for topic, name in types.items()
        if name in TELEMETRY_TYPES
        and (name != _ODOMETRY or topic.endswith(_LEVEL))
        and _stream_of(topic, streams) in (None, stream)
    )


def samples_of(type_name: str, message: Any, stamp_ns: int) -> list[Telemetry]:
    """The measurements in a message of a type in `TELEMETRY_TYPES`; none where it says nothing."""
    return _CONVERSIONS[type_name](message, stamp_ns)


def _stream_of(topic: str, streams: Iterable[str]) -> str | None:
    """The namespace of the stream that a topic belongs to; None where it is of none."""
    around = [stream for stream in streams if topic.startswith(f"{stream}/")]
    return max(around, key=len, default=None)


def _namespace(topic: str) -> str:
    return topic.rpartition("/")[0] + "/"


def _coefficients(info: Any) -> Iterable[float]:
    """ROS 1 writes the name of the field in capitals."""
    values: Iterable[float] = info.D if hasattr(info, "D") else info.d
    return values


def _imu(message: Any, stamp_ns: int) -> list[Telemetry]:
    samples: list[Telemetry] = []
    acceleration_known = message.linear_acceleration_covariance[0] != _UNKNOWN
    rotation_known = message.angular_velocity_covariance[0] != _UNKNOWN
    if acceleration_known and rotation_known:
        linear, angular = message.linear_acceleration, message.angular_velocity
        samples.append(
            ImuSample(
                stamp_ns=stamp_ns,
                acceleration=(linear.x, linear.y, linear.z),
                angular_velocity=(angular.x, angular.y, angular.z),
            )
        )
    to = message.orientation
    orientation = (to.x, to.y, to.z, to.w)
    says_something = orientation != (0.0, 0.0, 0.0, 1.0) or not samples
    is_unit = abs(math.hypot(*orientation) - 1.0) < 1e-2
    if message.orientation_covariance[0] != _UNKNOWN and is_unit and says_something:
        samples.append(AttitudeSample(stamp_ns=stamp_ns, map_from_body=orientation))
    return samples


def _fix(message: Any, stamp_ns: int) -> list[Telemetry]:
    place = (message.latitude, message.longitude)
    if message.status.status <= _NO_FIX or not all(map(math.isfinite, place)):
        return []
    east, up = message.position_covariance[0], message.position_covariance[8]
    known = message.position_covariance_type != 0
    return [
        GpsFix(
            stamp_ns=stamp_ns,
            latitude_deg=float(message.latitude),
            longitude_deg=float(message.longitude),
            altitude_m=float(message.altitude),
            horizontal_error_m=math.sqrt(2 * east) if known and east >= 0 else math.nan,
            vertical_error_m=math.sqrt(up) if known and up >= 0 else math.nan,
        )
    ]


def _pressure(message: Any, stamp_ns: int) -> list[Telemetry]:
    return [PressureSample(stamp_ns=stamp_ns, pressure_pa=float(message.fluid_pressure))]


def _battery(message: Any, stamp_ns: int) -> list[Telemetry]:
    status = message.power_supply_status
    known = status in (_CHARGING, _DISCHARGING, _NOT_CHARGING, _FULL)
    return [
        BatterySample(
            stamp_ns=stamp_ns,
            charge=float(message.percentage),
            voltage_v=float(message.voltage),
            current_a=float(message.current),
            temperature_c=float(getattr(message, "temperature", math.nan)),
            charging=status == _CHARGING if known else None,
        )
    ]


def _odometry(message: Any, stamp_ns: int) -> list[Telemetry]:
    at, to = message.pose.pose.position, message.pose.pose.orientation
    variance = float(message.pose.covariance[0])
    return [
        OdometrySample(
            stamp_ns=stamp_ns,
            position_m=(at.x, at.y, at.z),
            level_from_body=(to.x, to.y, to.z, to.w),
            position_error_m=math.sqrt(variance) if variance > 0 else math.nan,
        )
    ]


_CONVERSIONS: dict[str, Callable[[Any, int], list[Telemetry]]] = {
    "sensor_msgs/msg/Imu": _imu,
    "sensor_msgs/msg/NavSatFix": _fix,
    "sensor_msgs/msg/FluidPressure": _pressure,
    "sensor_msgs/msg/BatteryState": _battery,
    _ODOMETRY: _odometry,
}
TELEMETRY_TYPES = tuple(_CONVERSIONS)
