# SPDX-License-Identifier: Apache-2.0
"""From ray hits to light: surface colour, sun with cast shadows, sky light, haze, development."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int32, Int64, UInt8, UInt32

from worldsystem_sim.noise import compiled, compiled_on_disk, octaves, step
from worldsystem_sim.scene import Scene
from worldsystem_sim.textures import surface_colour
from worldsystem_sim.version import code_digest

_HAZE_M = 420.0
_LEVELS = 4096


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


def _compile_shade(version: str) -> Any:  # a numba dispatcher has no public type
    """The shading loop for one version of the code that it calls.

    numba's disk cache looks at a function's own file only; `version` is part of the cache's key
    because the loop refers to it, so that a change in a texture never meets stale machine code.
    """

    @compiled_on_disk
    def shade(
        rays: Float32[np.ndarray, "n 6"],
        distance: Float32[np.ndarray, "n"],
        triangle: UInt32[np.ndarray, "n"],
        weights: Float32[np.ndarray, "n 2"],
        surfaces: Surfaces,
        light: Light,
        pixel_rad: float,
        out: Float32[np.ndarray, "n 3"],
    ) -> None:
        """Write the linear light (r, g, b) that comes along each ray into `out` (n, 3)."""
        for i in range(rays.shape[0] if version else 0):
            dx, dy, dz = rays[i, 3], rays[i, 4], rays[i, 5]
            length = np.sqrt(dx * dx + dy * dy + dz * dz)
            dx, dy, dz = dx / length, dy / length, dz / length
            far = distance[i]
            if not np.isfinite(far):
                out[i, 0], out[i, 1], out[i, 2] = _sky(dx, dy, dz)
                continue
            far_m = far * length
            k = triangle[i]
            w1, w2 = weights[i, 0], weights[i, 1]
            w0 = 1.0 - w1 - w2
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
            r, g, b = surface_colour(
                surfaces.kinds[paint],
                u,
                v,
                footprint,
                surfaces.seeds[paint],
                (c[0, 0], c[0, 1], c[0, 2]),
                (c[1, 0], c[1, 1], c[1, 2]),
                surfaces.ways,
            )
            sun = nx * light.axes[2, 0] + ny * light.axes[2, 1] + nz * light.axes[2, 2]
            if sun > 0.0:
                px = rays[i, 0] + far_m * dx + 0.05 * nx
                py = rays[i, 1] + far_m * dy + 0.05 * ny
                pz = rays[i, 2] + far_m * dz + 0.05 * nz
                sun *= _sunlit(px, py, pz, light)
            sun = max(sun, 0.0) * 1.45
            ambient = 0.50 + 0.16 * nz
            haze = 1.0 - np.exp(-far_m / _HAZE_M)
            out[i, 0] = max(r, 0.004) * (1.05 * sun + 0.92 * ambient) * (1.0 - haze) + 0.58 * haze
            out[i, 1] = max(g, 0.004) * (1.00 * sun + 0.98 * ambient) * (1.0 - haze) + 0.68 * haze
            out[i, 2] = max(b, 0.004) * (0.90 * sun + 1.12 * ambient) * (1.0 - haze) + 0.80 * haze

    return shade


shade = _compile_shade(code_digest("noise", "textures", "shading"))


@compiled
def _parts_differ(
    i: int,
    j: int,
    distance: Float32[np.ndarray, "n"],
    triangle: UInt32[np.ndarray, "n"],
    surfaces: Surfaces,
) -> bool:
    """Whether two neighbouring pixels lie on different surfaces."""
    a, b = distance[i], distance[j]
    if not np.isfinite(a) or not np.isfinite(b):
        return bool(np.isfinite(a) != np.isfinite(b))
    if triangle[i] == triangle[j]:
        return False
    p, q = triangle[i], triangle[j]
    if surfaces.instance[p] != surfaces.instance[q] or surfaces.paint[p] != surfaces.paint[q]:
        return True
    n, m = surfaces.normals[p, 0], surfaces.normals[q, 0]
    bent = n[0] * m[0] + n[1] * m[1] + n[2] * m[2] < 0.8
    return bool(bent or abs(a - b) > 0.04 * min(a, b))


@compiled_on_disk
def _edge_mask(
    distance: Float32[np.ndarray, "n"],
    triangle: UInt32[np.ndarray, "n"],
    surfaces: Surfaces,
    height: int,
    width: int,
) -> Bool[np.ndarray, "n"]:
    mask = np.zeros(height * width, np.bool_)
    for row in range(height):
        for column in range(width):
            i = row * width + column
            if column + 1 < width and _parts_differ(i, i + 1, distance, triangle, surfaces):
                mask[i] = mask[i + 1] = True
            if row + 1 < height and _parts_differ(i, i + width, distance, triangle, surfaces):
                mask[i] = mask[i + width] = True
    return mask


def edge_pixels(
    distance: Float32[np.ndarray, "n"],
    triangle: UInt32[np.ndarray, "n"],
    surfaces: Surfaces,
    height: int,
    width: int,
) -> Int64[np.ndarray, "e"]:
    """Indices of the pixels next to a silhouette or a crease (n = height · width, row-major)."""
    return np.flatnonzero(_edge_mask(distance, triangle, surfaces, height, width))


def _development() -> UInt8[np.ndarray, "l"]:
    level = np.arange(_LEVELS) / (_LEVELS - 1)
    return np.round(255.0 * level ** (1 / 2.2)).astype(np.uint8)


_DEVELOPED = _development()


def develop(light: Float32[np.ndarray, "n 3"], exposure: float) -> UInt8[np.ndarray, "n 3"]:
    """Expose, clip and gamma-encode linear light, as a camera does."""
    level = np.clip(light * np.float32(exposure * 0.86 * (_LEVELS - 1)), 0, _LEVELS - 1)
    return _DEVELOPED[level.astype(np.int32)]
