# SPDX-License-Identifier: Apache-2.0
"""Meshes as files that other tools open: binary PLY and binary glTF, with vertex colours."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from worldsystem_core.gltf import UNLIT, GlbArrays, y_up_from_world
from worldsystem_core.reconstruction import ScaleState
from worldsystem_core.surface import Mesh, fault_of
from worldsystem_core.whole_file import write_whole
from worldsystem_storage.errors import StorageError

_PLY_VERTEX = np.dtype([("position", "<f4", 3), ("colour", "u1", 3)])
_PLY_FACE = np.dtype([("count", "u1"), ("vertices", "<i4", 3)])


def write_ply(path: Path, mesh: Mesh) -> None:
    """Write `mesh` as binary little-endian PLY, in the mesh's own frame and unit.

    An empty mesh gives a valid file without vertices. Raises `StorageError` when the file cannot
    be written or a vertex is not finite.
    """
    _check(mesh)
    vertices = np.empty(len(mesh.vertices), _PLY_VERTEX)
    vertices["position"] = mesh.vertices
    vertices["colour"] = mesh.colours
    faces = np.empty(len(mesh.faces), _PLY_FACE)
    faces["count"] = 3
    faces["vertices"] = mesh.faces
    header = (
        "ply\nformat binary_little_endian 1.0\n"
        f"element vertex {len(vertices)}\n"
        "property float x\nproperty float y\nproperty float z\n"
        "property uchar red\nproperty uchar green\nproperty uchar blue\n"
        f"element face {len(faces)}\n"
        "property list uchar int vertex_indices\nend_header\n"
    )
    _save(path, header.encode() + vertices.tobytes() + faces.tobytes())


def write_glb(path: Path, mesh: Mesh, scale: ScaleState = ScaleState.METRIC) -> None:
    """Write `mesh` as binary glTF 2.0.

    glTF is y-up: vertices of `map`, which is z-up, are turned by -90° about x, `(x, y, z)` becomes
    `(x, z, -y)`; those of `scene`, the first camera's frame, by 180°: `(x, -y, -z)`. `scale` says
    which it is. glTF's colours are linear, a picture's are sRGB: they are
    converted and kept in 16 bits. The material is unlit and double-sided: the colours already hold
    the light. Raises `StorageError` for an empty mesh, which glTF cannot express, for a vertex
    that is not finite, and when the file cannot be written.
    """
    if not len(mesh.faces):
        raise StorageError(f"{path} not written: the mesh is empty, and glTF has no empty mesh")
    _check(mesh)
    arrays = GlbArrays()
    attributes = {
        "POSITION": arrays.positions(y_up_from_world(mesh.vertices, scale)),
        "COLOR_0": arrays.colours(mesh.colours),
    }
    primitive = {"attributes": attributes, "indices": arrays.triangles(mesh.faces)}
    _save(path, arrays.file(primitive, UNLIT, node={"name": "surface"}))


def _check(mesh: Mesh) -> None:
    fault = fault_of(mesh.vertices, mesh.faces)
    if fault is not None:
        raise StorageError(f"{fault}; nothing was written")


def _save(path: Path, content: bytes) -> None:
    try:
        write_whole(path, content)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror}") from error
