# SPDX-License-Identifier: Apache-2.0
"""What stands about in the hamlet: cars, crates, barrels, bales, fences, a well and trees.

Each function adds one thing that stands on the ground at the builder's pose.
"""

from __future__ import annotations

import numpy as np

from worldsystem_sim.paints import Palette
from worldsystem_sim.shapes import Builder, placed
from worldsystem_sim.textures import Material

_CAR_COLOURS = (
    (0.80, 0.16, 0.12),
    (0.16, 0.34, 0.66),
    (0.88, 0.86, 0.80),
    (0.92, 0.72, 0.14),
    (0.22, 0.50, 0.36),
)
_LEAF_COLOURS = (
    ((0.28, 0.37, 0.18), (0.54, 0.60, 0.32)),
    ((0.33, 0.38, 0.18), (0.64, 0.62, 0.34)),
    ((0.46, 0.34, 0.16), (0.78, 0.58, 0.28)),
    ((0.24, 0.35, 0.20), (0.46, 0.56, 0.34)),
)


def add_car(builder: Builder, palette: Palette, rng: np.random.Generator) -> None:
    """A car of 4.3 × 1.8 m, its nose along x."""
    base = builder.pose
    colour = _CAR_COLOURS[int(rng.integers(len(_CAR_COLOURS)))]
    body = palette.add(Material.CAR_PAINT, colour, (0.92, 0.92, 0.88))
    glass = palette.add(Material.GLASS, (0.10, 0.13, 0.16), (0.50, 0.60, 0.68))
    tyre = palette.add(Material.METAL, (0.12, 0.12, 0.12), (0.24, 0.23, 0.22))
    lower = [(-2.15, 0.30), (2.15, 0.30), (2.2, 0.62), (2.05, 0.86), (1.0, 0.98), (-2.1, 0.98)]
    builder.profile([*lower, (-2.2, 0.66)], -0.9, 0.9, body)
    builder.profile([(-2.0, 0.98), (1.0, 0.98), (0.3, 1.44), (-1.6, 1.44)], -0.78, 0.78, glass)
    builder.profile([(-1.68, 1.42), (0.36, 1.42), (0.26, 1.5), (-1.56, 1.5)], -0.8, 0.8, body)
    builder.box((-0.72, -0.81, 0.96), (-0.6, 0.81, 1.46), body)
    for x in (-1.35, 1.35):
        for y in (-0.95, 0.73):
            wheel = placed(x, y, 0.34)
            wheel[:3, :3] = [[1, 0, 0], [0, 0, 1], [0, -1, 0]]
            builder.pose = base @ wheel
            builder.tube(0.34, 0.34, 0.22, tyre)
    builder.pose = base


def add_crate(builder: Builder, palette: Palette, rng: np.random.Generator) -> None:
    """A boarded crate of about a metre with battens on its edges."""
    half, height = 0.5 * rng.uniform(0.85, 1.15), rng.uniform(0.8, 1.15)
    wood = palette.add(Material.PLANKS, (0.66, 0.50, 0.30), (0.78, 0.64, 0.42))
    batten = palette.add(Material.PLANKS, (0.48, 0.34, 0.20), (0.60, 0.46, 0.30))
    builder.box((-half, -half, -0.2), (half, half, height), wood)
    out, bar = half + 0.04, 0.11
    for x in (-1, 1):
        for y in (-1, 1):
            x0, x1 = sorted((x * out, x * (half - bar)))
            y0, y1 = sorted((y * out, y * (half - bar)))
            builder.box((x0, y0, -0.2), (x1, y1, height + 0.04), batten)
        x0, x1 = sorted((x * out, x * (half - bar)))
        builder.box((x0, -half, height - bar), (x1, half, height + 0.04), batten)
        builder.box((-half, x0, height - bar), (half, x1, height + 0.04), batten)


def add_barrel(builder: Builder, palette: Palette, rng: np.random.Generator) -> None:
    """A steel barrel of 0.9 m."""
    tint = (0.25 + 0.5 * rng.random(), 0.35 + 0.2 * rng.random(), 0.30 + 0.4 * rng.random())
    paint = palette.add(Material.METAL, tint, (0.52, 0.30, 0.18))
    builder.tube(0.32, 0.32, 0.92, paint)


def add_hay_bale(builder: Builder, palette: Palette) -> None:
    """A round bale of 1.3 m that lies on its side."""
    straw = palette.add(Material.STRAW, (0.62, 0.50, 0.24), (0.88, 0.76, 0.44))
    base = builder.pose
    lying = placed(0.0, -0.6, 0.62)
    lying[:3, :3] = [[1, 0, 0], [0, 0, 1], [0, -1, 0]]
    builder.pose = base @ lying
    builder.tube(0.65, 0.65, 1.2, straw)
    turned = np.diag([1.0, -1.0, -1.0, 1.0])
    builder.pose = builder.pose @ turned
    builder.tube(0.64, 0.64, 0.02, straw)
    builder.pose = base


def add_fence(builder: Builder, palette: Palette, length_m: float) -> None:
    """Posts and two rails along x."""
    wood = palette.add(Material.PLANKS, (0.70, 0.66, 0.58), (0.52, 0.46, 0.38))
    for x in np.arange(0.0, length_m + 0.01, length_m / max(1, round(length_m / 1.4))):
        builder.box((x - 0.07, -0.07, -0.6), (x + 0.07, 0.07, 1.15), wood)
    for z in (0.45, 0.9):
        builder.box((0.0, -0.035, z - 0.08), (length_m, 0.035, z + 0.08), wood)


def add_well(builder: Builder, palette: Palette) -> None:
    """A stone well with a little tiled roof."""
    stone = palette.add(Material.STONE, (0.62, 0.60, 0.55), (0.74, 0.72, 0.68))
    wood = palette.add(Material.BARK, (0.40, 0.30, 0.22), (0.54, 0.42, 0.30))
    tiles = palette.add(Material.ROOF_TILES, (0.56, 0.28, 0.20), (0.36, 0.42, 0.24))
    water = palette.add(Material.GLASS, (0.06, 0.09, 0.10), (0.30, 0.38, 0.42))
    builder.tube(1.0, 1.0, 0.85, stone)
    base = builder.pose
    builder.pose = base @ placed(0.0, 0.0, 0.86)
    builder.tube(0.75, 0.75, 0.02, water)
    builder.pose = base
    for x in (-0.9, 0.9):
        builder.box((x - 0.08, -0.08, 0.8), (x + 0.08, 0.08, 2.3), wood)
    builder.profile([(-1.2, 2.2), (1.2, 2.2), (0.0, 2.95)], -0.85, 0.85, tiles)


def add_broadleaf(builder: Builder, palette: Palette, rng: np.random.Generator) -> None:
    """A tree of 5 to 7 m with a crown of several clumps."""
    bark = palette.add(Material.BARK, (0.34, 0.27, 0.20), (0.52, 0.45, 0.36))
    dark, light = _LEAF_COLOURS[int(rng.integers(len(_LEAF_COLOURS)))]
    leaves = palette.add(Material.LEAVES, dark, light)
    scale = rng.uniform(0.85, 1.12)
    base = builder.pose
    builder.pose = base @ placed(0.0, 0.0, -0.3)
    builder.tube(0.26 * scale, 0.17 * scale, 2.6 * scale, bark)
    builder.pose = base
    builder.blob((0.0, 0.0, 4.2 * scale), (1.35 * scale, 1.35 * scale, 1.7 * scale), leaves, rng)
    for i in range(6):
        angle = i * 1.05 + rng.uniform(-0.3, 0.3)
        reach = rng.uniform(0.75, 1.2) * scale
        height = rng.uniform(2.9, 4.6) * scale
        size = rng.uniform(0.7, 1.05) * scale
        centre = (reach * np.cos(angle), reach * np.sin(angle), height)
        builder.blob(centre, (size, size, 0.85 * size), leaves, rng)


def add_conifer(builder: Builder, palette: Palette, rng: np.random.Generator) -> None:
    """A spruce of 6 to 8 m: whorls of drooping boughs."""
    bark = palette.add(Material.BARK, (0.36, 0.26, 0.18), (0.48, 0.38, 0.28))
    needles = palette.add(Material.LEAVES, (0.16, 0.27, 0.19), (0.36, 0.47, 0.33))
    scale = rng.uniform(0.85, 1.1)
    base = builder.pose
    builder.pose = base @ placed(0.0, 0.0, -0.3)
    builder.tube(0.22 * scale, 0.12 * scale, 2.0 * scale, bark)
    builder.pose = base
    for whorl in range(6):
        height = (1.3 + 0.95 * whorl) * scale
        radius = (1.75 - 0.26 * whorl) * scale
        centre = (rng.normal(0, 0.05), rng.normal(0, 0.05), height)
        builder.blob(centre, (radius, radius, 0.62 * scale), needles, rng)
