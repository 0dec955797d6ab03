# SPDX-License-Identifier: Apache-2.0
"""Keyframes of a sphere and of a plane, whose surfaces are known exactly."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from worldsystem_core.frames import Camera
from worldsystem_core.geometry.pinhole import pointmap_from_depth
from worldsystem_core.geometry.se3 import look_at
from worldsystem_core.reconstruction import Keyframe
from worldsystem_core.surface import Mesh
from worldsystem_mesh.config import MeshConfig
from worldsystem_mesh.mesher import Mesher

sys.path.insert(0, str(Path(__file__).parent))

CAMERA = Camera.from_horizontal_fov(160, 120, 1.0)
UP = np.array([0.1, 0.2, 1.0])


def keyframe(id: int, world_from_cam: np.ndarray, depth: np.ndarray) -> Keyframe:
    """A keyframe of full confidence wherever `depth` is known; its colour says the pixel."""
    v, u = np.mgrid[0 : CAMERA.height, 0 : CAMERA.width]
    return Keyframe(
        id=id,
        frame_id=id,
        stamp_ns=1000 + id,
        world_from_cam=world_from_cam,
        camera=CAMERA,
        pointmap=pointmap_from_depth(depth, CAMERA),
        confidence=np.isfinite(depth).astype(np.float32),
        rgb=np.stack([u, v, 0 * u + 40], axis=-1).astype(np.uint8),
    )


def pixel_rays() -> np.ndarray:
    v, u = np.mgrid[0 : CAMERA.height, 0 : CAMERA.width]
    return np.stack(
        [(u - CAMERA.cx) / CAMERA.fx, (v - CAMERA.cy) / CAMERA.fy, np.ones(u.shape)], axis=-1
    )


def sphere_depth(world_from_cam: np.ndarray, radius: float) -> np.ndarray:
    """Depth of a sphere around the origin; NaN beside it."""
    eye = world_from_cam[:3, 3]
    rays = pixel_rays() @ world_from_cam[:3, :3].T
    a, b, c = (rays**2).sum(-1), rays @ eye, eye @ eye - radius**2
    discriminant = b * b - a * c
    root = np.sqrt(np.maximum(discriminant, 0.0))
    return np.where(discriminant > 0, (-b - root) / a, np.nan)


def plane_depth(world_from_cam: np.ndarray) -> np.ndarray:
    """Depth of the plane z = 0; NaN where a ray does not meet it."""
    toward = pixel_rays() @ world_from_cam[2, :3]
    depth = np.where(np.abs(toward) > 1e-9, -world_from_cam[2, 3] / toward, np.nan)
    return np.where((depth > 0) & (depth < 10), depth, np.nan)


def fibonacci_eye(i: int, count: int, distance: float) -> np.ndarray:
    z = 1 - 2 * (i + 0.5) / count
    angle = i * np.pi * (3 - np.sqrt(5))
    flat = np.sqrt(1 - z * z)
    return distance * np.array([flat * np.cos(angle), flat * np.sin(angle), z])


@pytest.fixture
def sphere_keyframes() -> Callable[..., list[Keyframe]]:
    """Views of a sphere around the origin from all sides."""

    def make(count: int, *, radius: float = 1.0, distance: float = 3.0) -> list[Keyframe]:
        poses = [look_at(fibonacci_eye(i, count, distance), np.zeros(3), UP) for i in range(count)]
        return [keyframe(i, pose, sphere_depth(pose, radius)) for i, pose in enumerate(poses)]

    return make


@pytest.fixture
def plane_keyframes() -> Callable[[int], list[Keyframe]]:
    """Views of the plane z = 0 from above, moving along x by 1 each."""

    def make(count: int) -> list[Keyframe]:
        made = []
        for i in range(count):
            pose = look_at(np.array([i, 0.0, 2.0]), np.array([i + 0.3, 0.2, 0.0]), UP)
            made.append(keyframe(i, pose, plane_depth(pose)))
        return made

    return make


@pytest.fixture
def make_mesher() -> Iterator[Callable[..., Mesher]]:
    """Meshers on the CPU with a voxel of 0.05 unless told otherwise; closed afterwards.

    They draw every change at once, so that laws hold exactly."""
    made: list[Mesher] = []

    def make(**settings: object) -> Mesher:
        chosen = {"voxel": 0.05, "device": "cpu", "redraw_voxels": 0.0, **settings}
        made.append(Mesher(MeshConfig(**chosen)))
        return made[-1]

    yield make
    for mesher in made:
        mesher.close()


@pytest.fixture
def edge_uses() -> Callable[[Mesh], np.ndarray]:
    """How many faces share each undirected edge of a mesh."""

    def count(mesh: Mesh) -> np.ndarray:
        f = mesh.faces
        edges = np.sort(np.concatenate([f[:, [0, 1]], f[:, [1, 2]], f[:, [2, 0]]]), axis=1)
        return np.unique(edges, axis=0, return_counts=True)[1]

    return count


@pytest.fixture
def triangle_set() -> Callable[[Mesh], set[bytes]]:
    """A mesh's triangles as a set that does not depend on numbering or order."""

    def collect(mesh: Mesh) -> set[bytes]:
        return {
            np.roll(triangle, -int(np.lexsort(triangle.T)[0]), axis=0).tobytes()
            for triangle in mesh.vertices[mesh.faces]
        }

    return collect
