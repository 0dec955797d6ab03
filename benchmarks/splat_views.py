# SPDX-License-Identifier: Apache-2.0
"""Held-out views for splats: places whose picture and depth are known, and scores of pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import mesh_room
import numpy as np
import open3d as o3d
from jaxtyping import Bool, Float, Float32, Float64, UInt8

from worldsystem_core.frames import Camera
from worldsystem_core.geometry.pinhole import pointmap_from_depth, project
from worldsystem_core.geometry.se3 import inverse, look_at, transform
from worldsystem_core.reconstruction import Keyframe
from worldsystem_core.surface import Mesh

SOURCE = Camera.from_horizontal_fov(168, 126, np.radians(70.0))
TARGET = SOURCE.resized(336, 252)
SHIFTS = {  # right, forward [m], as in the research notes of the project
    "same view": (0.0, 0.0),
    "0.2 m right": (0.2, 0.0),
    "0.6 m right": (0.6, 0.0),
    "0.7 m forward": (0.0, 0.7),
    "1 m back": (0.0, -1.0),
}
BLACK = np.zeros(3, np.float32)
See = Callable[
    [Float64[np.ndarray, "4 4"], Camera],
    tuple[Float32[np.ndarray, "h w"], UInt8[np.ndarray, "h w 3"]],
]
"""Depth (NaN: sky) and picture from a pose through a camera."""


@dataclass(frozen=True, eq=False)
class Place:
    """A scene to look at, and where from."""

    name: str
    see: See
    pose: Float64[np.ndarray, "4 4"]


def room_place() -> Place:
    """The furnished room of the mesh benchmarks."""
    rooms = mesh_room.furnished(1)
    eye = np.array([1.2, 2.2, 1.4])
    pose = look_at(eye, eye + np.array([1.0, 0.15, -0.2]), np.array([0.0, 0.0, 1.0]))
    return Place("room", lambda p, camera: mesh_room.render(rooms, p, camera), pose)


def hamlet_places(times_s: tuple[float, ...]) -> list[Place]:
    """Moments of the simulator's demo flight."""
    from worldsystem_sim.config import SimConfig
    from worldsystem_sim.flight import flight
    from worldsystem_sim.render import Renderer
    from worldsystem_sim.scene import build_scene

    config = SimConfig()
    scene = build_scene(config.seed)
    path = flight(config.flight, config.seed, config.duration_s, scene)
    renderers: dict[int, Renderer] = {}

    def see(
        pose: Float64[np.ndarray, "4 4"], camera: Camera
    ) -> tuple[Float32[np.ndarray, "h w"], UInt8[np.ndarray, "h w 3"]]:
        renderer = renderers.setdefault(camera.width, Renderer(scene, camera))
        seen = renderer.render(pose)
        return np.where(np.isfinite(seen.depth_m), seen.depth_m, np.nan), seen.rgb

    return [Place(f"hamlet {t:.0f} s", see, path.world_from_cam(t)) for t in times_s]


def shifted(
    pose: Float64[np.ndarray, "4 4"], right: float, ahead: float
) -> Float64[np.ndarray, "4 4"]:
    """The pose moved along its own axes."""
    moved = pose.copy()
    moved[:3, 3] += right * pose[:3, 0] + ahead * pose[:3, 2]
    return moved


def keyframe_of(
    place: Place, pose: Float64[np.ndarray, "4 4"], number: int = 0, noise: float = 0.0
) -> Keyframe:
    """What a perfect back-end gives there, or one whose depth has `noise` (share of depth)."""
    depth, rgb = place.see(pose, SOURCE)
    factor = 1 + np.random.default_rng(number).normal(0, noise, depth.shape) if noise else 1.0
    return mesh_room.keyframe(number, pose, (depth * factor).astype(np.float32), rgb, SOURCE)


def visible(
    pose: Float64[np.ndarray, "4 4"],
    depth: Float32[np.ndarray, "h w"],
    keyframes: list[Keyframe],
) -> Bool[np.ndarray, "h w"]:
    """Pixels of a target view whose surface at least one keyframe has seen."""
    world = transform(pose, pointmap_from_depth(depth, TARGET).reshape(-1, 3).astype(np.float64))
    found = np.zeros(len(world), bool)
    for keyframe in keyframes:
        points = transform(inverse(keyframe.world_from_cam), world)
        pixels, inside = project(points, SOURCE)
        u, v = np.rint(np.nan_to_num(pixels)).astype(int).T
        seen = np.full(len(points), np.inf)
        seen[inside] = keyframe.pointmap[v[inside], u[inside], 2]
        found |= np.abs(seen - points[:, 2]) < 0.05 * points[:, 2]
    return found.reshape(depth.shape)


def psnr(
    a: UInt8[np.ndarray, "h w 3"],
    b: UInt8[np.ndarray, "h w 3"],
    where: Bool[np.ndarray, "h w"],
) -> float:
    """Peak signal to noise over some pixels [dB]."""
    error = (a.astype(np.float64) - b)[where]
    return float(10 * np.log10(255**2 / max(float((error**2).mean()), 1e-12)))


def ssim(
    a: UInt8[np.ndarray, "h w 3"],
    b: UInt8[np.ndarray, "h w 3"],
    where: Bool[np.ndarray, "h w"],
) -> float:
    """Structural similarity of brightness (Wang et al., 2004) over some pixels."""
    x, y = (cv2.cvtColor(p, cv2.COLOR_RGB2GRAY).astype(np.float64) for p in (a, b))

    def blurred(picture: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "h w"]:
        return np.asarray(cv2.GaussianBlur(picture, (11, 11), 1.5))

    mx, my = blurred(x), blurred(y)
    vx, vy, cxy = blurred(x * x) - mx**2, blurred(y * y) - my**2, blurred(x * y) - mx * my
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    found = (2 * mx * my + c1) * (2 * cxy + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    return float(found[where].mean())


def points_picture(
    keyframes: list[Keyframe], pose: Float64[np.ndarray, "4 4"], size_px: int
) -> UInt8[np.ndarray, "h w 3"]:
    """All points as squares, the nearest in front: what a point cloud looks like."""
    points, colours = [], []
    for keyframe in keyframes:
        known = np.isfinite(keyframe.pointmap).all(axis=-1)
        world = transform(keyframe.world_from_cam, keyframe.pointmap[known].astype(np.float64))
        points.append(transform(inverse(pose), world))
        colours.append(keyframe.rgb[known])
    seen, rgb = np.concatenate(points), np.concatenate(colours)
    order = np.argsort(-seen[:, 2])
    seen, rgb = seen[order], rgb[order]
    pixels, _ = project(seen, TARGET)
    picture = np.zeros((TARGET.height, TARGET.width, 3), np.uint8)
    for du in range(size_px):
        for dv in range(size_px):
            offset = np.array([du - (size_px - 1) / 2, dv - (size_px - 1) / 2])
            corner = np.nan_to_num(pixels, nan=-99) + offset
            u, v = np.rint(corner).astype(int).T
            inside = (u >= 0) & (v >= 0) & (u < TARGET.width) & (v < TARGET.height)
            picture[v[inside], u[inside]] = rgb[inside]
    return picture


def mesh_picture(mesh: Mesh, pose: Float64[np.ndarray, "4 4"]) -> UInt8[np.ndarray, "h w 3"]:
    """The surface with its vertex colours, by exact rays (Open3D)."""
    scene = o3d.t.geometry.RaycastingScene()
    scene.add_triangles(
        o3d.core.Tensor.from_numpy(mesh.vertices),
        o3d.core.Tensor.from_numpy(mesh.faces.astype(np.uint32)),
    )
    v, u = np.mgrid[0 : TARGET.height, 0 : TARGET.width]
    rays = np.stack(
        [(u - TARGET.cx) / TARGET.fx, (v - TARGET.cy) / TARGET.fy, np.ones(u.shape)], -1
    )
    world = rays.reshape(-1, 3) @ pose[:3, :3].T
    eyes = np.broadcast_to(pose[:3, 3], world.shape)
    hit = scene.cast_rays(
        o3d.core.Tensor.from_numpy(np.concatenate([eyes, world], 1).astype(np.float32))
    )
    triangle = hit["primitive_ids"].numpy().astype(np.int64)
    met = np.isfinite(hit["t_hit"].numpy())
    uv = hit["primitive_uvs"].numpy()[met]
    corners = mesh.colours[mesh.faces[triangle[met]]].astype(np.float32)
    shares = np.stack([1 - uv.sum(axis=1), uv[:, 0], uv[:, 1]], axis=1)
    picture = np.zeros((TARGET.height * TARGET.width, 3), np.uint8)
    picture[met] = np.rint((corners * shares[..., None]).sum(axis=1))
    return picture.reshape(TARGET.height, TARGET.width, 3)
