# SPDX-License-Identifier: Apache-2.0
"""Where each flight leads: positions, headings and tilts at equal steps of time, not yet smoothed.

Heading is anti-clockwise from east, tilt is positive downwards [rad].
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64
from scipy.interpolate import CubicSpline

from worldsystem_sim.scene import BARN_CENTRE_M, Scene

_SPEED_MPS = 3.0
_ORBIT_RADIUS_M = 21.0
_RUN_IN_M = 10.0
_SURVEY_SHARE = 0.25
_STRIP_M = 15.0
_TURN_RADIUS_M = 3.0
_FACADE_M = 38.0


@dataclass(frozen=True, eq=False)
class Request:
    """When (times [s], from before 0 to after the end), how long, chance, and over what."""

    times_s: Float64[np.ndarray, "n"]
    duration_s: float
    rng: np.random.Generator
    scene: Scene


@dataclass(frozen=True, eq=False)
class Route:
    """Positions in `map` [m] with headings and downward tilts."""

    positions_m: Float64[np.ndarray, "n 3"]
    heading_rad: Float64[np.ndarray, "n"]
    tilt_rad: Float64[np.ndarray, "n"]


@dataclass(frozen=True)
class _Circle:
    """The orbit about the hamlet's middle: anti-clockwise, breathing in radius and height."""

    start_rad: float
    height_m: float

    def at(self, arc_m: Float[np.ndarray, "n"]) -> Float64[np.ndarray, "n 3"]:
        """Positions after `arc_m` of way; negative leads straight back along the tangent."""
        angle = self.start_rad + np.maximum(arc_m, 0.0) / _ORBIT_RADIUS_M
        radius = _ORBIT_RADIUS_M + 0.8 * np.sin(1.7 * (angle - self.start_rad))
        back = np.minimum(arc_m, 0.0)
        x = radius * np.cos(angle) - back * np.sin(angle)
        y = radius * np.sin(angle) + back * np.cos(angle)
        z = self.height_m + 1.2 * np.sin(0.8 * (angle - self.start_rad))
        return np.stack([x, y, z], axis=-1)

    def heading(self, arc_m: Float[np.ndarray, "n"]) -> Float64[np.ndarray, "n"]:
        """Inwards."""
        turned = np.maximum(arc_m, 0.0) / _ORBIT_RADIUS_M
        return np.asarray(self.start_rad + np.pi + turned, dtype=np.float64)


def demo(request: Request) -> Route:
    """The default mission: sideways past the houses, round the hamlet, a survey at the end."""
    circle = _Circle(float(request.rng.uniform(-0.5, 0.1)), 11.6)
    way = _SPEED_MPS * request.times_s - _RUN_IN_M
    survey_from = _SPEED_MPS * request.duration_s * (1.0 - _SURVEY_SHARE) - _RUN_IN_M
    on_circle = np.minimum(way, survey_from)
    positions, heading = circle.at(on_circle), circle.heading(on_circle)
    beyond = np.maximum(way - survey_from, 0.0)
    inwards, along = heading[-1], heading[-1] - 0.5 * np.pi
    strip = _strips(beyond)
    positions[:, :2] += strip[:, :1] * [np.cos(along), np.sin(along)]
    positions[:, :2] += strip[:, 1:] * [np.cos(inwards), np.sin(inwards)]
    positions[:, 2] += 1.5 * np.clip(beyond / 15.0, 0.0, 1.0)
    tilt = np.radians(36.0) + np.radians(11.0) * np.clip(beyond / 15.0, 0.0, 1.0)
    return Route(positions, heading, tilt)


def orbit(request: Request) -> Route:
    """Round and round, looking at the houses."""
    circle = _Circle(float(request.rng.uniform(-np.pi, np.pi)), 11.6)
    way = _SPEED_MPS * request.times_s
    turning = way + _SPEED_MPS * 10.0
    return Route(circle.at(turning), circle.heading(turning), np.full(len(way), np.radians(36.0)))


def survey(request: Request) -> Route:
    """Strips back and forth at 14 m, looking steeply ahead with a fixed heading."""
    way = np.maximum(_SPEED_MPS * (request.times_s + 4.0), 0.0)
    strip = _strips(way)
    heading = 0.5 * np.pi + float(request.rng.uniform(-0.15, 0.15))
    along, ahead = heading - 0.5 * np.pi, heading
    positions = np.empty((len(way), 3))
    positions[:, :2] = -22.0 * np.array([np.cos(ahead), np.sin(ahead)])
    positions[:, :2] -= 0.5 * _STRIP_M * np.array([np.cos(along), np.sin(along)])
    positions[:, :2] += strip[:, :1] * [np.cos(along), np.sin(along)]
    positions[:, :2] += strip[:, 1:] * [np.cos(ahead), np.sin(ahead)]
    positions[:, 2] = 14.0
    return Route(positions, np.full(len(way), heading), np.full(len(way), np.radians(52.0)))


def _strips(way_m: Float[np.ndarray, "n"]) -> Float64[np.ndarray, "n 2"]:
    """Boustrophedon after `way_m`: (along, across) [m]; five strips over, then five back."""
    half_turn = np.pi * _TURN_RADIUS_M
    lane = np.floor(way_m / (_STRIP_M + half_turn))
    rest = way_m - lane * (_STRIP_M + half_turn)
    forth = np.where(lane % 2 == 0, 1.0, -1.0)
    begin = np.where(lane % 2 == 0, 0.0, _STRIP_M)
    turn = np.maximum(rest - _STRIP_M, 0.0) / _TURN_RADIUS_M
    along = begin + forth * (np.minimum(rest, _STRIP_M) + _TURN_RADIUS_M * np.sin(turn))
    row = np.abs((lane + 5.0) % 10.0 - 5.0)
    sense = np.where(lane % 10 < 5, 1.0, -1.0)
    across = 2 * _TURN_RADIUS_M * row + sense * _TURN_RADIUS_M * (1.0 - np.cos(turn))
    return np.stack([along, across], axis=-1)


def facade(request: Request) -> Route:
    """Along the road, level, looking at the row of houses; each pass back is 1.8 m higher."""
    way = np.maximum(_SPEED_MPS * (request.times_s + 2.0), 0.0)
    lane = np.floor(way / _FACADE_M)
    rest = way - lane * _FACADE_M
    x = np.where(lane % 2 == 0, rest, _FACADE_M - rest) - 0.5 * _FACADE_M
    y = np.full(len(way), -1.6 + float(request.rng.uniform(-0.2, 0.2)))
    z = 3.2 + 1.8 * np.minimum(lane, 4.0) + 0.2 * np.sin(0.7 * request.times_s)
    heading = 0.5 * np.pi + 0.10 * np.sin(0.35 * request.times_s)
    return Route(np.stack([x, y, z], axis=-1), heading, np.full(len(way), np.radians(6.0)))


def flythrough(request: Request) -> Route:
    """Along the road, through the barn, round behind the houses and back, looking ahead."""
    bx, by = BARN_CENTRE_M
    stations = np.array(
        [
            *((-24, -2.2, 2.6), (-14, -1.3, 2.3), (-6.5, -0.6, 2.2), (-1.6, -3.2, 2.2)),
            *((bx, by + 6, 2.1), (bx, by, 2.1), (bx, by - 8, 2.2), (3.5, by - 14, 3.0)),
            *((14, -27, 4.5), (25, -21, 6.5), (26.5, -8, 7.0), (24, 3.0, 5.0), (26, 14, 6.5)),
            *((19, 24, 7.5), (4, 25, 7.0), (-12, 24, 7.0), (-25, 17, 6.0), (-29, 5.0, 4.0)),
        ],
        dtype=np.float64,
    )
    closed = np.concatenate([stations, stations[:1]])
    knots = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(closed, axis=0), axis=1))])
    curve = CubicSpline(knots, closed, bc_type="periodic")
    fine = np.linspace(0.0, knots[-1], 4000)
    way = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(curve(fine), axis=0), axis=1))])
    at = np.mod(2.5 * (request.times_s + 4.0) - 10.0, way[-1])
    positions = curve(np.interp(at, way, fine))
    ahead = curve(np.interp(np.mod(at + 3.0, way[-1]), way, fine)) - positions
    heading = np.arctan2(ahead[:, 1], ahead[:, 0])
    tilt = np.radians(5.0) + 0.06 * np.maximum(positions[:, 2] - 2.5, 0.0)
    return Route(positions, heading, tilt)


def hover(request: Request) -> Route:
    """Almost still before a house, drifting by centimetres as in a light wind."""
    t = request.times_s
    phases = request.rng.uniform(0, 2 * np.pi, 4)
    drift = [0.12 * np.sin(0.5 * t + phases[0]), 0.12 * np.sin(0.4 * t + phases[1])]
    drift.append(0.06 * np.sin(0.6 * t + phases[2]))
    positions = np.array([9.5, -7.5, 6.0]) + np.stack(drift, axis=-1)
    heading = np.radians(125.0) + 0.02 * np.sin(0.35 * t + phases[3])
    return Route(positions, heading, np.full(len(t), np.radians(22.0)))


def fast_yaw(request: Request) -> Route:
    """Slow drift over the road with quick turns of the heading, up to about 90 °/s."""
    t = request.times_s
    phase = float(request.rng.uniform(0, 2 * np.pi))
    positions = np.stack([0.5 * t - 6.0, 0.8 * np.sin(0.3 * t), np.full(len(t), 8.5)], axis=-1)
    positions[:, 0] = 12.0 * np.sin(positions[:, 0] / 12.0)
    heading = 0.25 * t + np.radians(55.0) * np.sin(1.5 * t + phase)
    return Route(positions, heading, np.full(len(t), np.radians(30.0)))
