# SPDX-License-Identifier: Apache-2.0
"""Binary glTF 2.0: the container, the arrays in it, and linear colours.

How a mesh looks and where it stands (materials, images, nodes) is its maker's affair.
"""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64, Int32, UInt8

from worldsystem_core.reconstruction import ScaleState

_JSON, _BIN = 0x4E4F534A, 0x004E4942
_FLOAT, _U16, _U32 = 5126, 5123, 5125
_ARRAY_BUFFER, _ELEMENT_ARRAY_BUFFER = 34962, 34963
_SRGB = np.arange(256) / 255.0
_LINEAR = np.where(_SRGB <= 0.04045, _SRGB / 12.92, ((_SRGB + 0.055) / 1.055) ** 2.4)
_LINEAR_U16 = np.rint(65535 * _LINEAR).astype("<u2")

UNLIT = {
    "doubleSided": True,
    "extensions": {"KHR_materials_unlit": {}},
    "pbrMetallicRoughness": {"metallicFactor": 0.0, "roughnessFactor": 1.0},
}
"""A material for colours that already hold the light; `file` declares the extension."""


class GlbArrays:
    """The binary chunk of a file, and the views and accessors that say what is in it.

    Each method appends an array and returns the number by which a primitive refers to it.
    """

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0
        self._views: list[dict[str, int]] = []
        self._accessors: list[dict[str, object]] = []

    def positions(self, vertices: Float32[np.ndarray, "v 3"]) -> int:
        """Vertices, at least one, in glTF's axes (`y_up_from_z_up`) or the node's."""
        low, high = vertices.min(axis=0).tolist(), vertices.max(axis=0).tolist()
        return self._floats(vertices, "VEC3", min=low, max=high)

    def normals(self, normals: Float32[np.ndarray, "v 3"]) -> int:
        """Normals of the vertices, of length 1."""
        return self._floats(normals, "VEC3")

    def texture_places(self, uv: Float32[np.ndarray, "v 2"]) -> int:
        """Where each vertex lies in the texture, from its upper left corner, in 0 … 1."""
        return self._floats(uv, "VEC2")

    def colours(self, srgb: UInt8[np.ndarray, "v 3"]) -> int:
        """Colours of the vertices. glTF's are linear: 8 bits of sRGB need 16."""
        rgba = np.full((len(srgb), 4), 65535, "<u2")
        rgba[:, :3] = _LINEAR_U16[srgb]
        view = self.view(rgba.tobytes(), _ARRAY_BUFFER)
        return self._accessor(view, _U16, len(rgba), "VEC4", normalized=True)

    def triangles(self, faces: Int32[np.ndarray, "f 3"]) -> int:
        """The vertices of each face."""
        view = self.view(faces.astype("<u4").tobytes(), _ELEMENT_ARRAY_BUFFER)
        return self._accessor(view, _U32, faces.size, "SCALAR")

    def view(self, content: bytes, target: int | None = None) -> int:
        """Append bytes, of a picture, say, on a multiple of four; the view's number."""
        view = {"buffer": 0, "byteOffset": self._size, "byteLength": len(content)}
        self._views.append(view if target is None else view | {"target": target})
        padding = bytes(-len(content) % 4)
        self._parts += [content, padding]
        self._size += len(content) + len(padding)
        return len(self._views) - 1

    def file(
        self,
        primitive: dict[str, Any],
        material: dict[str, Any],
        *,
        node: dict[str, Any] | None = None,
        more: dict[str, Any] | None = None,
    ) -> bytes:
        """The file of one mesh of one primitive; `node` places it, and `more` goes to the top.

        Raises `ValueError` where a number is not finite: glTF has none such.
        """
        document: dict[str, Any] = {
            "asset": {"version": "2.0", "generator": "WorldSystem"},
            "scene": 0,
            "scenes": [{"nodes": [0]}],
            "nodes": [{"mesh": 0, **(node or {})}],
            "meshes": [{"primitives": [primitive | {"material": 0}]}],
            "materials": [material],
            "accessors": self._accessors,
            "bufferViews": self._views,
            "buffers": [{"byteLength": self._size}],
        }
        if "extensions" in material:
            document["extensionsUsed"] = list(material["extensions"])
        text = json.dumps(document | (more or {}), separators=(",", ":"), allow_nan=False).encode()
        text += b" " * (-len(text) % 4)
        total = 12 + 8 + len(text) + 8 + self._size
        return b"".join([
            struct.pack("<4sII", b"glTF", 2, total),
            struct.pack("<II", len(text), _JSON),
            text,
            struct.pack("<II", self._size, _BIN),
            *self._parts,
        ])  # fmt: skip

    def _floats(self, values: np.ndarray, shape: str, **more: object) -> int:
        view = self.view(values.astype("<f4").tobytes(), _ARRAY_BUFFER)
        return self._accessor(view, _FLOAT, len(values), shape, **more)

    def _accessor(self, view: int, component: int, count: int, shape: str, **more: object) -> int:
        told = {"bufferView": view, "componentType": component, "count": count, "type": shape}
        self._accessors.append(told | more)
        return len(self._accessors) - 1


def y_up_from_z_up(vertices: Float32[np.ndarray, "v 3"]) -> Float32[np.ndarray, "v 3"]:
    """glTF's axes from the map's, -90° about x: `(x, y, z)` becomes `(x, z, -y)`."""
    turned = np.stack([vertices[:, 0], vertices[:, 2], -vertices[:, 1]], axis=-1)
    return turned.astype(np.float32, copy=False)


def y_up_from_world(
    vertices: Float32[np.ndarray, "v 3"], scale: ScaleState
) -> Float32[np.ndarray, "v 3"]:
    """glTF's axes from the world's. `map` is z up; `scene` is the first camera's frame, y down and
    z ahead, which is turned by 180° about x: `(x, y, z)` becomes `(x, -y, -z)`."""
    if scale is ScaleState.METRIC:
        return y_up_from_z_up(vertices)
    return np.asarray(vertices * np.array([1.0, -1.0, -1.0], np.float32), np.float32)


def linear_from_srgb(colours: UInt8[np.ndarray, "v 3"]) -> Float64[np.ndarray, "v 3"]:
    """Linear light in 0 … 1 from sRGB bytes (IEC 61966-2-1)."""
    return np.asarray(_LINEAR[colours])
