# SPDX-License-Identifier: Apache-2.0
"""Which triangle is seen at each sample of each pixel: a depth buffer over compiled loops.

Edge functions are formed in homogeneous picture coordinates, so that triangles which cross the
plane of the camera need no clipping (Olano and Greer, "Triangle Scan Conversion using 2D
Homogeneous Coordinates", Graphics Hardware 1997). Of surfaces at equal depth the first is seen.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Float64, Int32

from worldsystem_sim.noise import compiled, compiled_on_disk
from worldsystem_sim.scene import Scene

_CHUNK = 128
_NEAR = 0.01
_ROUNDING = 1e-14


class Soup(NamedTuple):
    """n triangles [m, map], and a sphere (x, y, z, radius) about each 128 of them."""

    corners: Float32[np.ndarray, "n 3 3"]
    spheres: Float64[np.ndarray, "c 4"]


class Samples(NamedTuple):
    """Depth (inf: nothing) and triangle (-1: nothing) of the s samples of each pixel."""

    depth: Float32[np.ndarray, "h w s"]
    triangle: Int32[np.ndarray, "h w s"]


def soup_of(scene: Scene) -> Soup:
    """The scene's triangles with their spheres."""
    corners = np.ascontiguousarray(scene.triangles.corners_m)
    starts = np.arange(0, len(corners), _CHUNK)
    low = np.minimum.reduceat(corners.min(axis=1), starts, axis=0).astype(np.float64)
    high = np.maximum.reduceat(corners.max(axis=1), starts, axis=0).astype(np.float64)
    radii = 0.5 * np.linalg.norm(high - low, axis=1)
    return Soup(corners, np.column_stack([0.5 * (low + high), radii]))


def rasterise(
    soup: Soup,
    projection: Float64[np.ndarray, "4 4"],
    offsets_px: Float64[np.ndarray, "s 2"],
    height: int,
    width: int,
) -> Samples:
    """What is seen at `offsets_px` (column, row) from the centre of each pixel.

    `projection` maps a point (x, y, z, 1) to (u·w, v·w, w, depth): pixel coordinates times a
    weight that is positive in front of the camera, and the depth that is compared.
    """
    shape = (height, width, len(offsets_px))
    samples = Samples(np.full(shape, np.inf, np.float32), np.full(shape, -1, np.int32))
    _fill(soup, projection, _frustum(projection, height, width), offsets_px, samples)
    return samples


def _frustum(
    projection: Float64[np.ndarray, "4 4"], height: int, width: int
) -> Float64[np.ndarray, "5 4"]:
    """Planes (unit normal, offset), positive within the picture and a pixel around it."""
    u, v, w, _ = projection
    planes = np.stack([u + w, width * w - u, v + w, height * w - v, w])
    return np.asarray(planes / np.maximum(np.linalg.norm(planes[:, :3], axis=1), 1e-12)[:, None])


@compiled
def _apart(sphere: Float64[np.ndarray, "4"], planes: Float64[np.ndarray, "p 4"]) -> bool:
    """Whether a sphere lies wholly outside one of the planes."""
    for i in range(planes.shape[0]):
        n = planes[i]
        if n[0] * sphere[0] + n[1] * sphere[1] + n[2] * sphere[2] + n[3] < -sphere[3]:
            return True
    return False


@compiled
def _bounds(h: Float64[np.ndarray, "3 4"]) -> tuple[float, float, float, float]:
    """Lowest and highest u, lowest and highest v [px] of the part in front of the camera."""
    u0, u1, v0, v1 = np.inf, -np.inf, np.inf, -np.inf
    for i in range(3):
        j = (i + 1) % 3
        a, b = h[i, 2] - _NEAR, h[j, 2] - _NEAR
        if a >= 0.0:
            u, v = h[i, 0] / h[i, 2], h[i, 1] / h[i, 2]
            u0, u1, v0, v1 = min(u0, u), max(u1, u), min(v0, v), max(v1, v)
        if (a < 0.0) != (b < 0.0):
            t = a / (a - b)
            u = (h[i, 0] + t * (h[j, 0] - h[i, 0])) / _NEAR
            v = (h[i, 1] + t * (h[j, 1] - h[i, 1])) / _NEAR
            u0, u1, v0, v1 = min(u0, u), max(u1, u), min(v0, v), max(v1, v)
    return u0, u1, v0, v1


@compiled
def _edges(h: Float64[np.ndarray, "3 4"], e: Float64[np.ndarray, "3 3"]) -> bool:
    """Edge functions e[i]·(u, v, 1), all positive inside; False for a triangle seen edge-on."""
    for i in range(3):
        b, c = h[(i + 1) % 3], h[(i + 2) % 3]
        e[i, 0] = b[1] * c[2] - b[2] * c[1]
        e[i, 1] = b[2] * c[0] - b[0] * c[2]
        e[i, 2] = b[0] * c[1] - b[1] * c[0]
    volume = h[0, 0] * e[0, 0] + h[0, 1] * e[0, 1] + h[0, 2] * e[0, 2]
    if volume < 0.0:
        for i in range(3):
            for k in range(3):
                e[i, k] = -e[i, k]
    size = 1.0
    for i in range(3):
        size *= abs(h[i, 0]) + abs(h[i, 1]) + abs(h[i, 2])
    return bool(abs(volume) > _ROUNDING * size)


@compiled
def _span(
    e: Float64[np.ndarray, "3 3"],
    slack: Float64[np.ndarray, "3"],
    v: float,
    u0: float,
    u1: float,
) -> tuple[int, int]:
    """First and last column within u0 … u1 [px] where a sample of row `v` may be inside."""
    for i in range(3):
        slope, rest = e[i, 0], e[i, 1] * v + e[i, 2] + slack[i]
        if slope > 0.0:
            u0 = max(u0, -rest / slope)
        elif slope < 0.0:
            u1 = min(u1, -rest / slope)
        elif rest < 0.0:
            return 1, 0
    if not u0 <= u1:
        return 1, 0
    return int(np.ceil(u0 - 1e-6)), int(np.floor(u1 + 1e-6))


@compiled
def _draw(
    triangle: int,
    h: Float64[np.ndarray, "3 4"],
    e: Float64[np.ndarray, "3 3"],
    slack: Float64[np.ndarray, "3"],
    offsets_px: Float64[np.ndarray, "s 2"],
    samples: Samples,
) -> None:
    """Enter one triangle where it is nearer than what is there."""
    height, width, count = samples.depth.shape
    u0, u1, v0, v1 = _bounds(h)
    u0, u1 = max(u0 - 0.5, 0.0), min(u1 + 0.5, width - 1.0)
    v0, v1 = max(v0 - 0.5, 0.0), min(v1 + 0.5, height - 1.0)
    if not (u0 <= u1 and v0 <= v1) or np.ceil(u0) > u1 or np.ceil(v0) > v1:
        return
    if not _edges(h, e):
        return
    for i in range(3):
        slack[i] = 0.5 * (abs(e[i, 0]) + abs(e[i, 1]))
    d0, d1, d2 = h[0, 3], h[1, 3], h[2, 3]
    au, av, a1 = e[0, 0], e[0, 1], e[0, 2]
    bu, bv, b1 = e[1, 0], e[1, 1], e[1, 2]
    cu, cv, c1 = e[2, 0], e[2, 1], e[2, 2]
    for row in range(int(np.ceil(v0)), int(np.floor(v1)) + 1):
        first, last = _span(e, slack, float(row), u0, u1)
        for column in range(first, last + 1):
            for s in range(count):
                u, v = column + offsets_px[s, 0], row + offsets_px[s, 1]
                a, b, c = au * u + av * v + a1, bu * u + bv * v + b1, cu * u + cv * v + c1
                if a >= 0.0 and b >= 0.0 and c >= 0.0 and a + b + c > 0.0:
                    depth = np.float32((a * d0 + b * d1 + c * d2) / (a + b + c))
                    if depth < samples.depth[row, column, s]:
                        samples.depth[row, column, s] = depth
                        samples.triangle[row, column, s] = triangle


@compiled_on_disk
def _fill(
    soup: Soup,
    projection: Float64[np.ndarray, "4 4"],
    planes: Float64[np.ndarray, "p 4"],
    offsets_px: Float64[np.ndarray, "s 2"],
    samples: Samples,
) -> None:
    """Enter every triangle whose chunk may be in the picture."""
    h, e, slack = np.empty((3, 4)), np.empty((3, 3)), np.empty(3)
    for chunk in range(soup.spheres.shape[0]):
        if _apart(soup.spheres[chunk], planes):
            continue
        for k in range(chunk * _CHUNK, min((chunk + 1) * _CHUNK, soup.corners.shape[0])):
            for i in range(3):
                p = soup.corners[k, i]
                for j in range(4):
                    m = projection[j]
                    h[i, j] = m[0] * p[0] + m[1] * p[1] + m[2] * p[2] + m[3]
            if h[0, 2] >= _NEAR or h[1, 2] >= _NEAR or h[2, 2] >= _NEAR:
                _draw(k, h, e, slack, offsets_px, samples)


def camera_projection(
    cam_from_world: Float[np.ndarray, "4 4"], matrix: Float[np.ndarray, "3 3"]
) -> Float64[np.ndarray, "4 4"]:
    """Projection of a pinhole camera with intrinsics `matrix`; depth is z [m]."""
    return np.concatenate([matrix @ cam_from_world[:3], cam_from_world[2:3]])
