# SPDX-License-Identifier: Apache-2.0
"""Band-limited value noise on the plane, compiled; every function is pure and seeded.

A lattice of cell size L holds no detail finer than L, so that an octave is faded out where L comes
near the pixel's footprint: surfaces do not alias in motion (Perlin, "An Image Synthesizer",
SIGGRAPH 1985, calls this clamping).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba
import numpy as np

F = TypeVar("F", bound=Callable[..., Any])  # any function that numba can compile

_MIX_X = np.uint64(0x9E3779B97F4A7C15)
_MIX_Y = np.uint64(0xC2B2AE3D27D4EB4F)
_MIX_SEED = np.uint64(0x165667B19E3779F9)
_MIX_LAST = np.uint64(0xD6E8FEB86659FD93)
_SHIFT = np.uint64(32)
_TOP_BITS = np.uint64(40)
_UNIT = 1.0 / 16777216.0
_HOW: dict[str, Any] = {  # what numba.njit is told; "numpy" spares a test at each division
    "nogil": True,
    "error_model": "numpy",
    "fastmath": {"contract", "arcp", "nsz", "reassoc"},
}


def compiled(function: F) -> F:
    """`function` as machine code that runs without the interpreter lock."""
    made: F = numba.njit(**_HOW)(function)
    return made


def compiled_on_disk(function: F) -> F:
    """Like `compiled`, kept on disk between runs while the function's own file is unchanged."""
    made: F = numba.njit(cache=True, **_HOW)(function)
    return made


def inlined(function: F) -> F:
    """Like `compiled`, and put into its callers."""
    made: F = numba.njit(inline="always", **_HOW)(function)
    return made


@inlined
def _unit(h: np.uint64) -> float:
    """A number in [0, 1) from a 64-bit sum; cheap, and even enough for textures."""
    h ^= h >> _SHIFT
    h *= _MIX_LAST
    h ^= h >> _SHIFT
    h *= _MIX_LAST
    return float(np.int64(h >> _TOP_BITS)) * _UNIT


@inlined
def cell_value(ix: int, iy: int, seed: int) -> float:
    """A number in [0, 1) that belongs to one lattice cell."""
    return _unit(np.uint64(ix) * _MIX_X + np.uint64(iy) * _MIX_Y + np.uint64(seed) * _MIX_SEED)


@compiled
def value_noise(x: float, y: float, seed: int) -> float:
    """Smooth noise of unit cell size, in [-1, 1]."""
    fx, fy = np.floor(x), np.floor(y)
    tx, ty = x - fx, y - fy
    tx = tx * tx * (3.0 - 2.0 * tx)
    ty = ty * ty * (3.0 - 2.0 * ty)
    h = np.uint64(int(fx)) * _MIX_X + np.uint64(int(fy)) * _MIX_Y + np.uint64(seed) * _MIX_SEED
    low = _unit(h) * (1.0 - tx) + _unit(h + _MIX_X) * tx
    high = _unit(h + _MIX_Y) * (1.0 - tx) + _unit(h + _MIX_X + _MIX_Y) * tx
    return float(2.0 * (low * (1.0 - ty) + high * ty) - 1.0)


@inlined
def _held(pixels: float) -> float:
    """How much of a detail that is `pixels` wide can be seen: 0 … 1."""
    t = min(max((pixels - 1.0) / 1.4, 0.0), 1.0)
    return t * t * (3.0 - 2.0 * t)


@inlined
def fade(cell_m: float, footprint_m: float) -> float:
    """How much of a detail of size `cell_m` a pixel of `footprint_m` can hold: 0 … 1."""
    return _held(cell_m / footprint_m)


@compiled
def octaves(
    x_m: float, y_m: float, cell_m: float, count: int, footprint_m: float, seed: int
) -> float:
    """Sum of `count` octaves from `cell_m` down, gain 0.62, about [-1, 1]; unseen ones left out."""
    total, gain, norm = 0.0, 1.0, 0.0
    x, y, pixels = x_m / cell_m, y_m / cell_m, cell_m / footprint_m
    for octave in range(count):
        norm += gain * gain
        if pixels > 1.0:
            total += gain * _held(pixels) * value_noise(x, y, seed + octave)
        gain, x, y, pixels = 0.62 * gain, 2.0 * x, 2.0 * y, 0.5 * pixels
    return float(total / np.sqrt(norm))


@inlined
def step(edge: float, width: float, x: float) -> float:
    """0 below `edge`, 1 above, with a smooth ramp of `width` between."""
    t = min(max((x - edge) / max(width, 1e-6) + 0.5, 0.0), 1.0)
    return t * t * (3.0 - 2.0 * t)


@compiled
def spots(
    x_m: float, y_m: float, cell_m: float, share: float, footprint_m: float, seed: int
) -> float:
    """Ragged spots, at most one in each cell of `cell_m`, in `share` of the cells; 0 … 1."""
    fx, fy = np.floor(x_m / cell_m), np.floor(y_m / cell_m)
    ix, iy = int(fx), int(fy)
    if cell_value(ix, iy, seed) > share:
        return 0.0
    radius_m = cell_m * (0.08 + 0.18 * cell_value(ix, iy, seed + 1))
    visible = fade(2.5 * radius_m, footprint_m)
    if visible == 0.0:
        return 0.0
    reach_m = 1.5 * radius_m
    room = cell_m - 2.0 * reach_m
    dx = x_m - fx * cell_m - reach_m - room * cell_value(ix, iy, seed + 2)
    dy = y_m - fy * cell_m - reach_m - room * cell_value(ix, iy, seed + 3)
    distance_m = np.sqrt(dx * dx + dy * dy)
    if distance_m > reach_m:
        return 0.0
    distance_m *= 1.0 - 0.33 * value_noise(dx / radius_m * 1.3, dy / radius_m * 1.3, seed + ix)
    edge = 1.0 - step(radius_m, max(0.25 * radius_m, footprint_m), distance_m)
    return edge * visible


@inlined
def seam(offset_m: float, size_m: float, width_m: float, footprint_m: float) -> float:
    """1 on the border of a cell (position `offset_m` in 0 … `size_m`), 0 inside."""
    distance = min(offset_m, size_m - offset_m)
    soft = max(width_m, footprint_m)
    line = 1.0 - step(0.5 * width_m, soft, distance)
    return line * min(1.0, width_m / soft + 0.15) * fade(size_m, footprint_m)
