# SPDX-License-Identifier: Apache-2.0
"""The methods that mesh points: Poisson, ball pivoting, alpha shapes (Open3D), and NKSR.

Open3D holds the interpreter lock all the while, so these run in a process of their own (`worker`).
"""

from __future__ import annotations

import importlib.util
import math
from types import ModuleType
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from worldsystem_core.surface import Mesh
from worldsystem_mesh.methods.interface import RegionPoints

LEAST_POINTS = 16
SPACING = 1.0
"""Distance between neighbouring fused points [voxels]."""
FILL = 2.5
"""Poisson's surface is kept to this distance from a point [voxels]: holes of twice that are closed,
and the borders of what was seen do not grow by more."""
CUBE = 1.5
"""Poisson's cube over the points' extent; at 1.1 the surface bends where it nears the faces."""
NKSR_INSTALL = (
    "the package `nksr` of the Python index (0.0.0) is a placeholder without code; install "
    "NVIDIA's from https://github.com/nv-tlabs/NKSR (CUDA, non-commercial licence)"
)


class Tsdf:
    """The fused surface as it is: what the quality methods are measured against."""

    name = "tsdf"

    def mesh(self, region: RegionPoints) -> Mesh:
        return region.surface

    def missing(self) -> str:
        return ""


class Poisson:
    """Screened Poisson reconstruction (Kazhdan & Hoppe, ACM TOG 32(3), 2013)."""

    name = "poisson"

    def mesh(self, region: RegionPoints) -> Mesh:
        if len(region) < LEAST_POINTS:
            return Mesh.empty()
        o3d = _open3d()
        extent = float(np.ptp(region.points, axis=0).max()) * CUBE
        depth = max(4, min(8, math.ceil(math.log2(max(extent / SPACING, 16.0)))))
        found, _ = o3d.geometry.TriangleMesh.create_from_point_cloud_poisson(
            _cloud(o3d, region), depth=depth, scale=CUBE, n_threads=1
        )
        mesh = _mesh(found, region)
        near = cKDTree(region.points).query(mesh.vertices, distance_upper_bound=FILL)[0] < FILL
        return _with_vertices(mesh, near)

    def missing(self) -> str:
        return ""


class BallPivoting:
    """Ball pivoting (Bernardini et al., TVCG 5(4), 1999)."""

    name = "ball_pivoting"

    def mesh(self, region: RegionPoints) -> Mesh:
        if len(region) < LEAST_POINTS:
            return Mesh.empty()
        o3d = _open3d()
        radii = o3d.utility.DoubleVector([1.0 * SPACING, 1.6 * SPACING, 2.5 * SPACING])
        shape = o3d.geometry.TriangleMesh.create_from_point_cloud_ball_pivoting
        return _mesh(shape(_cloud(o3d, region), radii), region)

    def missing(self) -> str:
        return ""


class AlphaShape:
    """Alpha shape (Edelsbrunner & Mücke, ACM TOG 13(1), 1994), turned as the points' normals."""

    name = "alpha_shape"

    def mesh(self, region: RegionPoints) -> Mesh:
        if len(region) < LEAST_POINTS:
            return Mesh.empty()
        o3d = _open3d()
        with o3d.utility.VerbosityContextManager(o3d.utility.VerbosityLevel.Error):
            shape = o3d.geometry.TriangleMesh.create_from_point_cloud_alpha_shape
            mesh = _mesh(shape(_cloud(o3d, region), 3.0 * SPACING), region)
        return _turned_as_points(mesh, region)

    def missing(self) -> str:
        return ""


class Nksr:
    """Neural kernel surface reconstruction (Huang et al., CVPR 2023), where it is installed."""

    name = "nksr"

    def mesh(self, region: RegionPoints) -> Mesh:
        import nksr
        import torch

        from worldsystem_core.usable_gpu import gpu_problem

        if len(region) < LEAST_POINTS:
            return Mesh.empty()
        device = torch.device("cpu" if gpu_problem() else "cuda:0")
        points, normals = (
            torch.from_numpy(array).to(device) for array in (region.points, region.normals)
        )
        field = nksr.Reconstructor(device).reconstruct(points, normal=normals, voxel_size=SPACING)
        found = field.extract_dual_mesh(mise_iter=1)
        vertices = found.v.cpu().numpy().astype(np.float32)
        faces = found.f.cpu().numpy().astype(np.int32)
        return Mesh(vertices=vertices, colours=_nearest_colours(vertices, region), faces=faces)

    def missing(self) -> str:
        found = importlib.util.find_spec("nksr")
        if found is None:
            return f"nksr is not installed: {NKSR_INSTALL}"
        import nksr

        return "" if hasattr(nksr, "Reconstructor") else f"no NKSR here: {NKSR_INSTALL}"


def _open3d() -> ModuleType:
    import open3d

    module: ModuleType = open3d
    return module


def _cloud(o3d: ModuleType, region: RegionPoints) -> Any:  # open3d.geometry.PointCloud
    cloud = o3d.geometry.PointCloud(o3d.utility.Vector3dVector(region.points.astype(np.float64)))
    cloud.normals = o3d.utility.Vector3dVector(region.normals.astype(np.float64))
    cloud.colors = o3d.utility.Vector3dVector(region.colours / 255.0)
    return cloud


def _mesh(found: Any, region: RegionPoints) -> Mesh:  # open3d.geometry.TriangleMesh
    vertices = np.asarray(found.vertices, dtype=np.float32).reshape(-1, 3)
    faces = np.asarray(found.triangles, dtype=np.int32).reshape(-1, 3)
    return Mesh(vertices=vertices, colours=_nearest_colours(vertices, region), faces=faces)


def _nearest_colours(vertices: np.ndarray, region: RegionPoints) -> np.ndarray:
    if not len(vertices):
        return np.zeros((0, 3), np.uint8)
    return np.asarray(region.colours[cKDTree(region.points).query(vertices)[1]])


def _with_vertices(mesh: Mesh, kept: np.ndarray) -> Mesh:
    number = np.cumsum(kept) - 1
    faces = mesh.faces[kept[mesh.faces].all(axis=1)]
    return Mesh(
        vertices=mesh.vertices[kept],
        colours=mesh.colours[kept],
        faces=number[faces].astype(np.int32),
    )


def _turned_as_points(mesh: Mesh, region: RegionPoints) -> Mesh:
    """Each face turned to look where the normals of the points near it look."""
    corners = mesh.vertices[mesh.faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    if not len(normals):
        return mesh
    nearest = cKDTree(region.points).query(corners.mean(axis=1))[1]
    wrong = (normals * region.normals[nearest]).sum(axis=1) < 0
    faces = np.where(wrong[:, None], mesh.faces[:, [0, 2, 1]], mesh.faces)
    return Mesh(vertices=mesh.vertices, colours=mesh.colours, faces=faces)
