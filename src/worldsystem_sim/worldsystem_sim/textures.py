# SPDX-License-Identifier: Apache-2.0
"""Procedural surfaces, evaluated per pixel in metres on the surface: nothing repeats.

`surface_colour` gives the linear albedo at (u, v) [m] of a paint: a kind of material, a seed and
two colours. `footprint` is the size of the pixel on the surface [m]; finer detail is faded out.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from jaxtyping import Float64

from worldsystem_sim.noise import cell_value, compiled, fade, inlined, octaves, seam, spots, step


class Material(IntEnum):
    """How a surface is drawn."""

    GROUND = 0
    BRICK = 1
    PLASTER = 2
    PLANKS = 3
    ROOF_TILES = 4
    LEAVES = 5
    BARK = 6
    CAR_PAINT = 7
    GLASS = 8
    METAL = 9
    STRAW = 10
    STONE = 11


_GROUND, _BRICK, _PLASTER, _PLANKS, _TILES, _LEAVES = 0, 1, 2, 3, 4, 5
_BARK, _CAR, _GLASS, _METAL, _STRAW, _STONE = 6, 7, 8, 9, 10, 11
Colour = tuple[float, float, float]
Ways = Float64[np.ndarray, "k 6"]


@inlined
def _mix(a: Colour, b: Colour, t: float) -> Colour:
    return (a[0] + (b[0] - a[0]) * t, a[1] + (b[1] - a[1]) * t, a[2] + (b[2] - a[2]) * t)


@inlined
def _scale(a: Colour, gain: float) -> Colour:
    return (a[0] * gain, a[1] * gain, a[2] * gain)


@compiled
def _masonry(
    u: float,
    v: float,
    fp: float,
    seed: int,
    a: Colour,
    b: Colour,
    width: float,
    height: float,
    gap: float,
) -> Colour:
    """Running bond: each stone has its own tone; joints are of the light colour `b`."""
    row = np.floor(v / height)
    shift = 0.5 * width * (int(row) & 1) + 0.2 * width * cell_value(int(row), 7, seed)
    column = np.floor((u + shift) / width)
    own = cell_value(int(column), int(row), seed) - 0.5
    tone = 1.0 + 0.95 * own * fade(width, fp) + 0.38 * octaves(u, v, 0.9, 5, fp, seed + 40)
    colour = _scale(a, tone)
    dark = step(0.86, 0.02, cell_value(int(column), int(row), seed + 1)) * fade(width, fp)
    colour = _scale(colour, 1.0 - 0.55 * dark)
    joint = max(
        seam(u + shift - column * width, width, gap, fp), seam(v - row * height, height, gap, fp)
    )
    colour = _mix(colour, b, joint)
    stain = step(0.42, 0.25, octaves(u, v * 0.6, 2.2, 4, fp, seed + 60))
    return _scale(colour, 1.0 - 0.45 * stain)


@compiled
def _plaster(u: float, v: float, fp: float, seed: int, a: Colour, b: Colour) -> Colour:
    """Lime plaster: blotches, rain streaks, cracks, and patches where the bricks show."""
    tone = 1.0 + 0.22 * octaves(u, v, 1.6, 6, fp, seed)
    streak = step(0.25, 0.5, octaves(u, v * 0.12, 0.35, 4, fp, seed + 20))
    colour = _scale(a, tone * (1.0 - 0.30 * streak))
    crack = abs(octaves(u, v, 1.1, 4, fp, seed + 30))
    crack = (1.0 - step(0.025, 0.03, crack)) * fade(0.06, fp)
    colour = _scale(colour, 1.0 - 0.6 * crack)
    bare = step(0.40, 0.05, octaves(u, v, 1.4, 5, fp, seed + 50))
    if bare > 0.0:
        colour = _mix(colour, _masonry(u, v, fp, seed + 70, b, a, 0.25, 0.085, 0.014), bare)
    chip = spots(u, v, 0.42, 0.55, fp, seed + 80)
    return _scale(colour, 1.0 - 0.5 * chip)


@compiled
def _planks(u: float, v: float, fp: float, seed: int, a: Colour, b: Colour) -> Colour:
    """Boards along v, each with its own tone, grain, knots and butt joints."""
    width = 0.17
    board = np.floor(u / width)
    k = int(board)
    length = 1.6 + 1.2 * cell_value(k, 1, seed)
    along = v + 3.0 * cell_value(k, 2, seed)
    piece = np.floor(along / length)
    tone = 1.0 + 0.9 * (cell_value(k, int(piece), seed + 3) - 0.5) * fade(width, fp)
    grain = octaves(u + 0.7 * board, v * 0.12, 0.07, 3, fp, seed + 4)
    blotch = octaves(u, v, 1.3, 5, fp, seed + 9)
    colour = _scale(_mix(a, b, step(0.15, 0.6, blotch)), tone * (1.0 + 0.35 * grain + 0.3 * blotch))
    knot = spots(u, v, width, 0.16, fp, seed + 12)
    gap = max(
        seam(u - board * width, width, 0.02, fp), seam(along - piece * length, length, 0.025, fp)
    )
    return _scale(colour, (1.0 - 0.75 * gap) * (1.0 - 0.6 * knot))


@compiled
def _roof_tiles(u: float, v: float, fp: float, seed: int, a: Colour, b: Colour) -> Colour:
    """Courses of tiles with shaded lower rims; moss grows in patches of colour `b`."""
    width, height = 0.30, 0.34
    row = np.floor(v / height)
    shift = 0.5 * width * (int(row) & 1)
    column = np.floor((u + shift) / width)
    own = cell_value(int(column), int(row), seed) - 0.5
    new = step(0.93, 0.01, cell_value(int(column), int(row), seed + 1)) * fade(width, fp)
    tone = 1.0 + 0.95 * own * fade(width, fp) + 0.3 * octaves(u, v, 2.4, 6, fp, seed + 5)
    colour = _scale(a, tone * (1.0 + 0.8 * new))
    moss = step(0.22, 0.2, octaves(u, v, 1.5, 5, fp, seed + 15))
    if moss > 0.0:
        tuft = octaves(u, v, 0.2, 3, fp, seed + 25)
        colour = _mix(colour, _scale(b, 1.0 + 0.5 * tuft), 0.8 * moss)
    rim = seam(v - row * height, height, 0.06, fp)
    side = seam(u + shift - column * width, width, 0.025, fp)
    return _scale(colour, (1.0 - 0.6 * rim) * (1.0 - 0.4 * side))


@compiled
def _leaves(u: float, v: float, fp: float, seed: int, a: Colour, b: Colour) -> Colour:
    """Clumps of light and dark foliage with gaps between."""
    clump = octaves(u, v, 0.8, 5, fp, seed)
    leaf = octaves(u, v, 0.16, 3, fp, seed + 9)
    colour = _mix(a, b, step(0.0, 1.1, clump + 0.5 * leaf))
    gap = step(0.33, 0.3, octaves(u, v, 0.42, 4, fp, seed + 20))
    lit = spots(u, v, 0.24, 0.6, fp, seed + 30)
    return _scale(colour, (1.0 + 0.45 * leaf) * (1.0 - 0.72 * gap) * (1.0 + 0.7 * lit))


@compiled
def _car_paint(u: float, v: float, fp: float, seed: int, a: Colour, b: Colour) -> Colour:
    """Paint with panel seams, a worn stripe of colour `b`, dust and rust."""
    tone = 1.0 + 0.16 * octaves(u, v, 0.7, 5, fp, seed)
    colour = _scale(a, tone)
    panel = np.floor(u / 0.95)
    line = seam(u - panel * 0.95, 0.95, 0.03, fp)
    stripe = 1.0 - step(0.07, max(0.03, fp), abs(v - 0.70))
    worn = step(-0.45, 0.3, octaves(u, v, 0.3, 4, fp, seed + 3))
    colour = _mix(colour, b, stripe * worn)
    dust = step(0.05, 0.5, octaves(u, v, 0.5, 5, fp, seed + 8))
    colour = _mix(colour, (0.30, 0.26, 0.20), 0.45 * dust)
    rust = step(0.38, 0.12, octaves(u, v, 0.8, 5, fp, seed + 12))
    colour = _mix(colour, (0.16, 0.075, 0.035), 0.85 * rust)
    return _scale(colour, 1.0 - 0.7 * line)


@compiled
def _glass(u: float, v: float, fp: float, seed: int, a: Colour, b: Colour) -> Colour:
    """A dark pane with a painted reflection (it moves with the pane, as a texture does)."""
    glint = step(0.1, 0.4, octaves(u + 0.6 * v, 0.4 * v, 0.7, 4, fp, seed))
    colour = _mix(a, b, 0.75 * glint)
    return _scale(colour, 1.0 + 0.3 * octaves(u, v, 0.2, 3, fp, seed + 5))


@compiled
def _weathered(u: float, v: float, fp: float, seed: int, a: Colour, b: Colour) -> Colour:
    """Metal, bark: flakes of `b` on `a`, streaked along v."""
    flake = step(0.12, 0.15, octaves(u, v * 0.45, 0.35, 5, fp, seed))
    grain = octaves(u, v * 0.3, 0.12, 3, fp, seed + 6)
    return _scale(_mix(a, b, flake), 1.0 + 0.45 * grain)


@compiled
def _straw(u: float, v: float, fp: float, seed: int, a: Colour, b: Colour) -> Colour:
    stalk = octaves(u * 0.25, v, 0.12, 4, fp, seed) + octaves(u, v * 0.3, 0.2, 4, fp, seed + 7)
    return _scale(_mix(a, b, step(0.1, 1.2, stalk)), 1.0 + 0.5 * stalk)


@compiled
def _grass(x: float, y: float, fp: float, seed: int) -> Colour:
    """Meadow: dry and lush patches, bare earth, tufts, flowers and stones."""
    dry = step(0.1, 0.9, octaves(x, y, 7.0, 4, fp, seed))
    colour = _mix((0.085, 0.140, 0.040), (0.270, 0.235, 0.105), dry)
    tuft = octaves(x, y, 0.9, 6, fp, seed + 10)
    colour = _scale(colour, 1.0 + 0.75 * tuft)
    earth = step(0.36, 0.12, octaves(x, y, 2.6, 6, fp, seed + 30))
    colour = _mix(colour, _scale((0.200, 0.135, 0.085), 1.0 + 0.6 * tuft), earth)
    shrub = spots(x, y, 1.9, 0.45, fp, seed + 45)
    colour = _mix(colour, _scale((0.030, 0.070, 0.018), 1.0 + 0.6 * tuft), shrub)
    flower = spots(x, y, 0.40, 0.22, fp, seed + 50)
    hue = cell_value(int(np.floor(x / 6.0)), int(np.floor(y / 6.0)), seed + 51)
    petals = (
        (0.75, 0.70, 0.62)
        if hue < 0.4
        else ((0.72, 0.50, 0.05) if hue < 0.75 else (0.40, 0.12, 0.45))
    )
    colour = _mix(colour, petals, flower)
    stone = spots(x, y, 1.3, 0.22, fp, seed + 60)
    grey = 0.30 + 0.25 * cell_value(int(np.floor(x / 1.3)), int(np.floor(y / 1.3)), seed + 65)
    return _mix(colour, (grey, grey * 0.97, grey * 0.9), stone)


@compiled
def _asphalt(along: float, across: float, x: float, y: float, fp: float, seed: int) -> Colour:
    """Worn road: mended rectangles, cracks, aggregate and a dashed centre line."""
    i, j = int(np.floor(along / 2.3)), int(np.floor(across / 1.5))
    patch = (cell_value(i, j, seed) - 0.5) * fade(1.5, fp)
    tone = 1.0 + 0.8 * patch + 0.45 * octaves(x, y, 1.2, 6, fp, seed + 1)
    colour = _scale((0.125, 0.125, 0.130), tone)
    crack = abs(octaves(x, y, 1.7, 5, fp, seed + 20))
    colour = _scale(colour, 1.0 - 0.75 * (1.0 - step(0.03, 0.05, crack)) * fade(0.12, fp))
    dash = step(1.1, 0.05 + fp, abs(along - 3.2 * np.floor(along / 3.2) - 1.6) + 0.3)
    paint = (1.0 - step(0.075, max(0.03, fp), abs(across))) * (1.0 - dash)
    worn = step(-0.35, 0.5, octaves(x, y, 0.4, 4, fp, seed + 30))
    colour = _mix(colour, (0.62, 0.60, 0.55), paint * worn)
    pebble = spots(x, y, 0.5, 0.35, fp, seed + 40)
    return _mix(colour, (0.34, 0.31, 0.28), 0.8 * pebble)


@compiled
def _gravel(x: float, y: float, fp: float, seed: int) -> Colour:
    tone = 1.0 + 0.55 * octaves(x, y, 0.6, 5, fp, seed)
    colour = _scale((0.34, 0.285, 0.215), tone)
    stone = spots(x, y, 0.36, 0.7, fp, seed + 10)
    grey = 0.12 + 0.5 * cell_value(int(np.floor(x / 0.36)), int(np.floor(y / 0.36)), seed + 15)
    colour = _mix(colour, (grey, grey * 0.95, grey * 0.88), stone)
    return _scale(colour, 1.0 - 0.5 * step(0.4, 0.2, octaves(x, y, 1.9, 4, fp, seed + 20)))


@compiled
def _ground(x: float, y: float, fp: float, seed: int, ways: Ways) -> Colour:
    """Meadow with the roads (kind 0) and gravel paths (kind 1) of `ways` laid over it."""
    colour = (0.0, 0.0, 0.0)
    bare = True
    ragged, ragged_known = 0.0, False
    for i in range(ways.shape[0]):
        dx, dy = ways[i, 2] - ways[i, 0], ways[i, 3] - ways[i, 1]
        px, py = x - ways[i, 0], y - ways[i, 1]
        reach = ways[i, 4] + 1.1
        outside = px * dy - py * dx
        squared = dx * dx + dy * dy
        if outside * outside > reach * reach * squared:
            continue
        length = np.sqrt(squared)
        along = (px * dx + py * dy) / length
        if along < -reach or along > length + reach:
            continue
        across = outside / length
        beyond = max(0.0, max(-along, along - length))
        if not ragged_known:
            ragged, ragged_known = 0.25 * octaves(x, y, 0.8, 4, fp, seed + 99), True
        inside_m = ways[i, 4] - np.sqrt(across * across + beyond * beyond) + ragged
        if inside_m <= -0.8:
            continue
        if bare and inside_m < 0.2:
            colour = _grass(x, y, fp, seed)
        bare = False
        if ways[i, 5] == 0.0:
            verge = step(-0.4, 0.25, inside_m)
            colour = _mix(colour, _gravel(x, y, fp, seed + 200), verge)
            road = _asphalt(along, across, x, y, fp, seed + 300)
            colour = _mix(colour, road, step(0.0, max(0.1, fp), inside_m))
        else:
            colour = _mix(colour, _gravel(x, y, fp, seed + 400), step(0.0, 0.3, inside_m))
    return _grass(x, y, fp, seed) if bare else colour


@compiled
def surface_colour(
    kind: int, u: float, v: float, fp: float, seed: int, a: Colour, b: Colour, ways: Ways
) -> Colour:
    """Linear albedo (r, g, b) of a surface point; see the module's docstring."""
    if kind == _GROUND:
        return _ground(u, v, fp, seed, ways)
    if kind == _LEAVES:
        return _leaves(u, v, fp, seed, a, b)
    if kind == _BRICK:
        return _masonry(u, v, fp, seed, a, b, 0.25, 0.085, 0.014)
    if kind == _STONE:
        return _masonry(u, v, fp, seed, a, b, 0.52, 0.30, 0.03)
    if kind == _PLASTER:
        return _plaster(u, v, fp, seed, a, b)
    if kind == _PLANKS:
        return _planks(u, v, fp, seed, a, b)
    if kind == _TILES:
        return _roof_tiles(u, v, fp, seed, a, b)
    if kind == _CAR:
        return _car_paint(u, v, fp, seed, a, b)
    if kind == _GLASS:
        return _glass(u, v, fp, seed, a, b)
    if kind == _STRAW:
        return _straw(u, v, fp, seed, a, b)
    return _weathered(u, v, fp, seed, a, b)
