# SPDX-License-Identifier: Apache-2.0
"""Meshes as files that other tools open: binary PLY and binary glTF, with vertex colours."""

from __future__ import annotations

import json
import struct
from contextlib import suppress
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Float64, UInt8

from worldsystem_core.surface import Mesh
from worldsystem_storage.errors import StorageError

_PLY_VERTEX = np.dtype([("position", "<f4", 3), ("colour", "u1", 3)])
_PLY_FACE = np.dtype([("count", "u1"), ("vertices", "<i4", 3)])
_GLB_JSON, _GLB_BIN = 0x4E4F534A, 0x004E4942
_FLOAT, _U16, _U32 = 5126, 5123, 5125
_ARRAY_BUFFER, _ELEMENT_ARRAY_BUFFER = 34962, 34963


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


def write_glb(path: Path, mesh: Mesh) -> None:
    """Write `mesh` as binary glTF 2.0.

    glTF is y-up and the map z-up, so the vertices are turned by -90° about x:
    `(x, y, z)` becomes `(x, z, -y)`. glTF's colours are linear, a picture's are sRGB: they are
    converted and kept in 16 bits. The material is unlit and double-sided: the colours already hold
    the light. Raises `StorageError` for an empty mesh, which glTF cannot express, for a vertex
    that is not finite, and when the file cannot be written.
    """
    if not len(mesh.faces):
        raise StorageError(f"{path} not written: the mesh is empty, and glTF has no empty mesh")
    _check(mesh)
    positions = y_up_from_z_up(mesh.vertices)
    colours = np.full((len(positions), 4), 65535, "<u2")
    colours[:, :3] = np.round(65535 * linear_from_srgb(mesh.colours))
    indices = mesh.faces.astype("<u4")
    sections = (positions.tobytes(), colours.tobytes(), indices.tobytes())
    low, high = positions.min(0).tolist(), positions.max(0).tolist()
    accessors = [
        _accessor(0, _FLOAT, len(positions), "VEC3") | {"min": low, "max": high},
        _accessor(1, _U16, len(colours), "VEC4") | {"normalized": True},
        _accessor(2, _U32, indices.size, "SCALAR"),
    ]
    document = _document(accessors, [len(section) for section in sections])
    _save(path, _glb(json.dumps(document, separators=(",", ":")).encode(), b"".join(sections)))


def y_up_from_z_up(vertices: Float32[np.ndarray, "v 3"]) -> Float32[np.ndarray, "v 3"]:
    """glTF's axes from the map's: -90° about x."""
    return np.ascontiguousarray(
        np.stack([vertices[:, 0], vertices[:, 2], -vertices[:, 1]], axis=-1), dtype="<f4"
    )


def linear_from_srgb(colours: UInt8[np.ndarray, "v 3"]) -> Float64[np.ndarray, "v 3"]:
    """Linear light in 0 … 1 from sRGB bytes (IEC 61966-2-1)."""
    levels = np.arange(256) / 255.0
    table = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)
    return np.asarray(table[colours])


def _check(mesh: Mesh) -> None:
    if not np.isfinite(mesh.vertices).all():
        raise StorageError("the mesh has vertices that are not finite; nothing was written")
    if len(mesh.faces) and not 0 <= mesh.faces.min() <= mesh.faces.max() < len(mesh.vertices):
        raise StorageError("the mesh has faces of vertices that it lacks; nothing was written")


def _accessor(view: int, component: int, count: int, shape: str) -> dict[str, object]:
    return {"bufferView": view, "componentType": component, "count": count, "type": shape}


def _document(accessors: list[dict[str, object]], sizes: list[int]) -> dict[str, object]:
    targets = (_ARRAY_BUFFER, _ARRAY_BUFFER, _ELEMENT_ARRAY_BUFFER)
    views = [
        {"buffer": 0, "byteOffset": sum(sizes[:i]), "byteLength": size, "target": target}
        for i, (size, target) in enumerate(zip(sizes, targets, strict=True))
    ]
    primitive = {"attributes": {"POSITION": 0, "COLOR_0": 1}, "indices": 2, "material": 0}
    material = {
        "doubleSided": True,
        "pbrMetallicRoughness": {"metallicFactor": 0.0, "roughnessFactor": 1.0},
        "extensions": {"KHR_materials_unlit": {}},
    }
    return {
        "asset": {"version": "2.0", "generator": "WorldSystem"},
        "extensionsUsed": ["KHR_materials_unlit"],
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "name": "surface"}],
        "meshes": [{"primitives": [primitive]}],
        "materials": [material],
        "accessors": accessors,
        "bufferViews": views,
        "buffers": [{"byteLength": sum(sizes)}],
    }


def _glb(document: bytes, binary: bytes) -> bytes:
    document += b" " * (-len(document) % 4)
    binary += b"\x00" * (-len(binary) % 4)
    total = 12 + 8 + len(document) + 8 + len(binary)
    return (
        struct.pack("<4sII", b"glTF", 2, total)
        + struct.pack("<II", len(document), _GLB_JSON)
        + document
        + struct.pack("<II", len(binary), _GLB_BIN)
        + binary
    )


def _save(path: Path, content: bytes) -> None:
    beside = path.with_name(f".{path.name}.new")
    try:
        beside.write_bytes(content)
        beside.replace(path)
    except OSError as error:
        with suppress(OSError):
            beside.unlink(missing_ok=True)  # a part of it is of no use, and takes room
        raise StorageError(f"cannot write {path}: {error.strerror}") from error
