# SPDX-License-Identifier: Apache-2.0
"""What the drone tells beside its video: inertial and GPS messages computed from the flight."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Iterator

import numpy as np

from worldsystem_sim.config import SimConfig
from worldsystem_sim.flight import Flight

IMU_HZ, GPS_HZ = 50.0, 5.0
ORIGIN_LATITUDE_DEG, ORIGIN_LONGITUDE_DEG, ORIGIN_ALTITUDE_M = 47.3977, 8.5456, 488.0
_WGS84_A_M, _WGS84_E2 = 6378137.0, 6.69437999014e-3
Message = dict[str, object]


def geodetic_from_map(east_m: float, north_m: float, up_m: float) -> tuple[float, float, float]:
    """Latitude [deg], longitude [deg], altitude [m] of a point in `map` (ENU at the origin above).

    First order in distance: within 1 cm of the exact ENU conversion over 200 m.
    """
    latitude = math.radians(ORIGIN_LATITUDE_DEG)
    w2 = 1.0 - _WGS84_E2 * math.sin(latitude) ** 2
    meridian_m = _WGS84_A_M * (1.0 - _WGS84_E2) / w2**1.5
    normal_m = _WGS84_A_M / math.sqrt(w2)
    north_deg = math.degrees(north_m / (meridian_m + ORIGIN_ALTITUDE_M))
    east_deg = math.degrees(east_m / ((normal_m + ORIGIN_ALTITUDE_M) * math.cos(latitude)))
    return (
        ORIGIN_LATITUDE_DEG + north_deg,
        ORIGIN_LONGITUDE_DEG + east_deg,
        ORIGIN_ALTITUDE_M + up_m,
    )


def telemetry(config: SimConfig, flight: Flight, start_ns: int) -> Iterator[tuple[int, Message]]:
    """Telemetry messages of a flight that begins at `start_ns`, in time order with stamps.

    A flight that loops is told again and again, without end.
    """
    lap_ns = round(config.frame_count * 1e9 / config.fps)
    for lap in itertools.count() if config.loop else range(1):
        begin_ns = start_ns + lap * lap_ns
        streams = _imu_messages(config, flight, begin_ns), _gps_messages(config, flight, begin_ns)
        yield from heapq.merge(*streams, key=lambda entry: entry[0])


def _imu_messages(
    config: SimConfig, flight: Flight, start_ns: int
) -> Iterator[tuple[int, Message]]:
    for i in range(round(config.duration_s * IMU_HZ)):
        stamp_ns = start_ns + round(i * 1e9 / IMU_HZ)
        motion = flight.motion(i / IMU_HZ)
        message: Message = {
            "type": "imu",
            "timestamp_ns": stamp_ns,
            "acceleration": list(motion.acceleration),
            "angular_velocity": list(motion.angular_velocity),
        }
        yield stamp_ns, message


def _gps_messages(
    config: SimConfig, flight: Flight, start_ns: int
) -> Iterator[tuple[int, Message]]:
    rng = np.random.default_rng([config.seed, 6])
    for i in range(round(config.duration_s * GPS_HZ)):
        stamp_ns = start_ns + round(i * 1e9 / GPS_HZ)
        noise = rng.normal(0.0, 1.0, 3) * config.gps_noise_m
        east, north, up = flight.position_m(i / GPS_HZ) + noise
        latitude, longitude, altitude = geodetic_from_map(float(east), float(north), float(up))
        message: Message = {
            "type": "gps",
            "timestamp_ns": stamp_ns,
            "latitude": latitude,
            "longitude": longitude,
            "altitude": altitude,
        }
        yield stamp_ns, message
