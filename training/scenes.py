# SPDX-License-Identifier: Apache-2.0
"""Random rooms to learn from: an open-topped hall of things, another one for every seed.

The simulator's hamlet has one layout, which a network would learn by heart. Here the seed draws the
walls, every solid's kind, place, size and turn, and every surface's material and colours.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64

from worldsystem_core.geometry.se3 import pose_from
from worldsystem_sim.paints import Palette
from worldsystem_sim.scene import Instance, Scene
from worldsystem_sim.shapes import Builder, placed
from worldsystem_sim.textures import Material

_MATERIALS = (
    Material.BRICK,
    Material.PLASTER,
    Material.PLANKS,
    Material.ROOF_TILES,
    Material.BARK,
    Material.STRAW,
    Material.STONE,
)
_WALL_M = 0.3
_PAINTS = 14


def random_room(seed: int) -> Scene:
    """A hall between 5 and 14 m across with 8 to 24 solids in it; frame: z up, floor at z = 0."""
    return _Room(seed).build()


def random_walk(
    scene_seed: int, count: int, *, step_m: float = 0.12
) -> Float64[np.ndarray, "n 4 4"]:
    """`count` smooth camera poses (`world_from_cam`, optical axes) inside the room of that seed."""
    rng = np.random.default_rng([scene_seed, 21])
    half = _half_size_m(scene_seed)
    phase, rate = rng.uniform(0, 2 * np.pi, (4, 3)), rng.uniform(0.5, 1.6, (4, 3))
    t = step_m * np.arange(count) / max(float(half.mean()), 1.0)

    def wave(row: int) -> Float64[np.ndarray, "n"]:
        return np.asarray(np.sin(rate[row] * t[:, None] * 2.2 + phase[row]).mean(axis=1))

    position = np.stack([0.8 * half[0] * wave(0), 0.8 * half[1] * wave(1), 1.6 + 0.9 * wave(2)], 1)
    heading = np.arctan2(-position[:, 1], -position[:, 0]) + 1.2 * wave(3)
    tilt = 0.15 + 0.25 * wave(2)
    return np.array(
        [_camera_pose(p, h, d) for p, h, d in zip(position, np.unwrap(heading), tilt, strict=True)]
    )


def _camera_pose(
    position_m: Float64[np.ndarray, "3"], heading_rad: float, tilt_rad: float
) -> Float64[np.ndarray, "4 4"]:
    ch, sh, ct, st = np.cos(heading_rad), np.sin(heading_rad), np.cos(tilt_rad), np.sin(tilt_rad)
    forward = np.array([ch * ct, sh * ct, -st])
    right = np.array([sh, -ch, 0.0])
    return pose_from(np.stack([right, np.cross(forward, right), forward], axis=1), position_m)


def _half_size_m(seed: int) -> Float64[np.ndarray, "2"]:
    return np.asarray(np.random.default_rng([seed, 20]).uniform(2.5, 7.0, 2))


class _Room:
    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._rng = np.random.default_rng([seed, 22])
        self._half = _half_size_m(seed)
        self._builder = Builder(detail=2)
        self._palette = Palette(seed)
        self._paints = [self._paint() for _ in range(_PAINTS)]
        self._instances: list[Instance] = []

    def build(self) -> Scene:
        self._shell()
        for _ in range(int(self._rng.integers(8, 25))):
            self._thing()
        return Scene(
            self._seed,
            self._builder.build(),
            self._palette,
            tuple(self._instances),
            np.zeros((1, 6)),
        )

    def _paint(self) -> int:
        first, second = self._rng.uniform(0.1, 0.9, (2, 3))
        material = _MATERIALS[int(self._rng.integers(len(_MATERIALS)))]
        return self._palette.add(material, tuple(first), tuple(0.5 * (first + second)))

    def _any_paint(self) -> int:
        return self._paints[int(self._rng.integers(_PAINTS))]

    def _begin(self, class_name: str) -> None:
        self._instances.append(Instance(len(self._instances) + 1, class_name))
        self._builder.instance = len(self._instances)

    def _shell(self) -> None:
        x, y = self._half
        self._begin("floor")
        self._builder.box((-x, -y, -0.2), (x, y, 0.0), self._any_paint())
        self._begin("wall")
        for low, high in (
            ((-x - _WALL_M, -y), (-x, y)),
            ((x, -y), (x + _WALL_M, y)),
            ((-x, -y - _WALL_M), (x, -y)),
            ((-x, y), (x, y + _WALL_M)),
        ):
            top = float(self._rng.uniform(2.0, 4.0))
            self._builder.box((*low, 0.0), (*high, top), self._any_paint())

    def _thing(self) -> None:
        """Nearer to the walls than to the middle, where the camera goes."""
        rng, builder = self._rng, self._builder
        angle, radius = rng.uniform(0, 2 * np.pi), np.sqrt(rng.uniform(0.3, 1.0))
        x, y = 0.95 * radius * self._half * np.array([np.cos(angle), np.sin(angle)])
        a, b, c = rng.uniform(0.15, 0.9, 3)
        builder.pose = placed(float(x), float(y), 0.0, float(rng.uniform(0, np.pi)))
        self._begin("thing")
        kind = rng.integers(4)
        if kind == 0:
            builder.box((-a, -b, 0.0), (a, b, 2.5 * c), self._any_paint())
        elif kind == 1:
            builder.tube(a, a * float(rng.uniform(0.3, 1.0)), 2.5 * c, self._any_paint())
        elif kind == 2:
            builder.blob((0.0, 0.0, b), (a, c, b), self._any_paint(), rng)
        else:
            builder.profile([(-a, 0.0), (a, 0.0), (0.0, 2 * c)], -b, b, self._any_paint())
        builder.pose = np.eye(4)
