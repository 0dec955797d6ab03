# SPDX-License-Identifier: Apache-2.0
"""A coloured mesh as binary glTF 2.0 in memory, for viewers that embed models."""

from __future__ import annotations

from worldsystem_core.gltf import GlbArrays
from worldsystem_core.mesh_normals import vertex_normals
from worldsystem_core.surface import Mesh

# glTF is y-up: the node turns our coordinates so that a reader that makes z up gets them back
_Y_UP_FROM_WORLD_XYZW = [-0.7071067811865476, 0.0, 0.0, 0.7071067811865476]
_LIT = {
    "pbrMetallicRoughness": {"metallicFactor": 0.0, "roughnessFactor": 1.0},
    "doubleSided": True,
}


def glb_from_mesh(mesh: Mesh) -> bytes:
    """The bytes of a .glb file that holds `mesh`, which must have at least one face."""
    arrays = GlbArrays()
    attributes = {
        "POSITION": arrays.positions(mesh.vertices),
        "NORMAL": arrays.normals(vertex_normals(mesh.vertices, mesh.faces)),
        "COLOR_0": arrays.colours(mesh.colours),
    }
    primitive = {"attributes": attributes, "indices": arrays.triangles(mesh.faces)}
    return arrays.file(primitive, _LIT, node={"rotation": _Y_UP_FROM_WORLD_XYZW})
