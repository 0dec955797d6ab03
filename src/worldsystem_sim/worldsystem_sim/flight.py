# SPDX-License-Identifier: Apache-2.0
"""Smooth, seeded flights: poses, velocities and what an inertial sensor feels, at any time.

A flight is a C² spline of position, heading and downward tilt. The body (x forward, y left, z up)
is fixed to the camera (x right, y down, z forward): a drone without a gimbal.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64
from scipy.interpolate import CubicSpline
from scipy.ndimage import gaussian_filter1d

from worldsystem_core.errors import ConfigError
from worldsystem_core.geometry.se3 import pose_from
from worldsystem_sim import routes
from worldsystem_sim.scene import Scene

GRAVITY_MPS2 = 9.81
_SAMPLE_S = 0.1
_MARGIN_S = 4.0
_SMOOTHING_S = {"hover": 0.3, "yaw": 0.25}
_DEFAULT_SMOOTHING_S = 0.7

_ROUTES: dict[str, Callable[[routes.Request], routes.Route]] = {
    "demo": routes.demo,
    "orbit": routes.orbit,
    "survey": routes.survey,
    "facade": routes.facade,
    "flythrough": routes.flythrough,
    "hover": routes.hover,
    "yaw": routes.fast_yaw,
}
FLIGHT_NAMES = tuple(_ROUTES)


@dataclass(frozen=True)
class Motion:
    """Specific force [m/s²] and angular velocity [rad/s] in the body frame."""

    acceleration: tuple[float, float, float]
    angular_velocity: tuple[float, float, float]


class Flight:
    """A camera's way through the scene, for times from 0 to `duration_s`."""

    def __init__(self, name: str, duration_s: float, route: routes.Route) -> None:
        """Smooth `route`, sampled every 0.1 s from 4 s before the start to 4 s after the end."""
        self.name = name
        self.duration_s = duration_s
        width = _SMOOTHING_S.get(name, _DEFAULT_SMOOTHING_S) / _SAMPLE_S
        times = np.arange(len(route.positions_m)) * _SAMPLE_S - _MARGIN_S
        angles = np.stack([np.unwrap(route.heading_rad), route.tilt_rad], axis=-1)
        smooth_m = gaussian_filter1d(route.positions_m, width, axis=0, mode="nearest")
        smooth_rad = gaussian_filter1d(angles, width, axis=0, mode="nearest")
        self._position = CubicSpline(times, smooth_m)
        self._angles = CubicSpline(times, smooth_rad)

    def position_m(self, t_s: float) -> Float64[np.ndarray, "3"]:
        """Camera centre in `map` [m]."""
        return np.asarray(self._position(t_s))

    def velocity_mps(self, t_s: float) -> Float64[np.ndarray, "3"]:
        """Velocity in `map` [m/s]."""
        return np.asarray(self._position(t_s, 1))

    def acceleration_mps2(self, t_s: float) -> Float64[np.ndarray, "3"]:
        """Acceleration in `map` [m/s²], without gravity."""
        return np.asarray(self._position(t_s, 2))

    def map_from_body(self, t_s: float) -> Float64[np.ndarray, "3 3"]:
        """Rotation of the body; columns are forward, left, up in `map`."""
        heading, tilt = self._angles(t_s)
        ch, sh, ct, st = np.cos(heading), np.sin(heading), np.cos(tilt), np.sin(tilt)
        forward = (ch * ct, sh * ct, -st)
        return np.array([forward, (-sh, ch, 0.0), (ch * st, sh * st, ct)]).T

    def world_from_cam(self, t_s: float) -> Float64[np.ndarray, "4 4"]:
        """Camera pose in `map` (optical axes x right, y down, z forward)."""
        forward, left, up = self.map_from_body(t_s).T
        return pose_from(np.stack([-left, -up, forward], axis=1), self.position_m(t_s))

    def motion(self, t_s: float) -> Motion:
        """What an ideal inertial sensor measures; at rest and level: (0, 0, 9.81)."""
        felt = self.acceleration_mps2(t_s) + np.array([0.0, 0.0, GRAVITY_MPS2])
        force = self.map_from_body(t_s).T @ felt
        heading_rate, tilt_rate = self._angles(t_s, 1)
        tilt = float(self._angles(t_s)[1])
        turn = (-np.sin(tilt) * heading_rate, tilt_rate, np.cos(tilt) * heading_rate)
        return Motion(
            (float(force[0]), float(force[1]), float(force[2])),
            (float(turn[0]), float(turn[1]), float(turn[2])),
        )

    def poses(self, times_s: Float[np.ndarray, "n"]) -> Float64[np.ndarray, "n 4 4"]:
        """Camera poses at many times."""
        return np.array([self.world_from_cam(float(t)) for t in times_s]).reshape(-1, 4, 4)


def flight(name: str, seed: int, duration_s: float, scene: Scene) -> Flight:
    """The named flight over `scene`; an unknown name raises `ConfigError` with the known ones."""
    if name not in _ROUTES:
        raise ConfigError(f"unknown flight '{name}'; known: {', '.join(FLIGHT_NAMES)}")
    times = np.arange(-_MARGIN_S, duration_s + _MARGIN_S + _SAMPLE_S, _SAMPLE_S)
    request = routes.Request(times, duration_s, np.random.default_rng([seed, 2]), scene)
    return Flight(name, duration_s, _ROUTES[name](request))
