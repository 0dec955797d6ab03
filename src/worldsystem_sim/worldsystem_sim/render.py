# SPDX-License-Identifier: Apache-2.0
"""Pictures of a scene with exact depth and instance ids.

Four samples of each pixel find what is seen there; depth and ids are those of the pixel's centre.
One sample is shaded, and others only where they see another surface (multisampling).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float, Float32, Float64, UInt8, UInt16

from worldsystem_core.frames import Camera
from worldsystem_core.geometry.se3 import inverse
from worldsystem_sim import shading
from worldsystem_sim.raster import Samples, Soup, camera_projection, rasterise, soup_of
from worldsystem_sim.scene import HAMLET_RADIUS_M, Scene

_SUN = np.array([0.46, -0.52, 0.72])
SUN_DIRECTION = _SUN / np.linalg.norm(_SUN)
_SHADOW_PX = 1536
_SHADOW_HALF_M = HAMLET_RADIUS_M + 8.0
_SUN_HEIGHT_M = 60.0
_CENTRE = np.zeros((1, 2))
_SAMPLES = np.array([(0.0, 0.0), (-0.30, -0.15), (0.30, -0.15), (0.0, 0.35)])


@dataclass(frozen=True, eq=False)
class RenderedView:
    """A picture and its truth: z-depth [m] (inf: sky) and instance id (0: sky) of each pixel."""

    rgb: UInt8[np.ndarray, "h w 3"]
    depth_m: Float32[np.ndarray, "h w"]
    ids: UInt16[np.ndarray, "h w"]


class Renderer:
    """Renders one scene through one camera; the same pose always gives the same bytes.

    It may be used by several threads at once; each picture is made by the thread that asks.
    """

    def __init__(self, scene: Scene, camera: Camera) -> None:
        self.scene = scene
        self.camera = camera
        self._soup, self._light = _lit(scene)
        self._surfaces = shading.surfaces_of(scene)

    def render(
        self, world_from_cam: Float[np.ndarray, "4 4"], exposure: float = 1.0
    ) -> RenderedView:
        """The picture from a pose (optical axes, map frame), brightened by `exposure`."""
        samples = self._see(world_from_cam, _SAMPLES)
        light = np.empty((self.camera.height, self.camera.width, 3), np.float32)
        shading.shade(samples, self._eye(world_from_cam), self._surfaces, self._light, light)
        return RenderedView(shading.develop(light, exposure), *self._truth(samples))

    def render_truth(
        self, world_from_cam: Float[np.ndarray, "4 4"]
    ) -> tuple[Float32[np.ndarray, "h w"], UInt16[np.ndarray, "h w"]]:
        """Only z-depth [m] and instance ids: several times as fast as the picture."""
        return self._truth(self._see(world_from_cam, _CENTRE))

    def _see(
        self, world_from_cam: Float[np.ndarray, "4 4"], offsets_px: Float64[np.ndarray, "s 2"]
    ) -> Samples:
        projection = camera_projection(inverse(world_from_cam), self.camera.K)
        height, width = self.camera.height, self.camera.width
        return rasterise(self._soup, projection, offsets_px, height, width)

    def _eye(self, world_from_cam: Float[np.ndarray, "4 4"]) -> shading.Eye:
        return shading.Eye(
            np.array(world_from_cam[:3, 3], dtype=np.float64),
            np.ascontiguousarray(world_from_cam[:3, :3] @ np.linalg.inv(self.camera.K)),
            _SAMPLES,
            1.0 / self.camera.fx,
        )

    def _truth(
        self, samples: Samples
    ) -> tuple[Float32[np.ndarray, "h w"], UInt16[np.ndarray, "h w"]]:
        triangle = samples.triangle[..., 0]
        instance = np.where(triangle < 0, 0, self.scene.triangles.instance[triangle])
        return np.ascontiguousarray(samples.depth[..., 0]), instance.astype(np.uint16)


@lru_cache(maxsize=2)
def _lit(scene: Scene) -> tuple[Soup, shading.Light]:
    """The triangles and the shadow map of a scene; those of the last two scenes are kept."""
    soup = soup_of(scene)
    return soup, _make_light(soup)


def _make_light(soup: Soup) -> shading.Light:
    """The sun's shadow map: distance from a plane above the hamlet along the sun's rays."""
    east = np.cross([0.0, 1.0, 0.0], SUN_DIRECTION)
    east /= np.linalg.norm(east)
    north = np.cross(SUN_DIRECTION, east)
    pixels_per_m = (_SHADOW_PX - 1) / (2 * _SHADOW_HALF_M)
    middle_px = 0.5 * (_SHADOW_PX - 1)
    projection = np.zeros((4, 4))
    projection[0, :3], projection[0, 3] = pixels_per_m * east, middle_px
    projection[1, :3], projection[1, 3] = pixels_per_m * north, middle_px
    projection[2, 3] = 1.0
    projection[3, :3], projection[3, 3] = -SUN_DIRECTION, _SUN_HEIGHT_M
    samples = rasterise(soup, projection, _CENTRE, _SHADOW_PX, _SHADOW_PX)
    axes = np.stack([east, north, SUN_DIRECTION])
    shadow = np.ascontiguousarray(samples.depth[..., 0])
    return shading.Light(axes, shadow, _SUN_HEIGHT_M, pixels_per_m)
