# SPDX-License-Identifier: Apache-2.0
"""Scenes whose every pixel's object is known, rendered by ray casting; z is up, units are metres.

Truth ids: 0 = structure or sky, 1… = objects in the order they were put in.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
import open3d as o3d

from worldsystem_core.frames import Camera
from worldsystem_core.geometry.pinhole import pointmap_from_depth
from worldsystem_core.geometry.se3 import look_at
from worldsystem_core.reconstruction import Keyframe

CAMERA = Camera.from_horizontal_fov(320, 180, np.deg2rad(70.0))
UP = np.array([0.0, 0.0, 1.0])
Colour = tuple[int, int, int]


@dataclass
class Scene:
    """Meshes with a truth id and a colour each."""

    meshes: list[tuple[o3d.geometry.TriangleMesh, int, Colour]] = field(default_factory=list)
    object_count: int = 0

    def structure(self, mesh: o3d.geometry.TriangleMesh, colour: Colour) -> None:
        self.meshes.append((mesh, 0, colour))

    def put(self, *parts: o3d.geometry.TriangleMesh, colour: Colour) -> int:
        """Add one object made of `parts`; returns its truth id."""
        self.object_count += 1
        for part in parts:
            self.meshes.append((part, self.object_count, colour))
        return self.object_count

    def caster(self, camera: Camera = CAMERA) -> Caster:
        return Caster(self, camera)


class Caster:
    """Renders keyframes of a scene."""

    def __init__(self, scene: Scene, camera: Camera = CAMERA) -> None:
        self.camera = camera
        self._scene = o3d.t.geometry.RaycastingScene()
        self._ids, self._colours, self._centres = [], [], []
        for mesh, truth_id, colour in scene.meshes:
            self._scene.add_triangles(o3d.t.geometry.TriangleMesh.from_legacy(mesh))
            self._ids.append(truth_id)
            self._colours.append(colour)
            self._centres.append(mesh.get_center())

    def shot(
        self, index: int, eye, target, *, noise: float = 0.0, scale: float = 1.0, texture=0.0
    ) -> tuple[Keyframe, np.ndarray]:
        """Keyframe `index` from `eye` towards `target`, and the truth ids of its pixels.

        `noise` is the relative error of depth along the ray: four fifths of it smooth over some
        12 of 320 px, as networks err, the rest white. `scale` multiplies the whole world.
        `texture` is the contrast of a pattern that each thing carries along with it.
        """
        world_from_cam = look_at(np.asarray(eye, float), np.asarray(target, float), UP)
        # Open3D's own rays go through the pixel's corner + 0.5; our centres are at integers
        rays = _rays(self.camera, world_from_cam)
        cast = self._scene.cast_rays(o3d.core.Tensor(rays))
        depth = cast["t_hit"].numpy().astype(np.float32)
        hit = cast["geometry_ids"].numpy().astype(np.int64)
        known = np.isfinite(depth)
        hit = np.where(known, hit, len(self._ids))
        truth = np.append(self._ids, 0)[hit]
        if texture:
            where = rays[..., :3] + rays[..., 3:] * np.where(known, depth, 0)[..., None]
            local = where - np.array([*self._centres, (0, 0, 0)])[hit]
            pattern = 1.0 + texture * _pattern(local)
        depth = depth * np.float32(scale) * _errors(self.camera, index, noise)
        shade = 0.65 + 0.35 * np.abs(cast["primitive_normals"].numpy() @ np.array([0.3, 0.5, 0.8]))
        shade = shade * pattern if texture else shade
        rgb = (
            np.array([*self._colours, (160, 190, 230)])[hit]
            * np.where(known, shade, 1.0)[..., None]
        )
        pose = world_from_cam.copy()
        pose[:3, 3] *= scale
        keyframe = Keyframe(
            id=index,
            frame_id=10 * index,
            stamp_ns=1_000_000 * index,
            world_from_cam=pose,
            camera=self.camera,
            pointmap=pointmap_from_depth(np.where(known, depth, np.nan), self.camera),
            confidence=known.astype(np.float32),
            rgb=np.clip(rgb, 0, 255).astype(np.uint8),
        )
        return keyframe, truth


def _rays(camera: Camera, world_from_cam: np.ndarray):
    # directions with z = 1 in the camera frame, so that t_hit is the depth
    u, v = np.meshgrid(np.arange(camera.width), np.arange(camera.height))
    directions = np.stack(
        [(u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy, np.ones_like(u)], axis=-1
    )
    bundle = np.empty((camera.height, camera.width, 6))
    bundle[..., :3] = world_from_cam[:3, 3]
    bundle[..., 3:] = directions @ world_from_cam[:3, :3].T
    return bundle.astype(np.float32)


def _pattern(local: np.ndarray) -> np.ndarray:
    """Waves of some 10 to 40 cm in all directions, about in [-1, 1]."""
    waves = np.random.default_rng(5).standard_normal((3, 12)) * np.linspace(9.0, 36.0, 12)
    return np.sin(local.astype(np.float32) @ waves.astype(np.float32)).mean(axis=-1) * 2.0


def _errors(camera: Camera, seed: int, noise: float) -> np.ndarray:
    random = np.random.default_rng(seed)
    shape = (camera.height, camera.width)
    sigma_px = 12.0 * camera.width / CAMERA.width
    smooth = cv2.GaussianBlur(random.standard_normal(shape).astype(np.float32), (0, 0), sigma_px)
    smooth /= smooth.std()
    white = random.standard_normal(shape).astype(np.float32)
    return 1.0 + np.float32(noise) * (0.8 * smooth + 0.6 * white * 0.33)


def box(centre, size, yaw_rad: float = 0.0) -> o3d.geometry.TriangleMesh:
    mesh = o3d.geometry.TriangleMesh.create_box(*size)
    mesh.translate(-0.5 * np.asarray(size))
    mesh.rotate(o3d.geometry.get_rotation_matrix_from_xyz((0, 0, yaw_rad)), (0, 0, 0))
    return mesh.translate(centre)


def ball(centre, radius: float) -> o3d.geometry.TriangleMesh:
    return o3d.geometry.TriangleMesh.create_sphere(radius, 24).translate(centre)


def cylinder(centre, radius: float, height: float) -> o3d.geometry.TriangleMesh:
    return o3d.geometry.TriangleMesh.create_cylinder(radius, height, 32).translate(centre)


def gable_roof(centre, size) -> o3d.geometry.TriangleMesh:
    """Prism with its ridge along x; `centre` is the middle of its base."""
    x, y, z = 0.5 * size[0], 0.5 * size[1], size[2]
    corners = [(-x, -y, 0), (x, -y, 0), (x, y, 0), (-x, y, 0), (-x, 0, z), (x, 0, z)]
    faces = [(0, 1, 5), (0, 5, 4), (2, 3, 4), (2, 4, 5), (0, 4, 3), (1, 2, 5), (0, 2, 1), (0, 3, 2)]
    return o3d.geometry.TriangleMesh(
        o3d.utility.Vector3dVector(np.array(corners, float) + np.asarray(centre)),
        o3d.utility.Vector3iVector(faces),
    )


def room() -> Scene:
    """A 6 by 6 m room with nine objects on its floor."""
    scene = Scene()
    scene.structure(box((0, 0, -0.05), (6, 6, 0.1)), (150, 140, 130))
    for centre, size in (
        ((0, 3.05, 1.3), (6, 0.1, 2.6)), ((0, -3.05, 1.3), (6, 0.1, 2.6)),
        ((3.05, 0, 1.3), (0.1, 6, 2.6)), ((-3.05, 0, 1.3), (0.1, 6, 2.6)),
    ):  # fmt: skip
        scene.structure(box(centre, size), (205, 200, 190))
    scene.put(box((-1.2, 1.6, 0.25), (0.5, 0.5, 0.5), 0.3), colour=(200, 30, 30))
    scene.put(box((0.2, 2.1, 0.4), (0.9, 0.5, 0.8), -0.2), colour=(40, 60, 200))
    scene.put(ball((0.9, 0.9, 0.3), 0.3), colour=(230, 210, 40))
    scene.put(ball((-0.4, 0.7, 0.22), 0.22), colour=(40, 160, 60))
    scene.put(cylinder((1.9, 1.8, 0.5), 0.25, 1.0), colour=(240, 240, 240))
    scene.put(box((-2.2, 0.3, 0.35), (0.6, 0.8, 0.7), 0.1), colour=(120, 60, 150))
    scene.put(box((2.2, 0.2, 0.2), (0.5, 0.7, 0.4), 0.6), colour=(230, 120, 30))
    scene.put(box((1.6, -1.4, 0.3), (0.6, 0.6, 0.6), 0.8), colour=(60, 60, 60))
    scene.put(cylinder((-1.5, -1.3, 0.3), 0.3, 0.6), colour=(200, 40, 40))
    return scene


ROOM_EYE = (0.0, -2.5, 1.7)


def ground_height(x, y):
    """A hilly meadow: 0.8 m of relief over tens of metres, and a slope."""
    return 0.5 * np.sin(x / 6.0) * np.cos(y / 8.0) + 0.3 * np.sin(y / 5.0 + 1.0) + 0.03 * x


def hamlet() -> Scene:
    """Three houses, four crates, a barrel and two round trees on a hilly meadow."""
    scene = Scene()
    grid = np.linspace(-45, 45, 121)
    x, y = np.meshgrid(grid, grid, indexing="ij")
    corners = np.stack([x, y, ground_height(x, y)], axis=-1).reshape(-1, 3)
    n = len(grid)
    i = (np.arange(n - 1)[:, None] * n + np.arange(n - 1)).ravel()
    faces = np.concatenate([np.stack([i, i + n, i + 1], 1), np.stack([i + 1, i + n, i + n + 1], 1)])
    meadow = o3d.geometry.TriangleMesh(
        o3d.utility.Vector3dVector(corners), o3d.utility.Vector3iVector(faces)
    )
    scene.structure(meadow, (95, 130, 60))
    for (hx, hy), size, colour in (
        ((-6, 4), (6, 4.5, 2.6), (225, 215, 195)),
        ((5, 7), (5, 4, 2.8), (190, 90, 60)),
        ((0, -7), (5, 4, 2.6), (150, 150, 160)),
    ):
        base = ground_height(hx, hy) - 0.3
        body = box((hx, hy, base + 0.5 * size[2]), size)
        roof = gable_roof((hx, hy, base + size[2]), (size[0], size[1] + 0.02, 1.6))
        scene.put(body, roof, colour=colour)
    for (cx, cy), edge, colour in (
        ((1.5, 2.0), 1.2, (200, 40, 40)), ((-2.0, -1.0), 1.0, (50, 70, 190)),
        ((6.0, 0.5), 1.3, (220, 180, 50)), ((-7.0, -3.0), 1.2, (120, 80, 50)),
    ):  # fmt: skip
        base = ground_height(cx, cy) - 0.1
        scene.put(box((cx, cy, base + 0.5 * edge), (edge,) * 3, 0.4), colour=colour)
    bx, by = 3.5, -3.0
    scene.put(cylinder((bx, by, ground_height(bx, by) + 0.6), 0.6, 1.3), colour=(90, 90, 95))
    for tx, ty in ((-1.0, 8.0), (9.0, -4.0)):
        base = ground_height(tx, ty)
        trunk = cylinder((tx, ty, base + 0.6), 0.25, 1.6)
        scene.put(trunk, ball((tx, ty, base + 2.4), 1.4), colour=(50, 110, 45))
    return scene


def hamlet_view(angle_rad: float, height: float = 10.0, radius: float = 15.0):
    """Eye and target of a camera that circles the hamlet and looks at it obliquely."""
    eye = (radius * np.cos(angle_rad), radius * np.sin(angle_rad), height)
    return eye, (0.0, 0.0, 0.5)
