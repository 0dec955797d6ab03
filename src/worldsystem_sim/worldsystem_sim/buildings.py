# SPDX-License-Identifier: Apache-2.0
"""Houses with windows and doors, and the barn that one can fly through.

A building stands on the ground at its own origin; its front looks along -y.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from worldsystem_sim.paints import Palette
from worldsystem_sim.shapes import Builder
from worldsystem_sim.textures import Material

_FOOT_M = -0.8
BARN_HALF_WIDTH_M = 4.4
BARN_HALF_LENGTH_M = 7.0
_BARN_EAVES_M = 4.6
_BARN_RIDGE_M = 7.2
_BARN_DOOR_HALF_M = 2.1
_BARN_DOOR_TOP_M = 4.0
_WALL_COLOURS = (
    ((0.66, 0.36, 0.28), (0.72, 0.68, 0.62)),
    ((0.86, 0.80, 0.66), (0.62, 0.36, 0.28)),
    ((0.70, 0.76, 0.80), (0.58, 0.40, 0.32)),
    ((0.88, 0.70, 0.48), (0.60, 0.34, 0.26)),
    ((0.82, 0.84, 0.80), (0.52, 0.36, 0.30)),
)
_ROOF_COLOURS = ((0.62, 0.30, 0.22), (0.42, 0.40, 0.42), (0.55, 0.34, 0.26), (0.36, 0.34, 0.38))


@dataclass(frozen=True)
class HouseSize:
    """Half width (x), half depth (y) and height of the eaves [m]."""

    half_w: float
    half_d: float
    eaves: float

    @property
    def ridge(self) -> float:
        return self.eaves + 0.72 * self.half_d


@dataclass(frozen=True)
class Paints:
    """Indices of a house's paints."""

    wall: int
    gable: int
    roof: int
    frame: int
    glass: int
    door: int
    plinth: int


@dataclass(frozen=True)
class Opening:
    """A window or door: side 0 front, 1 right, 2 back, 3 left; centre along it, sill, size [m]."""

    kind: str
    side: int
    along: float
    sill: float
    width: float
    height: float


def house_paints(palette: Palette, rng: np.random.Generator) -> Paints:
    """Draw a house's colours."""
    choice = int(rng.integers(len(_WALL_COLOURS)))
    main, second = _WALL_COLOURS[choice]
    kind = Material.BRICK if choice == 0 else Material.PLASTER
    roof = _ROOF_COLOURS[int(rng.integers(len(_ROOF_COLOURS)))]
    trim = (0.30 + 0.5 * rng.random(), 0.42 + 0.4 * rng.random(), 0.40 + 0.4 * rng.random())
    return Paints(
        wall=palette.add(kind, main, second),
        gable=palette.add(Material.PLANKS, (0.50, 0.36, 0.25), (0.66, 0.54, 0.42)),
        roof=palette.add(Material.ROOF_TILES, roof, (0.34, 0.40, 0.22)),
        frame=palette.add(Material.PLANKS, (0.90, 0.89, 0.85), (0.80, 0.78, 0.72)),
        glass=palette.add(Material.GLASS, (0.12, 0.16, 0.20), (0.58, 0.68, 0.76)),
        door=palette.add(Material.PLANKS, trim, (0.60, 0.50, 0.40)),
        plinth=palette.add(Material.STONE, (0.56, 0.54, 0.50), (0.68, 0.66, 0.62)),
    )


def add_house(builder: Builder, size: HouseSize, paints: Paints) -> None:
    """Walls, gables, roof with overhang, plinth and chimney."""
    w, d, eaves, ridge = size.half_w, size.half_d, size.eaves, size.ridge
    builder.box((-w, -d, _FOOT_M), (w, d, eaves), paints.wall)
    builder.box((-w - 0.06, -d - 0.06, _FOOT_M), (w + 0.06, d + 0.06, 0.42), paints.plinth)
    for x, turn in ((w, 1), (-w, -1)):
        gable = [(x, -turn * d, eaves), (x, turn * d, eaves), (x, 0.0, ridge)]
        builder.polygon(np.array(gable), paints.gable)
    _gable_roof(builder, (w + 0.45, d + 0.5), (eaves, ridge), paints.roof)
    builder.box(
        (0.3 * w, 0.25 * d, eaves), (0.3 * w + 0.8, 0.25 * d + 0.7, ridge + 0.9), paints.plinth
    )


def _gable_roof(
    builder: Builder, half: tuple[float, float], heights: tuple[float, float], paint: int
) -> None:
    """Two slabs of 0.14 m with the ridge along x, of half length and half span `half` [m]."""
    length, span = half
    eaves, ridge = heights
    slope = (ridge - eaves) / (span - 0.5)
    low = ridge - slope * span
    for turn in (-1.0, 1.0):
        edge = turn * span
        low_right, low_left = (turn * length, edge, low), (-turn * length, edge, low)
        top_left, top_right = (-turn * length, 0.0, ridge), (turn * length, 0.0, ridge)
        top = np.array([low_right, low_left, top_left, top_right])
        top += (0.0, 0.0, 0.14)
        bottom = top - (0.0, 0.0, 0.14)
        builder.polygon(top, paint)
        builder.polygon(bottom[::-1], paint)
        for i in range(4):
            j = (i + 1) % 4
            builder.polygon(np.array([bottom[i], bottom[j], top[j], top[i]]), paint)


def openings(size: HouseSize) -> list[Opening]:
    """Where a house of this size has its door and windows."""
    found = [Opening("door", 0, 0.1 * size.half_w, 0.05, 1.1, 2.15)]
    storeys = (0.95,) if size.eaves < 4.0 else (0.85, 2.95)
    for sill in storeys:
        for along in (-0.58, 0.62):
            found.append(Opening("window", 0, along * size.half_w, sill, 1.25, 1.25))
        for along in (-0.55, 0.05, 0.6):
            found.append(Opening("window", 2, along * size.half_w, sill, 1.1, 1.2))
        for side in (1, 3):
            for along in (-0.42, 0.45):
                found.append(Opening("window", side, along * size.half_d, sill, 1.0, 1.2))
    return found


def add_opening(builder: Builder, size: HouseSize, opening: Opening, paints: Paints) -> None:
    """A framed window with a sill and a cross bar, or a door in its frame, proud of the wall."""
    half, top, sill = 0.5 * opening.width, opening.sill + opening.height, opening.sill
    pane, bar = 0.05, 0.09
    door = opening.kind == "door"
    boxes = [
        ((-half, 0.0, sill), (half, pane, top), paints.door if door else paints.glass),
        ((-half - 0.1, 0.0, sill), (-half, bar, top + 0.1), paints.frame),
        ((half, 0.0, sill), (half + 0.1, bar, top + 0.1), paints.frame),
        ((-half, 0.0, top), (half, bar, top + 0.1), paints.frame),
    ]
    if not door:
        middle = 0.5 * (sill + top)
        boxes += [
            ((-half - 0.14, 0.0, sill - 0.09), (half + 0.14, 0.2, sill), paints.plinth),
            ((-0.035, 0.0, sill), (0.035, bar, top), paints.frame),
            ((-half, 0.0, middle - 0.035), (half, bar - 0.01, middle + 0.035), paints.frame),
            ((-half - 0.62, 0.0, sill), (-half - 0.14, 0.06, top), paints.door),
            ((half + 0.14, 0.0, sill), (half + 0.62, 0.06, top), paints.door),
        ]
    for low, high, paint in boxes:
        _box_on_wall(builder, size, opening, (low, high), paint)


def _box_on_wall(
    builder: Builder,
    size: HouseSize,
    opening: Opening,
    box: tuple[tuple[float, float, float], tuple[float, float, float]],
    paint: int,
) -> None:
    """A box given as (along the wall, out of the wall, up)."""
    (a0, o0, z0), (a1, o1, z1) = box
    a0, a1 = a0 + opening.along, a1 + opening.along
    w, d = size.half_w, size.half_d
    loops = {
        0: [(a0, -d - o1), (a1, -d - o1), (a1, -d - o0), (a0, -d - o0)],
        1: [(w + o0, a0), (w + o1, a0), (w + o1, a1), (w + o0, a1)],
        2: [(a0, d + o0), (a1, d + o0), (a1, d + o1), (a0, d + o1)],
        3: [(-w - o1, a0), (-w - o0, a0), (-w - o0, a1), (-w - o1, a1)],
    }
    builder.prism(loops[opening.side], z0, z1, paint)


def add_barn(builder: Builder, palette: Palette) -> None:
    """A barn along y, open at both ends and with openings in its long sides; beams inside."""
    wall = palette.add(Material.PLANKS, (0.56, 0.26, 0.20), (0.44, 0.32, 0.24))
    roof = palette.add(Material.ROOF_TILES, (0.46, 0.42, 0.40), (0.36, 0.42, 0.24))
    beam = palette.add(Material.BARK, (0.46, 0.36, 0.26), (0.60, 0.48, 0.34))
    stone = palette.add(Material.STONE, (0.58, 0.56, 0.52), (0.70, 0.68, 0.64))
    w, length = BARN_HALF_WIDTH_M, BARN_HALF_LENGTH_M
    for side in (-1, 1):
        x0, x1 = sorted((side * w, side * (w - 0.25)))
        builder.box((x0, -length, _FOOT_M), (x1, length, 1.3), stone)
        builder.box((x0, -length, 3.0), (x1, length, _BARN_EAVES_M), wall)
        for y0, y1 in ((-7.0, -5.2), (-3.4, -1.0), (1.0, 3.4), (5.2, 7.0)):
            builder.box((x0, y0, 1.3), (x1, y1, 3.0), wall)
        _barn_end(builder, side * length, wall)
    for y in (-4.6, -1.5, 1.5, 4.6):
        builder.box((-w + 0.25, y - 0.12, 4.45), (w - 0.25, y + 0.12, 4.75), beam)
        builder.box((-0.11, y - 0.11, 4.75), (0.11, y + 0.11, _BARN_RIDGE_M - 0.15), beam)
        for x in (-w + 0.4, w - 0.4):
            builder.box((x - 0.14, y - 0.14, _FOOT_M), (x + 0.14, y + 0.14, 4.5), beam)
    pose = builder.pose
    quarter = np.eye(4)
    quarter[:2, :2] = [[0.0, -1.0], [1.0, 0.0]]
    builder.pose = pose @ quarter
    _gable_roof(builder, (length + 0.5, w + 0.5), (_BARN_EAVES_M, _BARN_RIDGE_M), roof)
    builder.pose = pose


def _barn_end(builder: Builder, y: float, paint: int) -> None:
    """A gable wall with a wide doorway."""
    y0, y1 = sorted((y, y - np.sign(y) * 0.2))
    w, door = BARN_HALF_WIDTH_M, _BARN_DOOR_HALF_M
    builder.box((-w, y0, _FOOT_M), (-door, y1, _BARN_EAVES_M), paint)
    builder.box((door, y0, _FOOT_M), (w, y1, _BARN_EAVES_M), paint)
    builder.box((-door, y0, _BARN_DOOR_TOP_M), (door, y1, _BARN_EAVES_M), paint)
    gable = [(-w, _BARN_EAVES_M), (w, _BARN_EAVES_M), (0.0, _BARN_RIDGE_M)]
    builder.profile(gable, y0, y1, paint)
