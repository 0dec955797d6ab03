# SPDX-License-Identifier: Apache-2.0
"""The JSON messages of the drone and phone app, checked before anything is made of them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping

from worldsystem_core.errors import ProtocolError
from worldsystem_core.frames import Camera
from worldsystem_core.telemetry import GpsFix, ImuSample

Message = Mapping[str, object]
RESTART_TYPES = ("restart", "reset", "stream_restart", "restart_stream")


def message_from(text: str) -> Message:
    """Read one JSON object with a `type`; raises `ProtocolError` saying what is wrong."""
    try:
        message = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"not JSON: {str(error)[:120]}") from error
    if not isinstance(message, dict):
        raise ProtocolError(f"a message is a JSON object, not {type(message).__name__}")
    if not isinstance(message.get("type"), str):
        raise ProtocolError('a message needs a "type", for instance "imu" or "video_config"')
    return message


def camera_from(message: Message) -> Camera | None:
    """The camera of a `video_config`; None when it holds no intrinsics.

    `fy` defaults to `fx`, the principal point to the picture's centre.
    """
    nested = message.get("config")
    config: Message = {**message, **nested} if isinstance(nested, dict) else message
    if config.get("fx") is None:
        return None
    width, height = (_size(config, name) for name in ("width", "height"))
    fx = _number(config, "fx")
    fy = _number({"fy": fx, **config}, "fy")
    if fx <= 0 or fy <= 0:
        raise ProtocolError(f"fx = {fx} and fy = {fy} must be positive")
    centre = {"cx": 0.5 * (width - 1), "cy": 0.5 * (height - 1), **config}
    return Camera(
        width=width,
        height=height,
        fx=fx,
        fy=fy,
        cx=_number(centre, "cx"),
        cy=_number(centre, "cy"),
        distortion=_numbers(config.get("distortion", ()), "distortion"),
    )


def imu_from(message: Message, stamp_ns: int) -> ImuSample:
    """The measurement in an `imu` message, stamped in host time."""
    return ImuSample(
        stamp_ns=stamp_ns,
        acceleration=_vector(message, "acceleration"),
        angular_velocity=_vector(message, "angular_velocity"),
    )


def gps_from(message: Message, stamp_ns: int) -> GpsFix:
    """The fix in a `gps` message, stamped in host time."""
    latitude, longitude = _number(message, "latitude"), _number(message, "longitude")
    if abs(latitude) > 90 or abs(longitude) > 180:
        raise ProtocolError(f"latitude {latitude}, longitude {longitude} are not on the globe")
    altitude = _number({"altitude": 0.0, **message}, "altitude")
    return GpsFix(
        stamp_ns=stamp_ns, latitude_deg=latitude, longitude_deg=longitude, altitude_m=altitude
    )


def sender_ns_of(message: Message) -> int:
    """The sender's time; 0, which is never plausible, when it is missing or no whole number."""
    stamp = message.get("timestamp_ns", 0)
    return stamp if isinstance(stamp, int) and not isinstance(stamp, bool) else 0


def _number(message: Message, name: str) -> float:
    value = message.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ProtocolError(f'"{name}" must be a number, not {str(value)[:40]!r}')
    if (isinstance(value, int) and abs(value) > 2**63) or not math.isfinite(value):
        raise ProtocolError(f'"{name}" must be finite')
    return float(value)


def _size(message: Message, name: str) -> int:
    value = _number(message, name)
    if not 1 <= value <= 16384 or value != int(value):
        raise ProtocolError(f'"{name}" = {value} must be a whole number of pixels up to 16384')
    return int(value)


def _numbers(values: object, name: str) -> tuple[float, ...]:
    if not isinstance(values, Iterable) or isinstance(values, (str, dict)):
        raise ProtocolError(f'"{name}" must be a list of numbers')
    return tuple(_number({name: value}, name) for value in values)


def _vector(message: Message, name: str) -> tuple[float, float, float]:
    value = message.get(name)
    if isinstance(value, dict):
        value = [value.get(axis) for axis in "xyz"]
    numbers = _numbers(value, name)
    if len(numbers) != 3:
        raise ProtocolError(f'"{name}" must be 3 numbers, not {len(numbers)}')
    return numbers[0], numbers[1], numbers[2]
