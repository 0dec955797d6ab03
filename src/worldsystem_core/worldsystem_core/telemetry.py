# SPDX-License-Identifier: Apache-2.0
"""What a drone or phone tells beside its video, each sample stamped in host time [ns].

Body frame (REP-103): x forward, y left, z up. A number that is not known is NaN.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

Vector = tuple[float, float, float]
Quaternion = tuple[float, float, float, float]


@dataclass(frozen=True, kw_only=True)
class ImuSample:
    """Specific force [m/s²] and angular velocity [rad/s], in the body frame."""

    stamp_ns: int
    acceleration: Vector
    angular_velocity: Vector


@dataclass(frozen=True, kw_only=True)
class AttitudeSample:
    """The body's orientation in a level frame, x east and y north: unit quaternion x y z w."""

    stamp_ns: int
    map_from_body: Quaternion


@dataclass(frozen=True, kw_only=True)
class GpsFix:
    """WGS-84 position [deg, deg, m above the ellipsoid] with its standard deviations [m]."""

    stamp_ns: int
    latitude_deg: float
    longitude_deg: float
    altitude_m: float
    horizontal_error_m: float = math.nan
    vertical_error_m: float = math.nan


@dataclass(frozen=True, kw_only=True)
class PressureSample:
    """Absolute air pressure [Pa]."""

    stamp_ns: int
    pressure_pa: float


@dataclass(frozen=True, kw_only=True)
class BatterySample:
    """State of the battery: charge as a share of 1, voltage [V], current [A], temperature [°C].

    The current is negative while discharging; `charging` is None while unknown.
    """

    stamp_ns: int
    charge: float
    voltage_v: float = math.nan
    current_a: float = math.nan
    temperature_c: float = math.nan
    charging: bool | None = None


@dataclass(frozen=True, kw_only=True)
class OdometrySample:
    """Where a phone or drone believes it is (ARKit, ARCore, a filter), in a level frame of its own.

    Position [m] with z up, the origin and heading being its own; orientation of the body as unit
    quaternion x y z w; `position_error_m` is the standard deviation of a position relative to those
    of some seconds around.
    """

    stamp_ns: int
    position_m: Vector
    level_from_body: Quaternion = (math.nan, math.nan, math.nan, math.nan)
    position_error_m: float = math.nan


Telemetry = ImuSample | AttitudeSample | GpsFix | PressureSample | BatterySample | OdometrySample
