# SPDX-License-Identifier: Apache-2.0
"""Geodetic positions in a local frame of east, north and up, exactly (WGS 84)."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float64

from worldsystem_core.geometry.sim3 import Sim3

ENU, LEVEL = "enu", "level"
"""Whose axes a metric frame has: east, north and up, or those of a phone's level odometry."""
_A_M = 6378137.0
_E2 = 6.69437999014e-3
_STEPS = 6


def ecef_m(
    latitude_deg: float, longitude_deg: float, altitude_m: float
) -> Float64[np.ndarray, "3"]:
    """Earth-centred position of a point above the ellipsoid."""
    latitude, longitude = np.radians(latitude_deg), np.radians(longitude_deg)
    normal_m = _A_M / np.sqrt(1.0 - _E2 * np.sin(latitude) ** 2)
    across = (normal_m + altitude_m) * np.cos(latitude)
    return np.array(
        [
            across * np.cos(longitude),
            across * np.sin(longitude),
            (normal_m * (1.0 - _E2) + altitude_m) * np.sin(latitude),
        ]
    )


def geodetic(ecef: Float64[np.ndarray, "3"]) -> tuple[float, float, float]:
    """Latitude [deg], longitude [deg] and height [m] of a place within 1000 km of the ground."""
    across = float(np.hypot(ecef[0], ecef[1]))
    latitude = float(np.arctan2(ecef[2], across * (1.0 - _E2)))
    for _ in range(_STEPS):
        normal_m = _A_M / np.sqrt(1.0 - _E2 * np.sin(latitude) ** 2)
        latitude = float(np.arctan2(ecef[2] + _E2 * normal_m * np.sin(latitude), across))
    # from the ellipsoid along its normal: exact at the poles, too
    foot = ecef_m(np.degrees(latitude), np.degrees(np.arctan2(ecef[1], ecef[0])), 0.0)
    out = np.array([np.cos(latitude), np.sin(latitude)])
    height = out @ [across - float(np.hypot(foot[0], foot[1])), ecef[2] - foot[2]]
    longitude = np.degrees(np.arctan2(ecef[1], ecef[0]))
    return float(np.degrees(latitude)), float(longitude), float(height)


@dataclass(frozen=True)
class EnuFrame:
    """East, north, up [m] about an origin on or above the ellipsoid."""

    latitude_deg: float
    longitude_deg: float
    altitude_m: float
    _origin: Float64[np.ndarray, "3"] = field(init=False, repr=False, compare=False)
    _enu_from_ecef: Float64[np.ndarray, "3 3"] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        latitude, longitude = np.radians(self.latitude_deg), np.radians(self.longitude_deg)
        sp, cp = np.sin(latitude), np.cos(latitude)
        sl, cl = np.sin(longitude), np.cos(longitude)
        axes = np.array([[-sl, cl, 0.0], [-sp * cl, -sp * sl, cp], [cp * cl, cp * sl, sp]])
        origin = ecef_m(self.latitude_deg, self.longitude_deg, self.altitude_m)
        object.__setattr__(self, "_origin", origin)
        object.__setattr__(self, "_enu_from_ecef", axes)

    def position_m(
        self, latitude_deg: float, longitude_deg: float, altitude_m: float
    ) -> Float64[np.ndarray, "3"]:
        """East, north, up of a geodetic position."""
        away = ecef_m(latitude_deg, longitude_deg, altitude_m) - self._origin
        return np.asarray(self._enu_from_ecef @ away)

    def about(self, position_m: Float64[np.ndarray, "3"]) -> EnuFrame:
        """The frame whose origin is that place of this one."""
        return EnuFrame(*geodetic(self._origin + self._enu_from_ecef.T @ position_m))

    def from_other(self, other: EnuFrame) -> Sim3:
        """`self_from_other`: positions in the other frame become those in this one."""
        turn = self._enu_from_ecef @ other._enu_from_ecef.T
        return Sim3(1.0, turn, self._enu_from_ecef @ (other._origin - self._origin))


def height_m(pressure_pa: float) -> float:
    """Height of the standard atmosphere at a pressure, up to 11 km (ISO 2533).

    The weather moves it by tens of metres, the same everywhere: only differences count.
    """
    return float((1.0 - (pressure_pa / 101_325.0) ** (1.0 / 5.25588)) * 288.15 / 0.0065)
