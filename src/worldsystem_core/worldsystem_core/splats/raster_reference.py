# SPDX-License-Identifier: Apache-2.0
"""The plain twin of the rasteriser and of the discs: one pixel after the other, by the book."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32, Float64

from worldsystem_core.frames import Camera
from worldsystem_core.geometry.se3 import inverse
from worldsystem_core.splats.gaussians import Gaussians, matrices_of
from worldsystem_core.splats.projection import BLUR_PX2, CUTOFF_SIGMAS, LEAST_ALPHA, MOST_ALPHA


def draw_pixel(
    gaussians: Gaussians,
    world_from_cam: Float64[np.ndarray, "4 4"],
    camera: Camera,
    u: int,
    v: int,
) -> Float64[np.ndarray, "4"]:
    """Premultiplied sRGB and alpha of one pixel, from the definition (for small sets)."""
    cam_from_world = inverse(world_from_cam)
    points = gaussians.means @ cam_from_world[:3, :3].T + cam_from_world[:3, 3]
    colour, through = np.zeros(3), 1.0
    for i in np.argsort(points[:, 2], kind="stable"):
        x, y, z = points[i].astype(np.float64)
        if z <= 1e-3:
            continue
        axes = cam_from_world[:3, :3] @ matrices_of(gaussians.rotations[i : i + 1])[0]
        covariance = axes @ np.diag(gaussians.scales[i].astype(np.float64) ** 2) @ axes.T
        jacobian = np.array(
            [
                [camera.fx / z, 0, -camera.fx * x / z**2],
                [0, camera.fy / z, -camera.fy * y / z**2],
            ]
        )
        flat = jacobian @ covariance @ jacobian.T
        blurred = flat + BLUR_PX2 * np.eye(2)
        d = np.array([u, v]) - [camera.fx * x / z + camera.cx, camera.fy * y / z + camera.cy]
        power = d @ np.linalg.inv(blurred) @ d
        weight = min(MOST_ALPHA, gaussians.opacities[i] * np.exp(-0.5 * power))
        if power > CUTOFF_SIGMAS**2 or weight < LEAST_ALPHA:
            continue
        colour += through * weight * gaussians.rgb[i]
        through *= 1 - weight
    return np.array([*colour, 1 - through])


def surface_at(
    pointmap: Float32[np.ndarray, "h w 3"], v: int, u: int
) -> tuple[Float64[np.ndarray, "3"], Float64[np.ndarray, "3 3"]]:
    """Normal and covariance of the disc at pixel (u, v), for a pointmap without unknown points."""
    from worldsystem_core.splats import discs

    def shorter(a: tuple[int, int], b: tuple[int, int]) -> Float64[np.ndarray, "3"]:
        """Difference forward or backward, whichever is shorter."""
        ways = []
        for at, sign in ((a, 1.0), (b, -1.0)):
            if 0 <= at[0] < pointmap.shape[0] and 0 <= at[1] < pointmap.shape[1]:
                ways.append(sign * (pointmap[at].astype(np.float64) - pointmap[v, u]))
        return min(ways, key=lambda way: float(np.linalg.norm(way)))

    steps = np.linalg.norm(np.diff(pointmap, axis=1), axis=-1)
    ratio = np.median(steps / np.linalg.norm(pointmap[:, 1:], axis=-1))
    footprint = ratio * np.linalg.norm(pointmap[v, u])
    right, down = shorter((v, u + 1), (v, u - 1)), shorter((v + 1, u), (v - 1, u))
    normal = np.cross(right, down)
    normal /= np.linalg.norm(normal)
    normal *= -np.sign(normal @ pointmap[v, u])
    first = right / np.linalg.norm(right)
    second = np.cross(normal, first)
    wide = np.clip(np.linalg.norm(right), 0.5 * footprint, 4 * footprint)
    high = np.clip(abs(down @ second), 0.5 * footprint, 4 * footprint)
    sigma = discs.WIDTH * np.array([wide, high, discs.FLATNESS * min(wide, high)])
    axes = np.stack([first, second, normal], axis=-1)
    return normal, axes @ np.diag(sigma**2) @ axes.T
