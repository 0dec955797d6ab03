# SPDX-License-Identifier: Apache-2.0
"""A slanted wall and a box before it, of which every pixel's place and normal are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from worldsystem_core.frames import Camera
from worldsystem_core.geometry.se3 import look_at
from worldsystem_core.reconstruction import Keyframe, Successor
from worldsystem_core.splats.discs import discs_from_pointmap
from worldsystem_core.splats.world import SplatWorld

CAMERA = Camera.from_horizontal_fov(48, 36, np.radians(60.0))


def plane_pointmap(normal, distance, camera=CAMERA):
    """Camera-frame points of the plane n·p = -distance (n towards the camera)."""
    v, u = np.mgrid[0 : camera.height, 0 : camera.width]
    rays = np.stack(
        [(u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy, np.ones(u.shape)], -1
    )
    return (rays * (-distance / (rays @ normal))[..., None]).astype(np.float32)


def wall_seen_from(eye, number, *, wall_y=3.0, camera=CAMERA, target=None):
    """A keyframe of the wall y = `wall_y` (world, z up), coloured by a smooth pattern."""
    eye = np.asarray(eye, dtype=np.float64)
    ahead = eye + np.array([0.0, 1.0, 0.0])
    target = ahead if target is None else np.asarray(target, dtype=np.float64)
    pose = look_at(eye, target, np.array([0.0, 0.0, 1.0]))
    v, u = np.mgrid[0 : camera.height, 0 : camera.width]
    rays = np.stack(
        [(u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy, np.ones(u.shape)], -1
    )
    world_rays = rays @ pose[:3, :3].T
    depth = (wall_y - eye[1]) / world_rays[..., 1]
    places = eye + world_rays * depth[..., None]
    waves = np.stack([np.sin(5 * places[..., 0]), np.sin(7 * places[..., 2]), 0 * depth], -1)
    return Keyframe(
        id=number,
        frame_id=number,
        stamp_ns=number + 1,
        world_from_cam=pose,
        camera=camera,
        pointmap=(rays * depth[..., None]).astype(np.float32),
        confidence=np.ones(depth.shape, np.float32),
        rgb=(127 + 100 * waves).astype(np.uint8),
    )


def rounds(world: SplatWorld, first: int, end: int, *, strips: int = 24) -> None:
    """Rounds along five walls 30 apart: in each a keyframe of every wall stands in for the one of
    the round before, and adds one of so many strips. Dots so small that none covers another."""
    for number in range(5 * first, 5 * end):
        place, lap = number % 5, number // 5
        keyframe = wall_seen_from([30.0 * place, 0, 0], number)
        dots = discs_from_pointmap(keyframe.pointmap, keyframe.rgb, keyframe.confidence)
        strip = dots[np.arange(len(dots)) % strips == lap]
        world.add_gaussians(keyframe, replace(strip, scales=0.1 * strip.scales))
        if lap:
            world.hang_on({number - 5: Successor(number, keyframe.world_from_cam, 1.0)})
