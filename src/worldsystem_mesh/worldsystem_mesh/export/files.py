# SPDX-License-Identifier: Apache-2.0
"""A mesh as a file; the name's ending is the format. trimesh writes PLY and OBJ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from worldsystem_core.errors import BackendError, WorldSystemError
from worldsystem_core.reconstruction import ScaleState
from worldsystem_core.surface import Mesh, fault_of
from worldsystem_core.whole_file import write_whole
from worldsystem_mesh.export.atlas import textured
from worldsystem_mesh.export.decimation import decimated
from worldsystem_mesh.export.glb import glb_bytes
from worldsystem_mesh.export.textured import Photo, TexturedMesh

FORMATS = (".ply", ".obj", ".glb")
TEXTURED_FORMATS = (".obj", ".glb")


class ExportError(WorldSystemError):
    """A mesh cannot be written as asked."""


@dataclass(frozen=True)
class Written:
    """What came of an export."""

    files: tuple[Path, ...]
    vertex_count: int
    face_count: int


def save_mesh(
    path: Path,
    mesh: Mesh,
    *,
    max_faces: int = 0,
    photos: Sequence[Photo] | None = None,
    scale: ScaleState = ScaleState.METRIC,
) -> Written:
    """Write `mesh` to `path`, decimated to `max_faces` (0: as it is), textured from `photos`.

    Vertices are in the world's frame and unit, but in glb, which is y-up: `scale` says whether the
    world is `map` or `scene`. Without `photos` colours are at the vertices. A file appears whole or
    not at all. Raises `ExportError` for an unknown ending, a mesh that is empty, not finite or not
    whole, a texture in ply, when decimation fails or leaves no face, and when a file cannot be
    written.
    """
    _check(path, mesh, with_texture=photos is not None)
    try:
        mesh = decimated(mesh, max_faces)
    except BackendError as error:
        raise ExportError(f"{path} not written: {error}") from error
    if not len(mesh.faces):
        raise ExportError(
            f"{path} not written: max_faces = {max_faces} leaves no surface; allow more"
        )
    made = mesh if photos is None else textured(mesh, photos)
    is_glb = path.suffix == ".glb"
    contents = {path: glb_bytes(made, scale)} if is_glb else _by_trimesh(path, made)
    for name, content in reversed(contents.items()):  # `path` last: it refers to the others
        _save(name, content)
    return Written(tuple(contents), len(made.vertices), len(made.faces))


def _check(path: Path, mesh: Mesh, *, with_texture: bool) -> None:
    if path.suffix not in FORMATS:
        raise ExportError(f"{path}: unknown format '{path.suffix}'; known: {', '.join(FORMATS)}")
    if with_texture and path.suffix not in TEXTURED_FORMATS:
        raise ExportError(f"{path}: only {' and '.join(TEXTURED_FORMATS)} can have a texture")
    if not len(mesh.faces):
        raise ExportError(f"{path} not written: there is no surface yet")
    fault = fault_of(mesh.vertices, mesh.faces)
    if fault is not None:
        raise ExportError(f"{path} not written: {fault}")


def _by_trimesh(path: Path, mesh: Mesh | TexturedMesh) -> dict[Path, bytes]:
    """Contents of the file and of those beside it."""
    import trimesh  # a second; a mesher that is begun anew must not wait for it

    if isinstance(mesh, Mesh):
        made = trimesh.Trimesh(
            mesh.vertices, mesh.faces, vertex_colors=mesh.colours, process=False, validate=False
        )
        content = made.export(file_type=path.suffix[1:])
        return {path: content if isinstance(content, bytes) else content.encode()}
    uv = np.stack([mesh.uv[:, 0], 1.0 - mesh.uv[:, 1]], axis=-1)  # OBJ counts from below
    material = trimesh.visual.material.SimpleMaterial(
        image=Image.fromarray(mesh.texture), diffuse=[255, 255, 255, 255]
    )
    made = trimesh.Trimesh(
        mesh.vertices,
        mesh.faces,
        visual=trimesh.visual.TextureVisuals(uv=uv, material=material),
        process=False,
        validate=False,
    )
    material.name = path.stem
    text, beside = trimesh.exchange.obj.export_obj(
        made, include_normals=False, return_texture=True, mtl_name=f"{path.stem}.mtl"
    )
    return {path: text.encode()} | {
        path.with_name(name): content for name, content in beside.items()
    }


def _save(path: Path, content: bytes) -> None:
    try:
        write_whole(path, content)
    except OSError as error:
        raise ExportError(f"cannot write {path}: {error.strerror}") from error
