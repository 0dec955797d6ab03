# SPDX-License-Identifier: Apache-2.0
"""Solids from triangles: boxes, prisms, cylinders and foliage, with metric surface coordinates."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from jaxtyping import Float, Float32, Float64, Int, Int32
from scipy.spatial.transform import Rotation


@dataclass(frozen=True, eq=False)
class Triangles:
    """n triangles: corners [m, map frame], corner normals, corner (u, v) [m], paint, instance."""

    corners_m: Float32[np.ndarray, "n 3 3"]
    normals: Float32[np.ndarray, "n 3 3"]
    uv_m: Float32[np.ndarray, "n 3 2"]
    paint: Int32[np.ndarray, "n"]
    instance: Int32[np.ndarray, "n"]


def placed(x_m: float, y_m: float, z_m: float, yaw_rad: float = 0.0) -> Float64[np.ndarray, "4 4"]:
    """`map_from_solid` of a solid that stands upright at a place, turned by `yaw_rad`."""
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_euler("z", yaw_rad).as_matrix()
    pose[:3, 3] = x_m, y_m, z_m
    return pose


@dataclass
class Builder:
    """Collects the triangles of a scene; `pose`, `instance`, `detail` hold for what follows."""

    pose: Float64[np.ndarray, "4 4"] = field(default_factory=lambda: np.eye(4))
    instance: int = 0
    detail: int = 3
    _parts: list[Triangles] = field(default_factory=list)

    def faces(
        self,
        corners: Float[np.ndarray, "n 3 3"],
        uv: Float[np.ndarray, "n 3 2"],
        paint: int,
        normals: Float[np.ndarray, "n 3 3"] | None = None,
    ) -> None:
        """Add triangles given in the solid's frame; flat normals unless given."""
        if normals is None:
            flat = _cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
            flat = flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-12)
            normals = np.repeat(flat[:, None], 3, axis=1)
        rotation, origin = self.pose[:3, :3], self.pose[:3, 3]
        n = len(corners)
        self._parts.append(
            Triangles(
                (corners @ rotation.T + origin).astype(np.float32),
                (normals @ rotation.T).astype(np.float32),
                uv.astype(np.float32),
                np.full(n, paint, np.int32),
                np.full(n, self.instance, np.int32),
            )
        )

    def polygon(self, points: Float[np.ndarray, "k 3"], paint: int) -> None:
        """A flat convex polygon, anti-clockwise from outside; u is level, v goes up the slope."""
        points = np.asarray(points, dtype=np.float64)
        normal = _cross(points[1] - points[0], points[2] - points[0])
        normal /= np.linalg.norm(normal)
        level = np.array([-normal[1], normal[0], 0.0])
        level = np.array([1.0, 0, 0]) if np.linalg.norm(level) < 1e-3 else level
        level /= np.linalg.norm(level)
        uv = np.stack([points @ level, points @ _cross(normal, level)], axis=-1)
        fan = np.array([(0, i, i + 1) for i in range(1, len(points) - 1)])
        self.faces(points[fan], uv[fan], paint)

    def box(
        self, low: tuple[float, float, float], high: tuple[float, float, float], paint: int
    ) -> None:
        """An axis-aligned box in the solid's frame."""
        (x0, y0, z0), (x1, y1, z1) = low, high
        loop = [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]
        self.prism(loop, z0, z1, paint)

    def prism(self, loop: list[tuple[float, float]], z0: float, z1: float, paint: int) -> None:
        """An upright prism over an anti-clockwise convex outline."""
        for (ax, ay), (bx, by) in zip(loop, loop[1:] + loop[:1], strict=True):
            side = [(ax, ay, z0), (bx, by, z0), (bx, by, z1), (ax, ay, z1)]
            self.polygon(np.array(side), paint)
        self.polygon(np.array([(x, y, z1) for x, y in loop]), paint)
        self.polygon(np.array([(x, y, z0) for x, y in reversed(loop)]), paint)

    def profile(self, outline: list[tuple[float, float]], y0: float, y1: float, paint: int) -> None:
        """A convex outline in x–z (anti-clockwise seen from -y), extruded along y."""
        for (ax, az), (bx, bz) in zip(outline, outline[1:] + outline[:1], strict=True):
            strip = [(ax, y0, az), (ax, y1, az), (bx, y1, bz), (bx, y0, bz)]
            self.polygon(np.array(strip), paint)
        self.polygon(np.array([(x, y0, z) for x, z in outline]), paint)
        self.polygon(np.array([(x, y1, z) for x, z in reversed(outline)]), paint)

    def tube(self, base_radius: float, top_radius: float, height: float, paint: int) -> None:
        """A closed cylinder or cone frustum about the solid's z axis, smooth-shaded round."""
        count = 14
        angle = np.linspace(0.0, 2 * np.pi, count + 1)
        ring = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
        low = np.column_stack([base_radius * ring, np.zeros(count + 1)])
        high = np.column_stack([top_radius * ring, np.full(count + 1, height)])
        slope = np.column_stack([ring, np.full(count + 1, (base_radius - top_radius) / height)])
        slope /= np.linalg.norm(slope, axis=1, keepdims=True)
        around = angle * max(base_radius, top_radius)
        uv_low = np.column_stack([around, np.zeros(count + 1)])
        uv_high = np.column_stack([around, np.full(count + 1, height)])
        i = np.arange(count)
        first = np.stack([low[i], low[i + 1], high[i + 1]], axis=1)
        second = np.stack([low[i], high[i + 1], high[i]], axis=1)
        uv_first = np.stack([uv_low[i], uv_low[i + 1], uv_high[i + 1]], axis=1)
        uv_second = np.stack([uv_low[i], uv_high[i + 1], uv_high[i]], axis=1)
        self.faces(first, uv_first, paint, np.stack([slope[i], slope[i + 1], slope[i + 1]], 1))
        self.faces(second, uv_second, paint, np.stack([slope[i], slope[i + 1], slope[i]], 1))
        if top_radius > 0:
            self.polygon(high[:-1], paint)

    def blob(
        self,
        centre: tuple[float, float, float],
        radii: tuple[float, float, float],
        paint: int,
        rng: np.random.Generator,
    ) -> None:
        """A bumpy ellipsoid, such as a part of a tree's crown."""
        vertices, faces = _icosphere(self.detail)
        bumps = np.zeros(len(vertices))
        for frequency, height in ((2.0, 0.10), (4.5, 0.08), (9.0, 0.055)):
            directions = rng.normal(size=(5, 3)) * frequency
            phases = rng.uniform(0, 2 * np.pi, 5)
            bumps += height * np.sin(vertices @ directions.T + phases).mean(axis=1) * 2.0
        points = vertices * (1.0 + bumps)[:, None] * np.array(radii) + np.array(centre)
        corners = points[faces]
        normals = _smooth_normals(points, faces)[faces]
        side = np.abs(normals.mean(axis=1)).argmax(axis=1)
        axes = np.array([(1, 2), (0, 2), (0, 1)])[side]
        uv = np.take_along_axis(corners, np.repeat(axes[:, None], 3, axis=1), axis=2)
        self.faces(corners, uv + 3.0 * side[:, None, None], paint, normals)

    def build(self) -> Triangles:
        """All triangles so far."""
        names = ("corners_m", "normals", "uv_m", "paint", "instance")
        return Triangles(*(np.concatenate([getattr(p, n) for p in self._parts]) for n in names))


def _cross(
    a: Float[np.ndarray, "*n 3"], b: Float[np.ndarray, "*n 3"]
) -> Float64[np.ndarray, "*n 3"]:
    """The cross product of one or of n vectors; numpy's own is ten times slower for single ones."""
    p, q = np.asarray(a, dtype=np.float64).T, np.asarray(b, dtype=np.float64).T
    xyz = (p[1] * q[2] - p[2] * q[1], p[2] * q[0] - p[0] * q[2], p[0] * q[1] - p[1] * q[0])
    return np.array(xyz).T


def _smooth_normals(
    points: Float[np.ndarray, "v 3"], faces: Int[np.ndarray, "f 3"]
) -> Float64[np.ndarray, "v 3"]:
    a, b, c = (points[faces[:, i]] for i in range(3))
    weighted = _cross(b - a, c - a)
    normals = np.zeros_like(points, dtype=np.float64)
    for i in range(3):
        np.add.at(normals, faces[:, i], weighted)
    unit = normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    return np.asarray(unit, dtype=np.float64)


def height_grid(
    x_m: Float[np.ndarray, "w"], y_m: Float[np.ndarray, "h"], z_m: Float[np.ndarray, "h w"]
) -> tuple[Float64[np.ndarray, "f 3 3"], Float64[np.ndarray, "f 3 3"]]:
    """Triangles (corners [m] and smooth normals) of a height field on a rectangular grid."""
    points = np.stack([*np.meshgrid(x_m, y_m), z_m], axis=-1).reshape(-1, 3)
    index = np.arange(len(points)).reshape(z_m.shape)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, 1:], index[1:, :-1]
    faces = np.concatenate(
        [np.stack([a, b, c], -1).reshape(-1, 3), np.stack([a, c, d], -1).reshape(-1, 3)]
    )
    return points[faces], _smooth_normals(points, faces)[faces]


@lru_cache
def _icosphere(
    subdivisions: int,
) -> tuple[Float64[np.ndarray, "v 3"], Int[np.ndarray, "f 3"]]:
    g = (1 + 5**0.5) / 2
    corners: list[tuple[float, float, float]]
    corners = [(-1, g, 0), (1, g, 0), (-1, -g, 0), (1, -g, 0), (0, -1, g), (0, 1, g)]
    corners += [(0, -1, -g), (0, 1, -g), (g, 0, -1), (g, 0, 1), (-g, 0, -1), (-g, 0, 1)]
    vertices = np.array(corners, dtype=np.float64)
    fan = [(0, 11, 5), (0, 5, 1), (0, 1, 7), (0, 7, 10), (0, 10, 11), (1, 5, 9), (5, 11, 4)]
    fan += [(11, 10, 2), (10, 7, 6), (7, 1, 8), (3, 9, 4), (3, 4, 2), (3, 2, 6), (3, 6, 8)]
    fan += [(3, 8, 9), (4, 9, 5), (2, 4, 11), (6, 2, 10), (8, 6, 7), (9, 8, 1)]
    faces = np.array(fan)
    for _ in range(subdivisions):
        pairs = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), 1)
        edges, inverse = np.unique(pairs, axis=0, return_inverse=True)
        ab, bc, ca = np.split(inverse.reshape(-1) + len(vertices), 3)
        vertices = np.concatenate([vertices, vertices[edges].mean(axis=1)])
        a, b, c = faces.T
        parts = [(a, ab, ca), (b, bc, ab), (c, ca, bc), (ab, bc, ca)]
        faces = np.concatenate([np.stack(part, axis=-1) for part in parts])
    return vertices / np.linalg.norm(vertices, axis=1, keepdims=True), faces
