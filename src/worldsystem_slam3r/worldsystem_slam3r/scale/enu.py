# SPDX-License-Identifier: Apache-2.0
"""Geodetic positions in a local frame of east, north and up, exactly (WGS 84)."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float64

ENU, LEVEL = "enu", "level"
"""Whose axes a metric frame has: east, north and up, or those of a phone's level odometry."""
_A_M = 6378137.0
_E2 = 6.69437999014e-3


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


def height_m(pressure_pa: float) -> float:
    """Height of the standard atmosphere at a pressure, up to 11 km (ISO 2533).

    The weather moves it by tens of metres, the same everywhere: only differences count.
    """
    return float((1.0 - (pressure_pa / 101_325.0) ** (1.0 / 5.25588)) * 288.15 / 0.0065)
