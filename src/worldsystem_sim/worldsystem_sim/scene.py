# SPDX-License-Identifier: Apache-2.0
"""The simulated place: a hamlet of houses, a barn that stands open, trees, cars and crates.

Frame `map`: x east, y north, z up [m], the middle of the hamlet at the origin. The layout is fixed
so that flights stay clear of walls; the seed draws sizes, colours, relief and every texture.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from jaxtyping import Float, Float64

from worldsystem_core.surface import Mesh
from worldsystem_sim import buildings, things
from worldsystem_sim.paints import Palette
from worldsystem_sim.shapes import Builder, Triangles, height_grid, placed
from worldsystem_sim.textures import Material

HAMLET_RADIUS_M = 24.0
_PLOTS = (  # x, y [m], yaw [rad], half width, half depth [m], eaves height [m]
    (-14.0, 9.5, -0.12, 4.4, 3.4, 3.1),
    (0.5, 11.5, 0.08, 4.0, 3.6, 4.6),
    (14.0, 9.0, -0.05, 4.6, 3.3, 3.2),
    (-14.5, -11.0, 3.20, 4.2, 3.5, 3.0),
    (14.0, -11.5, 3.05, 4.5, 3.4, 4.4),
)
BARN_CENTRE_M = (0.0, -12.0)
_WAYS = (  # x0, y0, x1, y1, half width [m], kind (0 road, 1 gravel path)
    (-160.0, -9.0, -26.0, -2.0, 2.3, 0.0),
    (-26.0, -2.0, 0.0, -0.5, 2.3, 0.0),
    (0.0, -0.5, 27.0, -1.8, 2.3, 0.0),
    (27.0, -1.8, 160.0, 14.0, 2.3, 0.0),
    (-14.0, -1.5, -14.2, 6.0, 0.9, 1.0),
    (0.5, -0.5, 0.6, 8.0, 0.9, 1.0),
    (14.0, -1.0, 13.8, 6.0, 0.9, 1.0),
    (-14.5, -1.5, -14.6, -7.5, 0.9, 1.0),
    (14.0, -1.0, 14.1, -8.0, 0.9, 1.0),
    (0.0, -0.5, 0.0, -24.0, 1.9, 1.0),
)


@dataclass(frozen=True)
class Instance:
    """One thing in the scene; `part_of` is the id of what it belongs to (0: stands alone)."""

    id: int
    class_name: str
    part_of: int = 0


@dataclass(frozen=True, eq=False)
class Scene:
    """Triangles with paints and instances; instance ids start at 1 (the ground), 0 is the sky."""

    seed: int
    triangles: Triangles
    palette: Palette
    instances: tuple[Instance, ...]
    ways: Float64[np.ndarray, "k 6"]

    @property
    def diameter_m(self) -> float:
        """Across the hamlet, without the land around it."""
        return 2.0 * HAMLET_RADIUS_M

    @cached_property
    def class_names(self) -> dict[int, str]:
        """Instance id → class name."""
        return {instance.id: instance.class_name for instance in self.instances}

    def mesh(self) -> Mesh:
        """All surfaces as one mesh in `map`; a vertex has its paint's mean colour."""
        corners = self.triangles.corners_m.reshape(-1, 3)
        colours = self.palette.mean_srgb()[self.triangles.paint]
        faces = np.arange(len(corners), dtype=np.int32).reshape(-1, 3)
        return Mesh(vertices=corners, colours=np.repeat(colours, 3, axis=0), faces=faces)


def ground_relief(
    x_m: Float[np.ndarray, "*s"], y_m: Float[np.ndarray, "*s"], seed: int
) -> Float64[np.ndarray, "*s"]:
    """Height of the ground [m]: gentle within the hamlet, hills around it; level on the road."""
    rng = np.random.default_rng([seed, 11])
    height = np.zeros(np.broadcast(x_m, y_m).shape)
    for wavelength_m, amplitude_m in ((26.0, 0.35), (11.0, 0.16), (5.0, 0.07)):
        for _ in range(4):
            angle, phase = rng.uniform(0, 2 * np.pi, 2)
            k = 2 * np.pi / wavelength_m
            wave = np.sin(k * (np.cos(angle) * x_m + np.sin(angle) * y_m) + phase)
            height += 0.5 * amplitude_m * wave
    road = np.clip((np.abs(y_m + 1.0) - 2.0) / 5.0, 0.0, 1.0)
    radius = np.hypot(x_m, y_m)
    rise = np.clip((radius - 34.0) / 110.0, 0.0, 1.0) ** 1.5
    bearing = np.arctan2(y_m, x_m)
    hills = 11.0 + 6.0 * np.sin(3 * bearing + rng.uniform(0, 6)) + 3.0 * np.sin(7 * bearing)
    return np.asarray(height * (0.25 + 0.75 * road) + rise * hills, dtype=np.float64)


@lru_cache(maxsize=2)
def build_scene(seed: int) -> Scene:
    """The hamlet of a seed; the last two are kept, since building one takes a second or two."""
    return _Layout(seed).build()


class _Layout:
    """Puts the things in their places."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._rng = np.random.default_rng([seed, 1])
        self._builder = Builder()
        self._palette = Palette(seed)
        self._instances: list[Instance] = []

    def build(self) -> Scene:
        self._ground()
        self._houses()
        self._barn()
        self._cars()
        self._small_things()
        self._trees()
        return Scene(
            self._seed,
            self._builder.build(),
            self._palette,
            tuple(self._instances),
            np.array(_WAYS, dtype=np.float64),
        )

    def _begin(self, class_name: str, part_of: int = 0) -> int:
        self._instances.append(Instance(len(self._instances) + 1, class_name, part_of))
        self._builder.instance = len(self._instances)
        return len(self._instances)

    def _height(self, x: float, y: float) -> float:
        return float(ground_relief(np.array([x]), np.array([y]), self._seed)[0])

    def _stand(self, x: float, y: float, yaw: float = 0.0) -> None:
        self._builder.pose = placed(x, y, self._height(x, y), yaw)

    def _ground(self) -> None:
        self._begin("ground")
        self._builder.pose = np.eye(4)
        fine = np.arange(-36.0, 36.1, 0.6)
        far = np.array([37.5, 40, 43, 47, 52, 58, 66, 76, 90, 108, 130, 160])
        line = np.concatenate([-far[::-1], fine, far])
        heights = ground_relief(line[None, :], line[:, None], self._seed)
        corners, normals = height_grid(line, line, heights)
        paint = self._palette.add(Material.GROUND, (0.35, 0.42, 0.22), (0.35, 0.42, 0.22))
        self._builder.faces(corners, corners[..., :2], paint, normals)

    def _houses(self) -> None:
        for x, y, yaw, half_w, half_d, eaves in _PLOTS:
            house = self._begin("house")
            self._stand(x, y, yaw)
            size = buildings.HouseSize(
                half_w * self._rng.uniform(0.95, 1.05),
                half_d * self._rng.uniform(0.95, 1.05),
                eaves,
            )
            paints = buildings.house_paints(self._palette, self._rng)
            buildings.add_house(self._builder, size, paints)
            for opening in buildings.openings(size):
                self._begin(opening.kind, part_of=house)
                buildings.add_opening(self._builder, size, opening, paints)

    def _barn(self) -> None:
        self._begin("barn")
        self._stand(*BARN_CENTRE_M)
        buildings.add_barn(self._builder, self._palette)

    def _cars(self) -> None:
        spots = (
            (-7.5, -2.9, 0.06),
            (9.5, 0.2, 3.1),
            (17.8, 3.4, 1.5),
            (-9.3, 5.2, 1.7),
            (8.4, -8.4, 0.9),
        )
        for x, y, yaw in spots:
            self._begin("car")
            self._stand(x, y, yaw + self._rng.normal(0, 0.05))
            things.add_car(self._builder, self._palette, self._rng)

    def _small_things(self) -> None:
        crates: tuple[tuple[float, float], ...]
        crates = ((5.2, 5.4), (6.3, 5.9), (5.6, 6.7), (-5.4, -8.0), (-5.6, -9.3), (-2.4, -14.6))
        crates += ((-2.5, -15.9), (20.0, -6.5), (-19.6, 4.6), (2.9, -8.6))
        for x, y in crates:
            self._begin("crate")
            self._stand(x, y, self._rng.uniform(-0.5, 0.5))
            things.add_crate(self._builder, self._palette, self._rng)
        for x, y in ((5.0, -16.6), (5.4, -17.6), (9.2, 13.4), (-8.6, 13.0), (2.6, -10.6)):
            self._begin("barrel")
            self._stand(x, y)
            things.add_barrel(self._builder, self._palette, self._rng)
        for x, y, yaw in (
            (2.5, -14.4, 0.1),
            (2.6, -16.2, 0.0),
            (-7.5, -19.0, 0.7),
            (7.5, -19.5, 2.0),
        ):
            self._begin("hay bale")
            self._stand(x, y, yaw)
            things.add_hay_bale(self._builder, self._palette)
        for x0, y0, x1, y1 in ((-20, 4.4, -15.6, 4.6), (2.4, 4.2, 8.0, 4.0), (9.0, 4.2, 12.4, 4.4)):
            self._begin("fence")
            self._stand(x0, y0, float(np.arctan2(y1 - y0, x1 - x0)))
            things.add_fence(self._builder, self._palette, float(np.hypot(x1 - x0, y1 - y0)))
        self._begin("well")
        self._stand(-6.4, 3.4)
        things.add_well(self._builder, self._palette)

    def _trees(self) -> None:
        trees = [(-20.5, 0.5), (-7.2, 16.5), (7.5, 17.0), (21.5, 4.5), (-21.0, -5.5), (21.5, -17.0)]
        trees += [(-8.2, -15.5), (7.8, -4.6), (-20, 16), (20.5, 15.5), (-19, -19.5), (9.6, -20.5)]
        near = len(trees)
        for _ in range(46):
            angle, radius = self._rng.uniform(0, 2 * np.pi), self._rng.uniform(33.0, 95.0)
            x, y = radius * np.cos(angle), radius * np.sin(angle)
            if abs(y + 0.5) > 6.0 + 0.1 * abs(x):
                trees.append((x, y))
        for i, (x, y) in enumerate(trees):
            self._begin("tree")
            self._stand(
                x + self._rng.normal(0, 0.2), y + self._rng.normal(0, 0.2), self._rng.uniform(0, 6)
            )
            grow = things.add_conifer if i % 3 == 2 else things.add_broadleaf
            self._builder.detail = 3 if i < near else 2
            grow(self._builder, self._palette, self._rng)
