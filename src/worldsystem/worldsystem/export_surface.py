# SPDX-License-Identifier: Apache-2.0
"""The surface that a run left, with fewer faces or with a texture from its keyframes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import trimesh

from worldsystem_core.errors import WorldSystemError
from worldsystem_core.frames import Camera
from worldsystem_core.surface import Mesh
from worldsystem_mesh.export.files import FORMATS, save_mesh
from worldsystem_mesh.export.textured import Photo, spread
from worldsystem_storage.export.place import surface_file
from worldsystem_storage.export.recorded import RecordedKeyframe, RecordedRun

MOST_PHOTOS = 64


def export_surface(run: Path, format: str, out: Path, *, max_faces: int, texture: bool) -> Path:
    """Write the mesh of the run in `run` as `format` (ply, obj or glb); returns the file.

    `max_faces` is about how many faces it may have (0: as it is). A `texture` is made of up to
    `MOST_PHOTOS` keyframes, evenly spread. Raises `WorldSystemError` when the run lacks what this
    needs or the format cannot have it.
    """
    if f".{format}" not in FORMATS:
        known = ", ".join(ending.removeprefix(".") for ending in FORMATS)
        raise WorldSystemError(f"--faces and --texture are for {known}, not for '{format}'")
    path = surface_file(out, format)
    recorded = RecordedRun(run)
    loaded = trimesh.load(recorded.mesh_file, process=False)
    mesh = Mesh(
        vertices=np.asarray(loaded.vertices, dtype=np.float32),
        colours=np.asarray(loaded.visual.vertex_colors[:, :3], dtype=np.uint8),
        faces=np.asarray(loaded.faces, dtype=np.int32),
    )
    photos = None
    if texture:
        chosen = spread(len(recorded.keyframes), MOST_PHOTOS)
        photos = [_photo(recorded.keyframes[at]) for at in chosen]
        if not photos:
            raise WorldSystemError(f"{run} holds no keyframes to make a texture of; drop --texture")
    scale = recorded.mesh_scale
    return save_mesh(path, mesh, max_faces=max_faces, photos=photos, scale=scale).files[0]


def _photo(keyframe: RecordedKeyframe) -> Photo:
    K = keyframe.K
    return Photo(
        rgb=keyframe.rgb,
        depth=np.ascontiguousarray(keyframe.pointmap[..., 2]),
        camera=Camera(
            width=keyframe.width,
            height=keyframe.height,
            fx=float(K[0, 0]),
            fy=float(K[1, 1]),
            cx=float(K[0, 2]),
            cy=float(K[1, 2]),
        ),
        world_from_cam=keyframe.world_from_cam,
    )
