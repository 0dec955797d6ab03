# SPDX-License-Identifier: Apache-2.0
"""What a drone or phone tells beside its video: inertial and satellite measurements."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ImuSample:
    """Specific force [m/s²], angular velocity [rad/s]; body frame: x forward, y left, z up."""

    stamp_ns: int
    acceleration: tuple[float, float, float]
    angular_velocity: tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class GpsFix:
    """WGS-84 position [deg, deg, m above the ellipsoid]."""

    stamp_ns: int
    latitude_deg: float
    longitude_deg: float
    altitude_m: float
