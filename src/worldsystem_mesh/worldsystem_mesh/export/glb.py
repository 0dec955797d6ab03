# SPDX-License-Identifier: Apache-2.0
"""Binary glTF 2.0, with vertex colours or a texture; unlit, for the colours hold the light."""

from __future__ import annotations

import cv2
import numpy as np

from worldsystem_core.gltf import UNLIT, GlbArrays, y_up_from_world
from worldsystem_core.reconstruction import ScaleState
from worldsystem_core.surface import Mesh
from worldsystem_mesh.export.textured import TexturedMesh

_JPEG_QUALITY = 92


def glb_bytes(mesh: Mesh | TexturedMesh, scale: ScaleState = ScaleState.METRIC) -> bytes:
    """The file's bytes for a mesh with at least one face, y up, as glTF is."""
    arrays, material, more = GlbArrays(), UNLIT, {}
    attributes = {"POSITION": arrays.positions(y_up_from_world(mesh.vertices, scale))}
    if isinstance(mesh, TexturedMesh):
        attributes["TEXCOORD_0"] = arrays.texture_places(mesh.uv)
        texture = {"baseColorTexture": {"index": 0}, "metallicFactor": 0.0, "roughnessFactor": 1.0}
        material = UNLIT | {"pbrMetallicRoughness": texture}
        image = {"bufferView": arrays.view(jpeg_bytes(mesh.texture)), "mimeType": "image/jpeg"}
        more = {"images": [image], "textures": [{"source": 0}]}
    else:
        attributes["COLOR_0"] = arrays.colours(mesh.colours)
    primitive = {"attributes": attributes, "indices": arrays.triangles(mesh.faces)}
    return arrays.file(primitive, material, node={"name": "surface"}, more=more)


def jpeg_bytes(rgb: np.ndarray) -> bytes:
    """A picture as JPEG."""
    quality = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
    encoded: np.ndarray = cv2.imencode(".jpg", np.ascontiguousarray(rgb[..., ::-1]), quality)[1]
    return encoded.tobytes()
