# SPDX-License-Identifier: Apache-2.0
"""What the drone tells beside its video, computed from the flight: inertial, GPS, attitude, air
pressure by the standard atmosphere, and battery.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Iterator

import numpy as np
from scipy.spatial.transform import Rotation

from worldsystem_sim.config import SimConfig
from worldsystem_sim.flight import Flight

IMU_HZ, GPS_HZ, ATTITUDE_HZ, BAROMETER_HZ, BATTERY_HZ = 50.0, 5.0, 20.0, 10.0, 1.0
ORIGIN_LATITUDE_DEG, ORIGIN_LONGITUDE_DEG, ORIGIN_ALTITUDE_M = 47.3977, 8.5456, 488.0
_WGS84_A_M, _WGS84_E2 = 6378137.0, 6.69437999014e-3
_SEA_LEVEL_PA, _LAPSE_PER_M, _EXPONENT = 101_325.0, 0.0065 / 288.15, 5.25588  # ISO 2533
_FULL_V, _EMPTY_V, _CURRENT_A, _CAPACITY_AS = 16.8, 14.0, -18.0, 5.0 * 3600
_LEAST_GPS_ERROR_M = 0.01
_BEGIN_CHARGE, _BATTERY_C = 0.95, 31.0
Message = dict[str, object]
Stamped = Iterator[tuple[int, Message]]


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


def pressure_pa(altitude_m: float) -> float:
    """Air pressure of the standard atmosphere at an altitude up to 11 km."""
    return float(_SEA_LEVEL_PA * (1.0 - _LAPSE_PER_M * altitude_m) ** _EXPONENT)


def telemetry(config: SimConfig, flight: Flight, start_ns: int) -> Stamped:
    """Telemetry messages of a flight that begins at `start_ns`, in time order with stamps.

    A flight that loops is told again and again, without end.
    """
    lap_ns = round(config.frame_count * 1e9 / config.fps)
    for lap in itertools.count() if config.loop else range(1):
        begin_ns = start_ns + lap * lap_ns
        streams = (
            _imu_messages(config, flight, begin_ns),
            _gps_messages(config, flight, begin_ns),
            _attitude_messages(config, flight, begin_ns),
            _barometer_messages(config, flight, begin_ns),
            _battery_messages(config, begin_ns),
        )
        yield from heapq.merge(*streams, key=lambda entry: entry[0])


def _imu_messages(config: SimConfig, flight: Flight, start_ns: int) -> Stamped:
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


def _attitude_messages(config: SimConfig, flight: Flight, start_ns: int) -> Stamped:
    for i in range(round(config.duration_s * ATTITUDE_HZ)):
        stamp_ns = start_ns + round(i * 1e9 / ATTITUDE_HZ)
        rotation = Rotation.from_matrix(flight.map_from_body(i / ATTITUDE_HZ))
        quaternion = [float(value) for value in rotation.as_quat()]
        yield stamp_ns, {"type": "attitude", "timestamp_ns": stamp_ns, "quaternion": quaternion}


def _barometer_messages(config: SimConfig, flight: Flight, start_ns: int) -> Stamped:
    for i in range(round(config.duration_s * BAROMETER_HZ)):
        stamp_ns = start_ns + round(i * 1e9 / BAROMETER_HZ)
        altitude_m = ORIGIN_ALTITUDE_M + float(flight.position_m(i / BAROMETER_HZ)[2])
        pressure_hpa = 0.01 * pressure_pa(altitude_m)
        yield (
            stamp_ns,
            {
                "type": "barometer",
                "timestamp_ns": stamp_ns,
                "pressure_hpa": pressure_hpa,
            },
        )


def _battery_messages(config: SimConfig, start_ns: int) -> Stamped:
    for i in range(round(config.duration_s * BATTERY_HZ)):
        stamp_ns = start_ns + round(i * 1e9 / BATTERY_HZ)
        used_as = -_CURRENT_A * i / BATTERY_HZ
        charge = max(0.0, _BEGIN_CHARGE - used_as / _CAPACITY_AS)
        message: Message = {
            "type": "battery",
            "timestamp_ns": stamp_ns,
            "percent": 100.0 * charge,
            "voltage_v": _EMPTY_V + (_FULL_V - _EMPTY_V) * charge,
            "current_a": _CURRENT_A,
            "temperature_c": _BATTERY_C,
            "charging": False,
        }
        yield stamp_ns, message


def _gps_messages(config: SimConfig, flight: Flight, start_ns: int) -> Stamped:
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
            # of east and north together, as receivers tell it
            "horizontal_accuracy": math.sqrt(2.0) * max(config.gps_noise_m, _LEAST_GPS_ERROR_M),
            "vertical_accuracy": max(config.gps_noise_m, _LEAST_GPS_ERROR_M),
        }
        yield stamp_ns, message
