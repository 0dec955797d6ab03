# SPDX-License-Identifier: Apache-2.0
"""Binary glTF 2.0, with vertex colours or a texture; unlit, for the colours hold the light."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field

import cv2
import numpy as np

from worldsystem_core.surface import Mesh
from worldsystem_mesh.export.textured import TexturedMesh

_JSON, _BIN = 0x4E4F534A, 0x004E4942
_FLOAT, _U16, _U32 = 5126, 5123, 5125
_JPEG_QUALITY = 92
_LEVELS = np.arange(256) / 255.0
_LINEAR = np.where(_LEVELS <= 0.04045, _LEVELS / 12.92, ((_LEVELS + 0.055) / 1.055) ** 2.4)


@dataclass
class _Parts:
    """The binary chunk and what describes it."""

    data: bytes = b""
    views: list[dict[str, int]] = field(default_factory=list)
    accessors: list[dict[str, object]] = field(default_factory=list)

    def view(self, content: bytes) -> int:
        """Append bytes, on a multiple of four."""
        self.data += bytes(-len(self.data) % 4)
        view = {"buffer": 0, "byteOffset": len(self.data), "byteLength": len(content)}
        self.views.append(view)
        self.data += content
        return len(self.views) - 1

    def array(self, values: np.ndarray, component: int, shape: str, **more: object) -> int:
        """Append an array that a mesh refers to."""
        accessor = {
            "bufferView": self.view(np.ascontiguousarray(values).tobytes()),
            "componentType": component,
            "count": len(values),
            "type": shape,
        }
        self.accessors.append(accessor | more)
        return len(self.accessors) - 1


def glb_bytes(mesh: Mesh | TexturedMesh) -> bytes:
    """The file's bytes for a mesh with at least one face.

    glTF is y-up and the map z-up, so (x, y, z) becomes (x, z, -y). glTF's vertex colours are
    linear, ours are sRGB: they are converted, and kept in 16 bits.
    """
    parts = _Parts()
    places = np.stack([mesh.vertices[:, 0], mesh.vertices[:, 2], -mesh.vertices[:, 1]], axis=-1)
    places = places.astype("<f4")
    low, high = places.min(axis=0).tolist(), places.max(axis=0).tolist()
    attributes = {"POSITION": parts.array(places, _FLOAT, "VEC3", min=low, max=high)}
    material: dict[str, object] = {
        "doubleSided": True,
        "extensions": {"KHR_materials_unlit": {}},
        "pbrMetallicRoughness": {"metallicFactor": 0.0, "roughnessFactor": 1.0},
    }
    document: dict[str, object] = {}
    if isinstance(mesh, TexturedMesh):
        attributes["TEXCOORD_0"] = parts.array(mesh.uv.astype("<f4"), _FLOAT, "VEC2")
        texture = {"baseColorTexture": {"index": 0}, "metallicFactor": 0.0, "roughnessFactor": 1.0}
        material["pbrMetallicRoughness"] = texture
        image = {"bufferView": parts.view(jpeg_bytes(mesh.texture)), "mimeType": "image/jpeg"}
        document |= {"images": [image], "textures": [{"source": 0}]}
    else:
        colours = np.full((len(places), 4), 65535, "<u2")
        colours[:, :3] = np.rint(65535 * _LINEAR[mesh.colours])
        attributes["COLOR_0"] = parts.array(colours, _U16, "VEC4", normalized=True)
    indices = parts.array(mesh.faces.astype("<u4").reshape(-1), _U32, "SCALAR")
    primitive = {"attributes": attributes, "indices": indices, "material": 0}
    return _file(document | _scene(primitive, material), parts)


def jpeg_bytes(rgb: np.ndarray) -> bytes:
    """A picture as JPEG."""
    quality = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
    encoded: np.ndarray = cv2.imencode(".jpg", np.ascontiguousarray(rgb[..., ::-1]), quality)[1]
    return encoded.tobytes()


def _scene(primitive: dict[str, object], material: dict[str, object]) -> dict[str, object]:
    return {
        "asset": {"version": "2.0", "generator": "WorldSystem"},
        "extensionsUsed": ["KHR_materials_unlit"],
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "name": "surface"}],
        "meshes": [{"primitives": [primitive]}],
        "materials": [material],
    }


def _file(document: dict[str, object], parts: _Parts) -> bytes:
    binary = parts.data + bytes(-len(parts.data) % 4)
    document |= {
        "accessors": parts.accessors,
        "bufferViews": parts.views,
        "buffers": [{"byteLength": len(binary)}],
    }
    text = json.dumps(document, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    head = struct.pack("<4sII", b"glTF", 2, 12 + 8 + len(text) + 8 + len(binary))
    text_head = struct.pack("<II", len(text), _JSON)
    return head + text_head + text + struct.pack("<II", len(binary), _BIN) + binary
