# SPDX-License-Identifier: Apache-2.0
"""A coloured mesh as binary glTF 2.0 in memory, for viewers that embed models."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
from jaxtyping import UInt8, UInt16

from worldsystem_core.mesh_normals import vertex_normals
from worldsystem_core.surface import Mesh

_ARRAY, _ELEMENTS = 34962, 34963
_FLOAT, _UINT16, _UINT32 = 5126, 5123, 5125
# glTF is y-up: the node turns our coordinates so that a reader that makes z up gets them back
_Y_UP_FROM_WORLD_XYZW = [-0.7071067811865476, 0.0, 0.0, 0.7071067811865476]
_SRGB = np.arange(256) / 255.0
_LINEAR = np.round(
    65535 * np.where(_SRGB <= 0.04045, _SRGB / 12.92, ((_SRGB + 0.055) / 1.055) ** 2.4)
).astype(np.uint16)


def glb_from_mesh(mesh: Mesh) -> bytes:
    """The bytes of a .glb file that holds `mesh`, which must have at least one face."""
    parts = [
        mesh.vertices.astype("<f4"),
        vertex_normals(mesh.vertices, mesh.faces).astype("<f4"),
        _linear_rgba(mesh.colours),
        mesh.faces.astype("<u4").reshape(-1),
    ]
    data = [part.tobytes() for part in parts]  # each is a multiple of 4 bytes long
    text = json.dumps(_description(mesh, [len(part) for part in data])).encode()
    text += b" " * (-len(text) % 4)
    body = b"".join(data)
    total = 12 + 8 + len(text) + 8 + len(body)
    head = struct.pack("<4sII", b"glTF", 2, total)
    text_head, body_head = (
        struct.pack("<I4s", len(text), b"JSON"),
        struct.pack("<I4s", len(body), b"BIN\0"),
    )
    return b"".join([head, text_head, text, body_head, body])


def _linear_rgba(colours: UInt8[np.ndarray, "v 3"]) -> UInt16[np.ndarray, "v 4"]:
    """glTF's vertex colours are linear, ours are sRGB."""
    rgba = np.full((len(colours), 4), 65535, "<u2")
    rgba[:, :3] = _LINEAR[colours]
    return rgba


def _description(mesh: Mesh, sizes: list[int]) -> dict[str, Any]:
    offsets = np.cumsum([0, *sizes[:-1]]).tolist()
    targets = [_ARRAY, _ARRAY, _ARRAY, _ELEMENTS]
    count = len(mesh.vertices)
    return {
        "asset": {"version": "2.0", "generator": "WorldSystem"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "rotation": _Y_UP_FROM_WORLD_XYZW}],
        "materials": [
            {
                "pbrMetallicRoughness": {"metallicFactor": 0.0, "roughnessFactor": 1.0},
                "doubleSided": True,
            }
        ],
        "meshes": [
            {
                "primitives": [
                    {
                        "attributes": {"POSITION": 0, "NORMAL": 1, "COLOR_0": 2},
                        "indices": 3,
                        "material": 0,
                    }
                ]
            }
        ],
        "buffers": [{"byteLength": sum(sizes)}],
        "bufferViews": [
            {"buffer": 0, "byteOffset": offset, "byteLength": size, "target": target}
            for offset, size, target in zip(offsets, sizes, targets, strict=True)
        ],
        "accessors": [
            {
                "bufferView": 0,
                "componentType": _FLOAT,
                "count": count,
                "type": "VEC3",
                "min": mesh.vertices.min(axis=0).tolist(),
                "max": mesh.vertices.max(axis=0).tolist(),
            },
            {"bufferView": 1, "componentType": _FLOAT, "count": count, "type": "VEC3"},
            {
                "bufferView": 2,
                "componentType": _UINT16,
                "normalized": True,
                "count": count,
                "type": "VEC4",
            },
            {
                "bufferView": 3,
                "componentType": _UINT32,
                "count": int(mesh.faces.size),
                "type": "SCALAR",
            },
        ],
    }
