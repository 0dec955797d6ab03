# SPDX-License-Identifier: Apache-2.0
"""Pictures of a mesh by casting rays on the CPU: no window, no graphics driver."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import open3d as o3d
from jaxtyping import Float, Float32, UInt8

from worldsystem.charts.views import View
from worldsystem.evaluation.surface import without_broken_faces
from worldsystem_core.geometry.se3 import inverse, transform
from worldsystem_core.surface import Mesh
from worldsystem_core.trajectory import StampedPoses

OVERSAMPLING = 2
MAX_LAYERS = 6
AMBIENT = 0.5
PLAIN_GREY = (176, 182, 192)
FACING_RAYS = 16
FACING_POSES = 12


@dataclass(frozen=True, eq=False)
class Picture:
    """A rendered view: transparent where there is no surface, where `depth` is infinite."""

    rgba: UInt8[np.ndarray, "h w 4"]
    depth: Float32[np.ndarray, "h w"]


class MeshRenderer:
    """Draws one mesh from any view.

    When `poses` show which side of the faces the camera saw, the other side is not drawn: a room
    is then open towards the viewer like a doll's house.
    """

    def __init__(self, mesh: Mesh, poses: StampedPoses | None = None) -> None:
        mesh = without_broken_faces(mesh)
        self._faces = mesh.faces
        self._colours = mesh.colours
        if len(mesh.colours) and not np.ptp(mesh.colours, axis=0).any():
            self._colours = np.full_like(mesh.colours, PLAIN_GREY)
        self._scene = o3d.t.geometry.RaycastingScene()
        if len(mesh.faces):
            vertices = np.ascontiguousarray(np.nan_to_num(mesh.vertices), np.float32)
            self._scene.add_triangles(
                o3d.core.Tensor.from_numpy(vertices),
                o3d.core.Tensor.from_numpy(mesh.faces.astype(np.uint32)),
            )
        self._seen_side = self._side_towards(poses) if poses is not None else 0.0

    def render(self, view: View, colours: UInt8[np.ndarray, "v 3"] | None = None) -> Picture:
        """Draw the mesh with its own vertex colours or with `colours`, shaded by a soft light."""
        h, w = view.camera.height * OVERSAMPLING, view.camera.width * OVERSAMPLING
        rays = _rays(view, w, h)
        rgba = np.zeros((h * w, 4), np.float32)
        depth = np.full(h * w, np.inf, np.float32)
        if len(self._faces):
            hit, faces, uvs, normals = self._cast(rays, depth)
            shade = _shade(normals, rays[hit, 3:], view)
            tint = self._colours if colours is None else colours
            rgba[hit, :3] = self._interpolated(tint, faces, uvs) * shade[:, None] * 255.0
            rgba[hit, 3] = 255.0
        return _averaged(rgba.reshape(h, w, 4), depth.reshape(h, w))

    def _cast(
        self, rays: np.ndarray, depth: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Nearest drawn surface along every ray, whose distance goes into `depth`."""
        faces = np.zeros(len(rays), np.int64)
        uvs = np.zeros((len(rays), 2), np.float32)
        normals = np.zeros((len(rays), 3), np.float32)
        open_rays = np.arange(len(rays))
        travelled = np.zeros(len(rays), np.float32)
        for _ in range(MAX_LAYERS):
            moved = rays[open_rays].copy()
            moved[:, :3] += moved[:, 3:] * travelled[open_rays, None]
            answer = self._scene.cast_rays(o3d.core.Tensor.from_numpy(moved))
            t = answer["t_hit"].numpy()
            normal = answer["primitive_normals"].numpy()
            struck = np.isfinite(t)
            hidden = struck & (self._seen_side * (normal * moved[:, 3:]).sum(axis=1) > 0)
            drawn = struck & ~hidden
            at = open_rays[drawn]
            depth[at] = travelled[at] + t[drawn]
            faces[at] = answer["primitive_ids"].numpy()[drawn]
            uvs[at] = answer["primitive_uvs"].numpy()[drawn]
            normals[at] = normal[drawn]
            open_rays = open_rays[hidden]
            travelled[open_rays] += t[hidden] * 1.0001 + 1e-5
            if not len(open_rays):
                break
        hit = np.nonzero(np.isfinite(depth))[0]
        return hit, faces[hit], uvs[hit], normals[hit]

    def _interpolated(self, colours: np.ndarray, faces: np.ndarray, uvs: np.ndarray) -> np.ndarray:
        corners = colours[self._faces[faces]].astype(np.float32) / 255.0
        weights = np.concatenate([1.0 - uvs.sum(axis=1, keepdims=True), uvs], axis=1)
        return np.asarray(np.einsum("nc,ncd->nd", weights, corners))

    def _side_towards(self, poses: StampedPoses) -> float:
        """+1 when the cameras saw the faces' front, -1 their back, 0 when it is not clear."""
        finite = poses.world_from_cam[np.isfinite(poses.world_from_cam).all(axis=(1, 2))]
        if not len(finite) or not len(self._faces):
            return 0.0
        chosen = finite[np.linspace(0, len(finite) - 1, FACING_POSES).astype(int)]
        slope = np.linspace(-0.5, 0.5, FACING_RAYS, dtype=np.float32)
        x, y = np.meshgrid(slope, slope)
        ahead = np.stack([x, y, np.ones_like(x)], axis=-1).reshape(-1, 3)
        rays = [
            np.concatenate([np.broadcast_to(pose[:3, 3], ahead.shape), ahead @ pose[:3, :3].T], 1)
            for pose in chosen
        ]
        cast = np.concatenate(rays).astype(np.float32)
        answer = self._scene.cast_rays(o3d.core.Tensor.from_numpy(cast))
        struck = np.isfinite(answer["t_hit"].numpy())
        towards = (answer["primitive_normals"].numpy() * cast[:, 3:]).sum(axis=1)[struck] < 0
        share = float(towards.mean()) if len(towards) else 0.5
        return 1.0 if share > 0.85 else -1.0 if share < 0.15 else 0.0


def with_path(
    picture: Picture,
    view: View,
    positions: Float[np.ndarray, "n 3"],
    colour: tuple[int, int, int],
) -> Picture:
    """Draw a path into a picture, faint where the surface hides it; ends get a dot."""
    positions = positions[np.isfinite(positions).all(axis=1)]
    at_cam = transform(inverse(view.world_from_cam), positions.astype(np.float64))
    at_cam = at_cam[at_cam[:, 2] > 1e-6]
    if not len(at_cam):
        return picture
    camera = view.camera
    pixels = at_cam[:, :2] / at_cam[:, 2:] * (camera.fx, camera.fy) + (camera.cx, camera.cy)
    hidden = _hidden(picture.depth, pixels, at_cam[:, 2])
    layer, strength = np.zeros((*picture.depth.shape, 3), np.uint8), np.zeros_like(picture.depth)
    layer[:] = colour
    for i in range(len(pixels) - 1):
        ends = [tuple(int(v) for v in np.clip(p * 16, -3e5, 3e5)) for p in pixels[i : i + 2]]
        opacity = 0.3 if hidden[i] and hidden[i + 1] else 1.0
        cv2.line(strength, ends[0], ends[1], opacity, 2, cv2.LINE_8, 4)
    for at, radius in ((0, 5), (len(pixels) - 1, 7)):
        centre = tuple(int(v) for v in np.clip(pixels[at] * 16, -3e5, 3e5))
        cv2.circle(strength, centre, radius * 16, 1.0, -1, cv2.LINE_8, 4)
    return Picture(
        _blended(picture.rgba, layer, cv2.GaussianBlur(strength, (3, 3), 0.7)), picture.depth
    )


def _hidden(depth: np.ndarray, pixels: np.ndarray, distance: np.ndarray) -> np.ndarray:
    h, w = depth.shape
    u, v = np.clip(np.round(pixels), -1, max(h, w)).astype(int).T
    inside = (u >= 0) & (u < w) & (v >= 0) & (v < h)
    behind = np.zeros(len(pixels), bool)
    behind[inside] = depth[v[inside], u[inside]] < 0.995 * distance[inside]
    return behind


def _blended(rgba: np.ndarray, layer: np.ndarray, strength: np.ndarray) -> np.ndarray:
    under = rgba.astype(np.float32)
    alpha_under = under[..., 3:] / 255.0 * (1.0 - strength[..., None])
    alpha = strength[..., None] + alpha_under
    mixed = layer * strength[..., None] + under[..., :3] * alpha_under
    colour = np.divide(mixed, alpha, out=np.zeros_like(mixed), where=alpha > 0)
    return np.concatenate([colour, 255.0 * alpha], axis=2).round().astype(np.uint8)


def _rays(view: View, width: int, height: int) -> np.ndarray:
    camera = view.camera.resized(width, height)
    u, v = np.meshgrid(np.arange(width), np.arange(height))
    directions = np.stack(
        [(u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy, np.ones(u.shape)], axis=-1
    ).reshape(-1, 3)
    rays = np.empty((width * height, 6), np.float32)
    rays[:, :3] = view.world_from_cam[:3, 3]
    rays[:, 3:] = directions @ view.world_from_cam[:3, :3].T
    return rays


def _shade(normals: np.ndarray, directions: np.ndarray, view: View) -> np.ndarray:
    """Brightness by a light above the viewer's left shoulder; both sides of a face are lit."""
    light = view.world_from_cam[:3, :3] @ np.array([-0.35, -0.55, -0.76])
    facing = -np.sign((normals * directions).sum(axis=1))
    lit = np.clip(facing * (normals @ light.astype(np.float32)), 0.0, 1.0)
    return np.asarray(AMBIENT + (1.0 - AMBIENT) * lit)


def _averaged(rgba: np.ndarray, depth: np.ndarray) -> Picture:
    """Average the oversampled pixels, colours weighted by coverage; depth is the nearest."""
    k = OVERSAMPLING
    h, w = depth.shape[0] // k, depth.shape[1] // k
    tiles = rgba.reshape(h, k, w, k, 4)
    alpha = tiles[..., 3:]
    weight = alpha.sum(axis=(1, 3))
    colour = (tiles[..., :3] * alpha).sum(axis=(1, 3)) / np.maximum(weight, 1e-6)
    out = np.concatenate([colour, weight / (k * k)], axis=2)
    nearest = depth.reshape(h, k, w, k).min(axis=(1, 3))
    return Picture(out.round().astype(np.uint8), nearest)
