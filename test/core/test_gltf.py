# SPDX-License-Identifier: Apache-2.0
"""What is written is glTF that trimesh reads, array by array."""

from __future__ import annotations

import io
import json
import struct

import numpy as np
import pytest
import trimesh

from worldsystem_core.gltf import UNLIT, GlbArrays, linear_from_srgb, y_up_from_z_up
from worldsystem_core.surface import fault_of

VERTICES = np.array([[0, 0, 0], [1, 0, 0], [0, 2, 0], [0, 0, 3]], np.float32)
FACES = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]], np.int32)
COLOURS = np.array([[255, 0, 0], [0, 255, 0], [10, 20, 200], [128, 128, 128]], np.uint8)


def file_of(vertices=VERTICES, picture=b"") -> bytes:
    arrays = GlbArrays()
    if picture:
        arrays.view(picture)
    attributes = {"POSITION": arrays.positions(vertices), "COLOR_0": arrays.colours(COLOURS)}
    return arrays.file({"attributes": attributes, "indices": arrays.triangles(FACES)}, UNLIT)


def document_of(content: bytes) -> dict:
    size, kind = struct.unpack_from("<I4s", content, 12)
    assert kind == b"JSON"
    return json.loads(content[20 : 20 + size])


def test_trimesh_reads_back_the_very_mesh():
    scene = trimesh.load_scene(io.BytesIO(file_of()), file_type="glb", process=False)
    (read,) = scene.geometry.values()
    np.testing.assert_array_equal(read.vertices, VERTICES)
    np.testing.assert_array_equal(read.faces, FACES)
    colours = np.asarray(read.visual.vertex_attributes["color"], np.float64)
    expected = linear_from_srgb(COLOURS)
    np.testing.assert_allclose(colours[:, :3] / colours[:, 3:], expected, atol=1 / 65535)


@pytest.mark.parametrize("picture", [b"p" * size for size in range(1, 6)])
def test_chunks_and_views_lie_on_multiples_of_four(picture):
    content = file_of(picture=picture)
    magic, version, size = struct.unpack_from("<4sII", content)
    assert (magic, version, size) == (b"glTF", 2, len(content))
    document = document_of(content)
    ends = [view["byteOffset"] + view["byteLength"] for view in document["bufferViews"]]
    assert all(view["byteOffset"] % 4 == 0 for view in document["bufferViews"])
    assert max(ends) <= document["buffers"][0]["byteLength"]
    assert len(content) % 4 == document["buffers"][0]["byteLength"] % 4 == 0
    assert "target" not in document["bufferViews"][0], "a picture is no array of a mesh"


def test_extensions_of_the_material_are_declared():
    assert document_of(file_of())["extensionsUsed"] == ["KHR_materials_unlit"]


def test_a_number_that_is_not_finite_makes_no_file():
    with pytest.raises(ValueError, match="not JSON compliant"):
        file_of(np.full_like(VERTICES, np.nan))


def test_z_up_becomes_y_up():
    np.testing.assert_array_equal(y_up_from_z_up(VERTICES)[2:], [[0, 0, -2], [0, 3, 0]])


def test_a_mesh_has_a_fault_when_it_is_not_finite_or_not_whole():
    assert fault_of(VERTICES, FACES) is None
    assert fault_of(VERTICES[:0], FACES[:0]) is None
    infinite = VERTICES.copy()
    infinite[1, 2] = np.inf
    assert "not finite" in fault_of(infinite, FACES)
    assert "vertices that it lacks" in fault_of(VERTICES[:3], FACES)
    assert "vertices that it lacks" in fault_of(VERTICES, FACES - 1)
