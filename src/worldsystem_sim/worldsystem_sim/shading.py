# SPDX-License-Identifier: Apache-2.0
"""From what is seen to light: surface colour, sun with shadows, sky light, haze, development."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Float64, Int32, Int64, UInt8

from worldsystem_sim.noise import compiled, compiled_on_disk, octaves, step
from worldsystem_sim.raster import Samples
from worldsystem_sim.scene import Scene
from worldsystem_sim.textures import surface_colour
from worldsystem_sim.version import code_digest

_HAZE_M = 420.0
_LEVELS = 4096
Triple = tuple[float, float, float]


class Surfaces(NamedTuple):
    """A scene's triangles and paints as plain arrays for the compiled loops."""

    corners: Float32[np.ndarray, "n 3 3"]
    normals: Float32[np.ndarray, "n 3 3"]
    uv: Float32[np.ndarray, "n 3 2"]
    paint: Int32[np.ndarray, "n"]
    instance: Int32[np.ndarray, "n"]
    kinds: Int32[np.ndarray, "p"]
    seeds: Int64[np.ndarray, "p"]
    colours: Float64[np.ndarray, "p 2 3"]
    ways: Float64[np.ndarray, "k 6"]


class Eye(NamedTuple):
    """A camera in the map: its centre [m] and the ray of unit depth of picture point (u, v, 1)."""

    centre: Float64[np.ndarray, "3"]
    world_from_picture: Float64[np.ndarray, "3 3"]
    offsets_px: Float64[np.ndarray, "s 2"]
    pixel_rad: float


class Light(NamedTuple):
    """The sun (row 2 of `axes`) and its shadow map, seen from `height_m` along it."""

    axes: Float64[np.ndarray, "3 3"]
    shadow: Float32[np.ndarray, "s s"]
    height_m: float
    pixels_per_m: float


def surfaces_of(scene: Scene) -> Surfaces:
    """Gather what shading needs."""
    t, palette = scene.triangles, scene.palette
    return Surfaces(
        t.corners_m,
        t.normals,
        t.uv_m,
        t.paint,
        t.instance,
        palette.kinds(),
        palette.seeds(),
        palette.linear_colours(),
        scene.ways,
    )


@compiled
def _sky(x: float, y: float, z: float) -> tuple[float, float, float]:
    """Light of the sky in a direction: a gradient with fair-weather clouds."""
    up = max(z, 0.0)
    t = min(1.0, up * 1.6)
    r, g, b = 0.60 - 0.44 * t, 0.72 - 0.36 * t, 0.88 - 0.13 * t
    if up > 0.02:
        reach = 1.0 / (up + 0.12)
        cloud = octaves(x * reach, y * reach, 1.6, 6, 0.01, 5)
        cover = step(0.22, 0.5, cloud) * min(1.0, up * 8.0)
        r, g, b = r + (0.95 - r) * cover, g + (0.95 - g) * cover, b + (0.97 - b) * cover
    return r, g, b


@compiled
def _sunlit(px: float, py: float, pz: float, light: Light) -> float:
    """Share of the sun that reaches a point: four taps in the shadow map; 1 outside the map."""
    axes = light.axes
    size = light.shadow.shape[0]
    s = (axes[0, 0] * px + axes[0, 1] * py + axes[0, 2] * pz) * light.pixels_per_m
    t = (axes[1, 0] * px + axes[1, 1] * py + axes[1, 2] * pz) * light.pixels_per_m
    s, t = s + 0.5 * (size - 1), t + 0.5 * (size - 1)
    if s < 1.0 or t < 1.0 or s > size - 3.0 or t > size - 3.0:
        return 1.0
    depth = light.height_m - (axes[2, 0] * px + axes[2, 1] * py + axes[2, 2] * pz) - 0.06
    i, j = int(t), int(s)
    a, b = t - i, s - j
    near = (1.0 - b) * (light.shadow[i, j] > depth) + b * (light.shadow[i, j + 1] > depth)
    far = (1.0 - b) * (light.shadow[i + 1, j] > depth) + b * (light.shadow[i + 1, j + 1] > depth)
    return float((1.0 - a) * near + a * far)


@compiled
def _weights(
    corners: Float32[np.ndarray, "3 3"], o: Triple, d: Triple
) -> tuple[float, float, float]:
    """Weights of a triangle's corners where the line from `o` along `d` meets its plane."""
    ax, ay, az = corners[0, 0] - o[0], corners[0, 1] - o[1], corners[0, 2] - o[2]
    bx, by, bz = corners[1, 0] - o[0], corners[1, 1] - o[1], corners[1, 2] - o[2]
    cx, cy, cz = corners[2, 0] - o[0], corners[2, 1] - o[1], corners[2, 2] - o[2]
    w0 = d[0] * (by * cz - bz * cy) + d[1] * (bz * cx - bx * cz) + d[2] * (bx * cy - by * cx)
    w1 = d[0] * (cy * az - cz * ay) + d[1] * (cz * ax - cx * az) + d[2] * (cx * ay - cy * ax)
    w2 = d[0] * (ay * bz - az * by) + d[1] * (az * bx - ax * bz) + d[2] * (ax * by - ay * bx)
    total = w0 + w1 + w2
    return w0 / total, w1 / total, w2 / total


@compiled
def _light_along(
    o: Triple, d: Triple, far: float, k: int, surfaces: Surfaces, light: Light, pixel_rad: float
) -> Triple:
    """Linear light from triangle `k`, met at `o + far · d`; of the sky where k is negative."""
    length = np.sqrt(d[0] * d[0] + d[1] * d[1] + d[2] * d[2])
    dx, dy, dz = d[0] / length, d[1] / length, d[2] / length
    if k < 0:
        return _sky(dx, dy, dz)
    far_m = far * length
    w0, w1, w2 = _weights(surfaces.corners[k], o, d)
    n, uv = surfaces.normals[k], surfaces.uv[k]
    nx = w0 * n[0, 0] + w1 * n[1, 0] + w2 * n[2, 0]
    ny = w0 * n[0, 1] + w1 * n[1, 1] + w2 * n[2, 1]
    nz = w0 * n[0, 2] + w1 * n[1, 2] + w2 * n[2, 2]
    facing = -(nx * dx + ny * dy + nz * dz)
    if facing < 0.0:
        nx, ny, nz, facing = -nx, -ny, -nz, -facing
    footprint = far_m * pixel_rad / np.sqrt(max(facing, 0.06))
    u = w0 * uv[0, 0] + w1 * uv[1, 0] + w2 * uv[2, 0]
    v = w0 * uv[0, 1] + w1 * uv[1, 1] + w2 * uv[2, 1]
    paint = surfaces.paint[k]
    c = surfaces.colours[paint]
    main, second = (c[0, 0], c[0, 1], c[0, 2]), (c[1, 0], c[1, 1], c[1, 2])
    kind, seed = surfaces.kinds[paint], surfaces.seeds[paint]
    r, g, b = surface_colour(kind, u, v, footprint, seed, main, second, surfaces.ways)
    sun = nx * light.axes[2, 0] + ny * light.axes[2, 1] + nz * light.axes[2, 2]
    if sun > 0.0:
        px = o[0] + far_m * dx + 0.05 * nx
        py = o[1] + far_m * dy + 0.05 * ny
        pz = o[2] + far_m * dz + 0.05 * nz
        sun *= _sunlit(px, py, pz, light)
    sun = max(sun, 0.0) * 1.45
    ambient = 0.50 + 0.16 * nz
    haze = 1.0 - np.exp(-far_m / _HAZE_M)
    return (
        max(r, 0.004) * (1.05 * sun + 0.92 * ambient) * (1.0 - haze) + 0.58 * haze,
        max(g, 0.004) * (1.00 * sun + 0.98 * ambient) * (1.0 - haze) + 0.68 * haze,
        max(b, 0.004) * (0.90 * sun + 1.12 * ambient) * (1.0 - haze) + 0.80 * haze,
    )


@compiled
def _parts_differ(p: int, q: int, a: float, b: float, surfaces: Surfaces) -> bool:
    """Whether triangles `p` and `q`, seen at depths `a` and `b`, are different surfaces."""
    if p == q:
        return False
    if p < 0 or q < 0:
        return True
    if surfaces.instance[p] != surfaces.instance[q] or surfaces.paint[p] != surfaces.paint[q]:
        return True
    n, m = surfaces.normals[p, 0], surfaces.normals[q, 0]
    bent = n[0] * m[0] + n[1] * m[1] + n[2] * m[2] < 0.8
    return bool(bent or abs(a - b) > 0.04 * min(a, b))


def _compile_shade(version: str) -> Any:  # a numba dispatcher has no public type
    """The shading loop for one version of the code that it calls.

    numba's disk cache looks at a function's own file only; `version` is part of the cache's key
    because the loop refers to it, so that a change in a texture never meets stale machine code.
    """

    @compiled_on_disk
    def shade(
        samples: Samples,
        eye: Eye,
        surfaces: Surfaces,
        light: Light,
        out: Float32[np.ndarray, "h w 3"],
    ) -> None:
        """Write the linear light (r, g, b) of each pixel into `out`.

        A sample on the same surface as the pixel's first one has the first one's colour.
        """
        height, width, count = samples.depth.shape if version else (0, 0, 0)
        m = eye.world_from_picture
        o = (eye.centre[0], eye.centre[1], eye.centre[2])
        for row in range(height):
            for column in range(width):
                far, k = samples.depth[row, column, 0], samples.triangle[row, column, 0]
                r0, g0, b0, r, g, b = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
                for s in range(count):
                    a, j = samples.depth[row, column, s], samples.triangle[row, column, s]
                    if s == 0 or _parts_differ(k, j, far, a, surfaces):
                        x, y = column + eye.offsets_px[s, 0], row + eye.offsets_px[s, 1]
                        d = (
                            m[0, 0] * x + m[0, 1] * y + m[0, 2],
                            m[1, 0] * x + m[1, 1] * y + m[1, 2],
                            m[2, 0] * x + m[2, 1] * y + m[2, 2],
                        )
                        light_here = _light_along(o, d, a, j, surfaces, light, eye.pixel_rad)
                    else:
                        light_here = (r0, g0, b0)
                    if s == 0:
                        r0, g0, b0 = light_here
                    r, g, b = r + light_here[0], g + light_here[1], b + light_here[2]
                out[row, column, 0] = r / count
                out[row, column, 1] = g / count
                out[row, column, 2] = b / count

    return shade


shade = _compile_shade(code_digest("noise", "textures", "shading"))


def _development() -> UInt8[np.ndarray, "l"]:
    level = np.arange(_LEVELS) / (_LEVELS - 1)
    return np.round(255.0 * level ** (1 / 2.2)).astype(np.uint8)


_DEVELOPED = _development()


def develop(light: Float32[np.ndarray, "h w 3"], exposure: float) -> UInt8[np.ndarray, "h w 3"]:
    """Expose, clip and gamma-encode linear light, as a camera does."""
    level = np.clip(light * np.float32(exposure * 0.86 * (_LEVELS - 1)), 0, _LEVELS - 1)
    return _DEVELOPED[level.astype(np.int32)]
