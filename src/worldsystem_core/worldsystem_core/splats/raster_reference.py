# SPDX-License-Identifier: Apache-2.0
"""The plain twins of rasteriser, discs and packing: one after the other, by the book."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float32, Float64, UInt32

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
    spread, axes = np.linalg.eigh(np.outer(right, right) + np.outer(down, down))
    ways = np.sqrt(np.maximum(spread, 0))  # the least of the three is 0, along the normal
    if ways[2] < discs.ROUND * ways[1]:
        first = right / np.linalg.norm(right)
        axes = np.stack([normal, first, np.cross(normal, first)], axis=-1)
        ways[1:] = np.linalg.norm(right), abs(down @ axes[:, 2])
    ways = np.clip(ways, 0.5 * footprint, 4 * footprint)
    ways[0] = discs.FLATNESS * footprint
    return normal, axes @ np.diag((discs.WIDTH * ways) ** 2) @ axes.T


def pack_plainly(gaussians: Gaussians) -> UInt32[np.ndarray, "n 4"]:
    """The packed words, one Gaussian after the other."""
    rows = []
    for i in range(len(gaussians)):
        rgba = [*gaussians.rgb[i], gaussians.opacities[i]]
        octets = [round(255 * min(max(float(c), 0.0), 1.0)) for c in rgba]
        logs = [
            (math.log(s) + 12) * 254 / 21 if s > math.exp(-30) else -1 for s in gaussians.scales[i]
        ]
        scales = [0 if step == -1 else min(max(round(step + 1), 1), 255) for step in logs]
        w, *axis = gaussians.rotations[i].astype(float) * (
            -1 if gaussians.rotations[i][0] < 0 else 1
        )
        length = math.sqrt(sum(part * part for part in axis))
        x, y, z = (part / length for part in axis) if length > 1e-6 else (1.0, 0.0, 0.0)
        total = abs(x) + abs(y) + abs(z)
        u, v = x / total, y / total
        if z < 0:
            u, v = (1 - abs(v)) * math.copysign(1, u), (1 - abs(u)) * math.copysign(1, v)
        turn = [round(127.5 * u + 127.5), round(127.5 * v + 127.5)]
        angle = round(2 * math.atan2(length, w) * 255 / math.pi)
        place = np.asarray(gaussians.means[i], np.float16).tobytes()
        rows.append(bytes(octets) + place + bytes(turn) + bytes(scales) + bytes([angle]))
    return np.frombuffer(b"".join(rows), "<u4").reshape(-1, 4)
