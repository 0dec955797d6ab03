# SPDX-License-Identifier: Apache-2.0
"""Normals of vertices against a plain twin and against shapes whose normals are known."""

from __future__ import annotations

import numpy as np

from worldsystem_core.mesh_normals import vertex_normals


def plain_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Face by face, in the obvious way."""
    sums = np.zeros((len(vertices), 3))
    for a, b, c in faces:
        normal = np.cross(vertices[b] - vertices[a], vertices[c] - vertices[a])
        sums[[a, b, c]] += normal
    length = np.linalg.norm(sums, axis=1, keepdims=True)
    return np.where(length > 0, sums / np.where(length > 0, length, 1), (0.0, 0.0, 1.0))


def test_normals_are_those_of_the_plain_twin():
    rng = np.random.default_rng(3)
    vertices = rng.normal(size=(200, 3)).astype(np.float32)
    faces = np.array([rng.choice(190, 3, replace=False) for _ in range(500)], np.int32)
    found = vertex_normals(vertices, faces)
    np.testing.assert_allclose(found, plain_normals(vertices, faces), atol=1e-5)
    assert (found[190:] == (0, 0, 1)).all()  # no face has these


def test_normals_of_an_octahedron_point_away_from_its_middle():
    vertices = np.concatenate([np.eye(3), -np.eye(3)]).astype(np.float32)
    faces = []
    for x in (0, 3):
        for y in (1, 4):
            for z in (2, 5):
                mirrored = (x == 3) ^ (y == 4) ^ (z == 5)
                faces.append((x, z, y) if mirrored else (x, y, z))
    np.testing.assert_allclose(
        vertex_normals(vertices, np.array(faces, np.int32)), vertices, atol=1e-6
    )


def test_a_mesh_without_faces_has_upright_normals():
    vertices = np.zeros((4, 3), np.float32)
    normals = vertex_normals(vertices, np.zeros((0, 3), np.int32))
    assert (normals == (0, 0, 1)).all()
    assert vertex_normals(vertices[:0], np.zeros((0, 3), np.int32)).shape == (0, 3)
