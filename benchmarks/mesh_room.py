# SPDX-License-Identifier: Apache-2.0
"""Furnished rooms in a row whose surface is known by formula, and a camera that flies through.

Rays meet boxes and balls exactly, and `distance` is the exact signed distance to the nearest of
them, so that the error of a mesh is measured without sampling a reference.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import cv2
import numpy as np
from jaxtyping import Float32, Float64, UInt8

from worldsystem_core.frames import Camera
from worldsystem_core.geometry.pinhole import pointmap_from_depth
from worldsystem_core.geometry.se3 import look_at
from worldsystem_core.reconstruction import Keyframe, ScaleState

ROOM_M = np.array([6.0, 4.5, 2.7])
DOOR_M = 1.4
CAMERA = Camera.from_horizontal_fov(224, 224, np.radians(62.0))
UP = np.array([0.0, 0.0, 1.0])
LOW_FREQUENCY_NOISE = 0.008
PIXEL_NOISE_M = 0.003


@dataclass(frozen=True, eq=False)
class Rooms:
    """A hall `extent_m` long with `boxes` (n low/high 3) and `balls` (m centre+radius) in it."""

    extent_m: Float64[np.ndarray, "3"]
    boxes: Float64[np.ndarray, "n 2 3"]
    balls: Float64[np.ndarray, "m 4"]
    colours: Float64[np.ndarray, "n+m 3"]

    def distance(self, points: Float64[np.ndarray, "p 3"]) -> Float64[np.ndarray, "p"]:
        """Signed distance to the nearest surface [m], positive in the air."""
        nearest = np.minimum(points, self.extent_m - points).min(axis=-1)
        for low, high in self.boxes:
            outside = np.maximum(low - points, points - high)
            box = np.linalg.norm(np.maximum(outside, 0.0), axis=-1)
            nearest = np.minimum(nearest, box + np.minimum(outside.max(axis=-1), 0.0))
        for ball in self.balls:
            nearest = np.minimum(nearest, np.linalg.norm(points - ball[:3], axis=-1) - ball[3])
        return np.asarray(nearest)


def furnished(rooms: int, seed: int = 0) -> Rooms:
    """`rooms` rooms with doorways between them; furniture along the walls, balls on the floor."""
    rng = np.random.default_rng(seed)
    boxes: list[list[list[float]]] = []
    balls: list[list[float]] = []
    length, width, height = ROOM_M
    for room in range(rooms):
        x0 = room * length
        for _ in range(9):
            size = rng.uniform([0.3, 0.3, 0.3], [1.0, 0.8, 1.1])
            x = rng.uniform(x0 + 0.1, x0 + length - 1.1)
            y = rng.choice([rng.uniform(0.05, 0.6), rng.uniform(width - 1.4, width - 0.9)])
            boxes.append([[x, y, 0.0], [x + size[0], y + size[1], size[2]]])
        for _ in range(3):
            x, z = rng.uniform(x0 + 0.3, x0 + length - 1.2), rng.uniform(0.9, 1.6)
            boxes.append([[x, width - 0.15, z], [x + 0.8, width, z + 0.4]])
        for _ in range(6):
            radius = rng.uniform(0.12, 0.35)
            x, y = rng.uniform([x0 + 0.6, 0.6], [x0 + length - 0.6, width - 0.6])
            balls.append([x, y, radius + rng.choice([0.0, 0.75]), radius])
        if room:
            left, right = width / 2 - DOOR_M / 2, width / 2 + DOOR_M / 2
            boxes.append([[x0 - 0.06, 0.0, 0.0], [x0 + 0.06, left, height]])
            boxes.append([[x0 - 0.06, right, 0.0], [x0 + 0.06, width, height]])
    colours = rng.uniform(0.2, 1.0, (len(boxes) + len(balls), 3))
    return Rooms(
        np.array([rooms * length, width, height]), np.array(boxes), np.array(balls), colours
    )


def flight(rooms: Rooms, count: int) -> list[Float64[np.ndarray, "4 4"]]:
    """Poses of a flight along the hall that looks all around 1.6 times in each room."""
    poses, length = [], rooms.extent_m[0]
    turns = 1.6 * length / ROOM_M[0]
    for at in np.linspace(0.0, 1.0, count):
        sway = 0.35 * np.sin(4.5 * at * length / ROOM_M[0])
        eye = np.array(
            [1.0 + at * (length - 2.0), ROOM_M[1] / 2 + sway, 1.35 + 0.2 * np.sin(7 * at)]
        )
        angle = 2 * np.pi * turns * at
        gaze = np.array([np.cos(angle), np.sin(angle), -0.25 + 0.2 * np.sin(1.3 * angle)])
        poses.append(look_at(eye, eye + gaze, UP))
    return poses


def render(
    rooms: Rooms, world_from_cam: Float64[np.ndarray, "4 4"], camera: Camera = CAMERA
) -> tuple[Float32[np.ndarray, "h w"], UInt8[np.ndarray, "h w 3"]]:
    """Exact depth [m] and a chequered colour image from a place inside the hall."""
    v, u = np.mgrid[0 : camera.height, 0 : camera.width]
    rays = np.stack(
        [(u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy, np.ones(u.shape)], -1
    )
    rays = rays.reshape(-1, 3) @ world_from_cam[:3, :3].T
    eye = world_from_cam[:3, 3]
    inverse = 1.0 / np.where(np.abs(rays) < 1e-12, 1e-12, rays)
    depth = np.maximum(-eye * inverse, (rooms.extent_m - eye) * inverse).min(axis=-1)
    hit = np.full(len(rays), -1)
    for i in _near(rooms.boxes[:, 0, 0], eye):
        low, high = rooms.boxes[i]
        near, far = (low - eye) * inverse, (high - eye) * inverse
        enter = np.minimum(near, far).max(axis=-1)
        met = (enter <= np.maximum(near, far).min(axis=-1)) & (enter > 0) & (enter < depth)
        depth[met], hit[met] = enter[met], i
    squared = (rays * rays).sum(axis=-1)
    for i in _near(rooms.balls[:, 0], eye):
        ball = rooms.balls[i]
        offset = eye - ball[:3]
        along = rays @ offset
        under_root = along * along - squared * (offset @ offset - ball[3] ** 2)
        enter = (-along - np.sqrt(np.maximum(under_root, 0.0))) / squared
        met = (under_root > 0) & (enter > 0) & (enter < depth)
        depth[met], hit[met] = enter[met], len(rooms.boxes) + i
    points = eye + rays * depth[:, None]
    colour = np.where(hit[:, None] < 0, [0.85, 0.82, 0.78], rooms.colours[hit])
    colour = colour * (0.75 + 0.25 * (np.floor(4.0 * points + 1e-6).sum(-1) % 2))[:, None]
    shape = (camera.height, camera.width)
    image = (255 * np.clip(colour, 0, 1)).astype(np.uint8).reshape(*shape, 3)
    return depth.astype(np.float32).reshape(shape), image


def _near(x: Float64[np.ndarray, "n"], eye: Float64[np.ndarray, "3"]) -> list[int]:
    """Things within two rooms; through two doorways nothing farther is seen but walls."""
    return [int(i) for i in np.nonzero(np.abs(x - eye[0]) < 2.5 * ROOM_M[0])[0]]


def learned_noise(depth: Float32[np.ndarray, "h w"], seed: int) -> Float32[np.ndarray, "h w"]:
    """Depth as wrong as a network's: 0.8 % of smooth warping and 3 mm of pixel noise."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(0.0, LOW_FREQUENCY_NOISE, (5, 5)).astype(np.float32)
    smooth = cv2.resize(coarse, depth.shape[::-1], interpolation=cv2.INTER_CUBIC)
    pixel = rng.normal(0.0, PIXEL_NOISE_M, depth.shape)
    return np.asarray(depth * (1.0 + smooth) + pixel, dtype=np.float32)


def keyframe(
    number: int,
    pose: Float64[np.ndarray, "4 4"],
    depth: Float32[np.ndarray, "h w"],
    rgb: UInt8[np.ndarray, "h w 3"],
    camera: Camera = CAMERA,
) -> Keyframe:
    """A keyframe of full confidence."""
    return Keyframe(
        id=number,
        frame_id=number,
        stamp_ns=number,
        world_from_cam=pose,
        camera=camera,
        pointmap=pointmap_from_depth(depth, camera),
        confidence=np.ones(depth.shape, np.float32),
        rgb=rgb,
        scale=ScaleState.METRIC,
    )


def film(
    rooms: Rooms, count: int, *, noisy: bool = False, camera: Camera = CAMERA
) -> list[Keyframe]:
    """`count` keyframes of the flight."""

    def one(job: tuple[int, Float64[np.ndarray, "4 4"]]) -> Keyframe:
        number, pose = job
        depth, rgb = render(rooms, pose, camera)
        return keyframe(number, pose, learned_noise(depth, number) if noisy else depth, rgb, camera)

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(one, enumerate(flight(rooms, count))))


def flown_again(keyframes: list[Keyframe]) -> list[Keyframe]:
    """The same flight once more, as keyframes of their own."""
    return _shifted(keyframes, len(keyframes))


def renumbered(keyframes: list[Keyframe], time: int) -> list[Keyframe]:
    """A part of a flight flown for the `time`-th time more, as keyframes of their own."""
    return _shifted(keyframes, 1_000_000 * time)


def _shifted(keyframes: list[Keyframe], by: int) -> list[Keyframe]:
    return [replace(k, id=k.id + by, frame_id=k.frame_id + by) for k in keyframes]
