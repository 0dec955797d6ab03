# SPDX-License-Identifier: Apache-2.0
"""Pictures of a scene by ray casting, with exact depth and instance ids.

One primary ray per pixel (Embree, through Open3D) gives depth, ids and the point to shade; three
more at pixels on silhouettes smooth the edges. Depth and ids are those of the pixel's centre ray.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import open3d as o3d
from jaxtyping import Float, Float32, Float64, UInt8, UInt16, UInt32

from worldsystem_core.frames import Camera
from worldsystem_sim import shading
from worldsystem_sim.scene import HAMLET_RADIUS_M, Scene

_SUN = np.array([0.46, -0.52, 0.72])
SUN_DIRECTION = _SUN / np.linalg.norm(_SUN)
_SHADOW_PX = 1536
_SHADOW_HALF_M = HAMLET_RADIUS_M + 8.0
_SUB_PIXELS = np.array([(-0.30, -0.15), (0.30, -0.15), (0.0, 0.35)])


@dataclass(frozen=True, eq=False)
class RenderedView:
    """A picture and its truth: z-depth [m] (inf: sky) and instance id (0: sky) of each pixel."""

    rgb: UInt8[np.ndarray, "h w 3"]
    depth_m: Float32[np.ndarray, "h w"]
    ids: UInt16[np.ndarray, "h w"]


@dataclass(frozen=True, eq=False)
class Hits:
    """Where n rays first meet the scene: distance along the ray (inf: sky), triangle, weights."""

    distance: Float32[np.ndarray, "n"]
    triangle: UInt32[np.ndarray, "n"]
    weights: Float32[np.ndarray, "n 2"]


_tensor: Any = o3d.core.Tensor  # its stubs do not know the constructor from a numpy array


class Caster:
    """Finds first hits of rays with the scene's triangles."""

    def __init__(self, scene: Scene) -> None:
        corners = np.ascontiguousarray(scene.triangles.corners_m.reshape(-1, 3))
        faces = np.arange(len(corners), dtype=np.uint32).reshape(-1, 3)
        self._rays = o3d.t.geometry.RaycastingScene()
        self._rays.add_triangles(_tensor(corners), _tensor(faces))

    def cast(self, rays: Float32[np.ndarray, "n 6"]) -> Hits:
        """First hits of rays (origin, direction), in the map frame; distance in directions."""
        found = self._rays.cast_rays(_tensor(rays))
        return Hits(
            found["t_hit"].numpy(), found["primitive_ids"].numpy(), found["primitive_uvs"].numpy()
        )


class Renderer:
    """Renders one scene through one camera; the same pose always gives the same bytes."""

    def __init__(self, scene: Scene, camera: Camera) -> None:
        self.scene = scene
        self.camera = camera
        self._caster, self._light = _lit(scene)
        self._surfaces = shading.surfaces_of(scene)
        self._rows, self._columns = np.indices((camera.height, camera.width)).reshape(2, -1)
        self._centre_rays = self._directions_cam(self._columns, self._rows)
        self._threads = max(1, min(4, os.cpu_count() or 1))
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="render")

    def render(
        self, world_from_cam: Float[np.ndarray, "4 4"], exposure: float = 1.0
    ) -> RenderedView:
        """The picture from a pose (optical axes, map frame), brightened by `exposure`."""
        rays, hits = self._cast(world_from_cam, self._centre_rays)
        light = self._shade(rays, hits)
        self._smooth_edges(world_from_cam, hits, light)
        shape = (self.camera.height, self.camera.width)
        return RenderedView(
            shading.develop(light, exposure).reshape(*shape, 3),
            hits.distance.reshape(shape),
            self._ids(hits).reshape(shape),
        )

    def render_truth(
        self, world_from_cam: Float[np.ndarray, "4 4"]
    ) -> tuple[Float32[np.ndarray, "h w"], UInt16[np.ndarray, "h w"]]:
        """Only z-depth [m] and instance ids: five times as fast as the picture."""
        _, hits = self._cast(world_from_cam, self._centre_rays)
        shape = (self.camera.height, self.camera.width)
        return hits.distance.reshape(shape), self._ids(hits).reshape(shape)

    def _directions_cam(
        self, u: Float[np.ndarray, "n"], v: Float[np.ndarray, "n"]
    ) -> Float64[np.ndarray, "n 3"]:
        x = (u - self.camera.cx) / self.camera.fx
        y = (v - self.camera.cy) / self.camera.fy
        return np.stack([x, y, np.ones_like(x)], axis=-1)

    def _cast(
        self, world_from_cam: Float[np.ndarray, "4 4"], directions: Float64[np.ndarray, "n 3"]
    ) -> tuple[Float32[np.ndarray, "n 6"], Hits]:
        """Cast camera-frame directions of unit z, so that a hit's distance is its z-depth."""
        rays = np.empty((len(directions), 6), np.float32)
        rays[:, :3] = world_from_cam[:3, 3]
        rays[:, 3:] = directions @ world_from_cam[:3, :3].T
        return rays, self._caster.cast(rays)

    def _ids(self, hits: Hits) -> UInt16[np.ndarray, "n"]:
        sky = ~np.isfinite(hits.distance)
        instance = self.scene.triangles.instance[np.where(sky, 0, hits.triangle)]
        return np.where(sky, 0, instance).astype(np.uint16)

    def _shade(self, rays: Float32[np.ndarray, "n 6"], hits: Hits) -> Float32[np.ndarray, "n 3"]:
        light = np.empty((len(rays), 3), np.float32)
        bounds = np.linspace(0, len(rays), 4 * self._threads + 1).astype(int)

        def shade_part(part: int) -> None:
            here = slice(bounds[part], bounds[part + 1])
            shading.shade(
                rays[here],
                hits.distance[here],
                hits.triangle[here],
                hits.weights[here],
                self._surfaces,
                self._light,
                1.0 / self.camera.fx,
                light[here],
            )

        list(self._pool.map(shade_part, range(4 * self._threads)))
        return light

    def _smooth_edges(
        self,
        world_from_cam: Float[np.ndarray, "4 4"],
        hits: Hits,
        light: Float32[np.ndarray, "n 3"],
    ) -> None:
        """Replace silhouette pixels by the mean of four rays."""
        edge = shading.edge_pixels(
            hits.distance, hits.triangle, self._surfaces, self.camera.height, self.camera.width
        )
        if not len(edge):
            return
        u = (self._columns[edge][:, None] + _SUB_PIXELS[:, 0]).reshape(-1)
        v = (self._rows[edge][:, None] + _SUB_PIXELS[:, 1]).reshape(-1)
        rays, found = self._cast(world_from_cam, self._directions_cam(u, v))
        light[edge] = 0.25 * (light[edge] + self._shade(rays, found).reshape(-1, 3, 3).sum(axis=1))


@lru_cache(maxsize=2)
def _lit(scene: Scene) -> tuple[Caster, shading.Light]:
    """The search tree and the shadow map of a scene; those of the last two scenes are kept."""
    caster = Caster(scene)
    return caster, _make_light(caster)


def _make_light(caster: Caster) -> shading.Light:
    """The sun's shadow map: distance from a plane above the hamlet along the sun's rays."""
    east = np.cross([0.0, 1.0, 0.0], SUN_DIRECTION)
    east /= np.linalg.norm(east)
    north = np.cross(SUN_DIRECTION, east)
    line = np.linspace(-_SHADOW_HALF_M, _SHADOW_HALF_M, _SHADOW_PX)
    u, v = np.meshgrid(line, line)
    above = 60.0 * SUN_DIRECTION
    origins = u[..., None] * east + v[..., None] * north + above
    rays = np.empty((_SHADOW_PX**2, 6), np.float32)
    rays[:, :3] = origins.reshape(-1, 3)
    rays[:, 3:] = -SUN_DIRECTION
    distance = caster.cast(rays).distance.reshape(_SHADOW_PX, _SHADOW_PX)
    pixels_per_m = (_SHADOW_PX - 1) / (2 * _SHADOW_HALF_M)
    axes = np.stack([east, north, SUN_DIRECTION])
    return shading.Light(axes, distance, 60.0, pixels_per_m)
