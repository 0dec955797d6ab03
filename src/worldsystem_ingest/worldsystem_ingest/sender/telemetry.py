# SPDX-License-Identifier: Apache-2.0
"""The JSON messages of the drone and phone app, made into measurements (docs/telemetry.md)."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Iterator

from worldsystem_core.errors import ProtocolError
from worldsystem_core.frames import Camera
from worldsystem_core.telemetry import (
    AttitudeSample,
    BatterySample,
    GpsFix,
    ImuSample,
    OdometrySample,
    PressureSample,
    Quaternion,
    Telemetry,
)
from worldsystem_ingest.codec.assembly import codec_named
from worldsystem_ingest.sender import fields
from worldsystem_ingest.sender.fields import Message, Quantity

_log = logging.getLogger(__name__)
RESTART_TYPES = ("restart", "reset", "stream_restart", "restart_stream")
_SILENT_TYPES = ("telemetry", "status", "ping", "pong")
_MOST_SAMPLES = 1000
_LISTS = ("samples", "readings", "batch", "data")

_DEG, _G_MPS2 = math.pi / 180, 9.80665
_ACCELERATION = Quantity(
    {"acceleration": 1, "accel": 1, "accelerometer": 1, "acceleration_g": _G_MPS2}, -2000, 2000
)
_ANGULAR_VELOCITY = Quantity(
    {
        "angular_velocity": 1,
        "gyro": 1,
        "gyroscope": 1,
        "rotation_rate": 1,
        "angular_velocity_dps": _DEG,
        "gyro_dps": _DEG,
    },
    -200,
    200,
)
_LATITUDE = Quantity({"latitude": 1, "lat": 1, "latitude_deg": 1}, -90, 90)
_LONGITUDE = Quantity({"longitude": 1, "lon": 1, "lng": 1, "longitude_deg": 1}, -180, 180)
_ALTITUDE = Quantity({"altitude": 1, "alt": 1, "altitude_m": 1}, -12_000, 100_000)
_HORIZONTAL_ERROR = Quantity(
    {"horizontal_error_m": 1, "horizontal_accuracy": 1, "accuracy": 1, "accuracy_m": 1}, -1, 1e7
)
_VERTICAL_ERROR = Quantity(
    {"vertical_error_m": 1, "vertical_accuracy": 1, "altitude_accuracy": 1}, -1, 1e7
)
_PRESSURE = Quantity({"pressure_pa": 1, "pressure_hpa": 100, "pressure_kpa": 1000}, 100, 200_000)
_PLAIN_PRESSURE_PA = {"Pa": 1.0, "hPa": 100.0, "kPa": 1000.0}
_AIR_PA = (30_000.0, 110_000.0)  # from the highest summit to below every sea level
_CHARGE = Quantity(
    {"percent": 0.01, "battery_percent": 0.01, "level_percent": 0.01, "charge": 1, "level": 1}, 0, 1
)
_VOLTAGE = Quantity({"voltage_v": 1, "voltage": 1, "voltage_mv": 1e-3}, 0, 1000)
_CURRENT = Quantity({"current_a": 1, "current": 1, "current_ma": 1e-3}, -1000, 1000)
_TEMPERATURE = Quantity({"temperature_c": 1, "temperature": 1}, -100, 200)
_POSITION = Quantity({"position": 1, "position_m": 1}, -1e6, 1e6)
_POSITION_ERROR = Quantity({"position_error_m": 1, "accuracy_m": 1, "accuracy": 1}, -1, 1e6)
_NO_QUATERNION: Quaternion = (math.nan, math.nan, math.nan, math.nan)
_ROLL, _PITCH, _YAW = (
    Quantity({f"{name}_rad": 1, f"{name}_deg": _DEG}, -2 * math.pi, 2 * math.pi)
    for name in ("roll", "pitch", "yaw")
)
_HEADING = Quantity({"heading_rad": 1, "heading_deg": _DEG}, -2 * math.pi, 2 * math.pi)
_QUATERNION_NAMES = {"quaternion": "xyzw", "quaternion_xyzw": "xyzw", "quaternion_wxyz": "wxyz"}


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
    config = _config_of(message)
    if config.get("fx") is None:
        return None
    width, height = (fields.pixels(config, name) for name in ("width", "height"))
    fx = fields.number(config, "fx")
    fy = fields.number({"fy": fx, **config}, "fy")
    if fx <= 0 or fy <= 0:
        raise ProtocolError(f"fx = {fx} and fy = {fy} must be positive")
    centre = {"cx": 0.5 * (width - 1), "cy": 0.5 * (height - 1), **config}
    return Camera(
        width=width,
        height=height,
        fx=fx,
        fy=fy,
        cx=fields.number(centre, "cx"),
        cy=fields.number(centre, "cy"),
        distortion=fields.numbers(config.get("distortion", ()), "distortion"),
    )


def codec_from(message: Message) -> str:
    """`h264` or `h265`, as a `video_config` names it; empty when it names none."""
    name = _config_of(message).get("codec")
    if name in (None, ""):
        return ""
    codec = codec_named(str(name))
    if codec is None:
        raise ProtocolError(f"unknown codec {str(name)[:40]!r}; known: h264, h265")
    return codec


def _config_of(message: Message) -> Message:
    nested = message.get("config")
    return {**message, **nested} if isinstance(nested, dict) else message


class TelemetryReader:
    """Makes measurements of messages; their stamps are the sender's times, 0 where it told none.

    `guessed_units` counts pressures whose unit only their size told.
    """

    def __init__(self) -> None:
        self.guessed_units = 0
        self._kinds: dict[str, Callable[[Message, int], list[Telemetry]]] = {
            "imu": self._imu,
            "gps": self._gps,
            "barometer": self._pressure,
            "attitude": self._attitude,
            "battery": self._battery,
            "odometry": self._odometry,
        }
        self._aliases = {
            "gnss": "gps",
            "location": "gps",
            "pressure": "barometer",
            "baro": "barometer",
            "orientation": "attitude",
            "vio": "odometry",
            "arkit": "odometry",
        }

    def samples(self, message: Message) -> list[Telemetry]:
        """Every measurement of one message; raises `ProtocolError`, and then takes none of it.

        Batches, nested `data`, and a `telemetry` message with a part for each sensor are taken
        apart. `status`, `ping` and `pong` hold none.
        """
        if message.get("type") == "status":  # taken and not looked at, whatever it holds
            return []
        found: list[Telemetry] = []
        for single in _singles(message):
            found += self._of(single)
        return found

    def _of(self, message: Message) -> list[Telemetry]:
        kind = str(message["type"])
        read = self._kinds.get(self._aliases.get(kind, kind))
        if read:
            return read(message, fields.sender_ns(message))
        if kind not in _SILENT_TYPES:
            known = ", ".join([*self._kinds, *_SILENT_TYPES])
            raise ProtocolError(f"unknown type {kind!r:.40}; known: {known}")
        if kind != "telemetry":
            return []
        found: list[Telemetry] = []
        for name, part in message.items():
            if isinstance(part, dict) and self._aliases.get(name, name) in self._kinds:
                found += self._of({**_inner(message, name, part), "type": name})
        return found

    def _imu(self, message: Message, stamp_ns: int) -> list[Telemetry]:
        sample = ImuSample(
            stamp_ns=stamp_ns,
            acceleration=fields.vector(message, _ACCELERATION),
            angular_velocity=fields.vector(message, _ANGULAR_VELOCITY),
        )
        attitude = message.get("attitude")
        inside = fields.snake_case(attitude) if isinstance(attitude, dict) else message
        quaternion = _quaternion_of(inside)
        if quaternion is None:
            return [sample]
        return [sample, AttitudeSample(stamp_ns=stamp_ns, map_from_body=quaternion)]

    def _gps(self, message: Message, stamp_ns: int) -> list[Telemetry]:
        latitude = fields.quantity(message, _LATITUDE)
        longitude = fields.quantity(message, _LONGITUDE)
        if latitude is None or longitude is None:
            raise ProtocolError('a fix needs "latitude" and "longitude" [deg]')
        altitude = fields.quantity(message, _ALTITUDE)
        fix = GpsFix(
            stamp_ns=stamp_ns,
            latitude_deg=latitude,
            longitude_deg=longitude,
            altitude_m=math.nan if altitude is None else altitude,
            horizontal_error_m=_error_of(message, _HORIZONTAL_ERROR),
            vertical_error_m=_error_of(message, _VERTICAL_ERROR),
        )
        return [fix]

    def _pressure(self, message: Message, stamp_ns: int) -> list[Telemetry]:
        pressure_pa = fields.quantity(message, _PRESSURE)
        if pressure_pa is None:
            pressure_pa = self._plain_pressure_pa(message)
        return [PressureSample(stamp_ns=stamp_ns, pressure_pa=pressure_pa)]

    def _plain_pressure_pa(self, message: Message) -> float:
        """A pressure without its unit in the name: air has it between 300 and 1100 hPa."""
        value, unit = fields.number(message, "pressure"), message.get("unit")
        for name, factor in _PLAIN_PRESSURE_PA.items():
            if str(unit).lower() == name.lower():
                named = {f"pressure_{name.lower()}": value}
                return fields.quantity(named, _PRESSURE) or value * factor
        for name, factor in _PLAIN_PRESSURE_PA.items():
            if _AIR_PA[0] <= value * factor <= _AIR_PA[1]:
                self._guessed(value, name)
                return value * factor
        raise ProtocolError(
            f'"pressure" = {value:g} is no air pressure; send pressure_hpa or pressure_pa'
        )

    def _guessed(self, value: float, unit: str) -> None:
        self.guessed_units += 1
        if self.guessed_units == 1:
            _log.warning(
                '"pressure" = %g comes without a unit and is taken as %s; '
                "send pressure_hpa or pressure_pa",
                value,
                unit,
            )

    def _attitude(self, message: Message, stamp_ns: int) -> list[Telemetry]:
        quaternion = _quaternion_of(message)
        if quaternion is None:
            raise ProtocolError(
                'an attitude is a "quaternion" (x y z w), or roll, pitch and yaw (or heading) '
                "named roll_deg or roll_rad, and so on"
            )
        return [AttitudeSample(stamp_ns=stamp_ns, map_from_body=quaternion)]

    def _odometry(self, message: Message, stamp_ns: int) -> list[Telemetry]:
        error = _error_of(message, _POSITION_ERROR)
        sample = OdometrySample(
            stamp_ns=stamp_ns,
            position_m=fields.vector(message, _POSITION),
            level_from_body=_quaternion_of(message) or _NO_QUATERNION,
            position_error_m=error,
        )
        return [sample]

    def _battery(self, message: Message, stamp_ns: int) -> list[Telemetry]:
        charge = fields.quantity(message, _CHARGE)
        voltage = fields.quantity(message, _VOLTAGE)
        if charge is None and voltage is None:
            raise ProtocolError('a battery needs "percent", "charge" (0 to 1) or "voltage_v"')
        sample = BatterySample(
            stamp_ns=stamp_ns,
            charge=_or_nan(charge),
            voltage_v=_or_nan(voltage),
            current_a=_or_nan(fields.quantity(message, _CURRENT)),
            temperature_c=_or_nan(fields.quantity(message, _TEMPERATURE)),
            charging=fields.flag(message, ("charging", "is_charging")),
        )
        return [sample]


def _singles(message: Message) -> Iterator[Message]:
    """The messages that one holds: itself, its `data`, or each of its samples."""
    message = fields.snake_case(message)
    for name in _LISTS:
        batch = message.get(name)
        if isinstance(batch, list):
            if len(batch) > _MOST_SAMPLES:
                raise ProtocolError(f'"{name}" has {len(batch)} samples; {_MOST_SAMPLES} is most')
            yield from (_inner(message, name, sample) for sample in batch)
            return
    yield _inner(message, "data", message["data"]) if "data" in message else message


def _inner(message: Message, name: str, sample: object) -> Message:
    """A nested sample with the type, and where it has none of its own the time, of its message."""
    if not isinstance(sample, dict):
        raise ProtocolError(f'"{name}" must hold objects, not {str(sample)[:40]!r}')
    inner = fields.snake_case(sample)
    own_time = bool(_times_of(inner))
    outer = {} if own_time else _times_of(message)
    return {"type": message["type"], **inner, **outer} | _type_of(inner, message)


def _type_of(inner: Message, outer: Message) -> dict[str, object]:
    kind = inner.get("type", outer["type"])
    return {"type": kind if isinstance(kind, str) else str(kind)[:40]}


def _times_of(message: Message) -> dict[str, object]:
    told = {k: v for k, v in message.items() if v is not None}
    return {k: v for k, v in told.items() if k.startswith("timestamp") or k in ("time", "ts")}


def _quaternion_of(message: Message) -> Quaternion | None:
    """The rotation of a message, of unit length; None when it tells none."""
    for name, order in _QUATERNION_NAMES.items():
        if message.get(name) is not None:
            found = dict(zip(order, fields.components(message[name], name, order), strict=True))
            return _unit(found["x"], found["y"], found["z"], found["w"])
    angles = [fields.quantity(message, angle) for angle in (_ROLL, _PITCH, _YAW)]
    heading = fields.quantity(message, _HEADING)
    if angles[2] is None and heading is not None:
        angles[2] = math.pi / 2 - heading
    roll, pitch, yaw = angles
    if roll is None or pitch is None or yaw is None:
        return None
    return quaternion_from(roll, pitch, yaw)


def quaternion_from(roll_rad: float, pitch_rad: float, yaw_rad: float) -> Quaternion:
    """x y z w of a turn about the fixed axes x, then y, then z (REP-103), each right-handed."""
    cr, sr = math.cos(roll_rad / 2), math.sin(roll_rad / 2)
    cp, sp = math.cos(pitch_rad / 2), math.sin(pitch_rad / 2)
    cy, sy = math.cos(yaw_rad / 2), math.sin(yaw_rad / 2)
    return (
        sr * cp * cy - cr * sp * sy,
        cr * sp * cy + sr * cp * sy,
        cr * cp * sy - sr * sp * cy,
        cr * cp * cy + sr * sp * sy,
    )


def _unit(x: float, y: float, z: float, w: float) -> Quaternion:
    length = math.hypot(x, y, z, w)
    if not 0.9 <= length <= 1.1:
        raise ProtocolError(f"a quaternion of length {length:g} is no rotation; it must be 1")
    return x / length, y / length, z / length, w / length


def _error_of(message: Message, wanted: Quantity) -> float:
    """A standard deviation; phones say -1 for one that is not known."""
    error = fields.quantity(message, wanted)
    return math.nan if error is None or error < 0 else error


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value
