# SPDX-License-Identifier: Apache-2.0
"""Foxglove's scene messages: the surface as embedded models, objects as boxes with names."""

from __future__ import annotations

import logging
from typing import Any

from worldsystem_core.geometry.rotation import quaternion_xyzw_from_matrix
from worldsystem_core.objects import MapObject, MapObjects
from worldsystem_core.overlay import id_colour
from worldsystem_core.reconstruction import ScaleState
from worldsystem_core.surface import Mesh, fault_of
from worldsystem_viewer.chunks import ChunkIndex
from worldsystem_viewer.glb import glb_from_mesh

log = logging.getLogger(__name__)

# `messages` is foxglove.messages throughout: it is optional, so nothing here imports it.


def frame_of(scale: ScaleState) -> str:
    """The root frame's name."""
    return "map" if scale is ScaleState.METRIC else "scene"


def chunk_update(
    messages: Any, chunk: ChunkIndex, mesh: Mesh, *, frame_id: str, stamp_ns: int
) -> Any:
    """One chunk of the surface, replacing what was there; deleted where it is empty, or no mesh
    that glTF can hold."""
    stamp, name = _stamp(messages, stamp_ns), "_".join(map(str, chunk))
    fault = fault_of(mesh.vertices, mesh.faces)
    if fault is not None:
        log.warning("chunk %s of the surface is not shown: %s", name, fault)
    if fault is not None or len(mesh.faces) == 0:
        kind = messages.SceneEntityDeletionType.MatchingId
        deletion = messages.SceneEntityDeletion(timestamp=stamp, type=kind, id=name)
        return messages.SceneUpdate(deletions=[deletion])
    model = messages.ModelPrimitive(
        pose=messages.Pose(
            position=messages.Vector3(), orientation=messages.Quaternion(x=0, y=0, z=0, w=1)
        ),
        scale=messages.Vector3(x=1, y=1, z=1),
        media_type="model/gltf-binary",
        data=glb_from_mesh(mesh),
    )
    entity = messages.SceneEntity(timestamp=stamp, frame_id=frame_id, id=name, models=[model])
    return messages.SceneUpdate(entities=[entity])


def objects_update(messages: Any, objects: MapObjects) -> Any:
    """All objects, replacing those before."""
    stamp = _stamp(messages, objects.stamp_ns)
    clear = messages.SceneEntityDeletion(
        timestamp=stamp, type=messages.SceneEntityDeletionType.All, id=""
    )
    frame_id = frame_of(objects.scale)
    entities = [_object(messages, item, stamp, frame_id) for item in objects.objects]
    return messages.SceneUpdate(deletions=[clear], entities=entities)


def _object(messages: Any, item: MapObject, stamp: Any, frame_id: str) -> Any:
    x, y, z, w = quaternion_xyzw_from_matrix(item.world_from_box[:3, :3])
    position = messages.Vector3(
        **dict(zip("xyz", map(float, item.world_from_box[:3, 3]), strict=True))
    )
    pose = messages.Pose(
        position=position,
        orientation=messages.Quaternion(x=float(x), y=float(y), z=float(z), w=float(w)),
    )
    red, green, blue = (channel / 255.0 for channel in id_colour(item.id))
    size = messages.Vector3(**dict(zip("xyz", map(float, item.size), strict=True)))
    cube = messages.CubePrimitive(
        pose=pose, size=size, color=messages.Color(r=red, g=green, b=blue, a=0.25)
    )
    text = messages.TextPrimitive(
        pose=pose,
        billboard=True,
        scale_invariant=True,
        font_size=14.0,
        color=messages.Color(r=1.0, g=1.0, b=1.0, a=1.0),
        text=item.label,
    )
    facts = {"label": item.label, "score": f"{item.score:.2f}", "points": str(item.point_count)}
    return messages.SceneEntity(
        timestamp=stamp,
        frame_id=frame_id,
        id=str(item.id),
        cubes=[cube],
        texts=[text],
        metadata=[messages.KeyValuePair(key=key, value=value) for key, value in facts.items()],
    )


def _stamp(messages: Any, stamp_ns: int) -> Any:
    return messages.Timestamp(*divmod(max(0, stamp_ns), 10**9))  # it knows none before 1970
