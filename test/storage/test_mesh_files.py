# SPDX-License-Identifier: Apache-2.0
"""Mesh files as trimesh and Open3D open them."""

import numpy as np
import open3d as o3d
import pytest
import trimesh

from worldsystem_core.gltf import linear_from_srgb
from worldsystem_core.surface import Mesh
from worldsystem_storage.errors import StorageError
from worldsystem_storage.mesh_files import write_glb, write_ply


@pytest.fixture
def mesh():
    """A tetrahedron of four colours, its apex up (+z)."""
    return Mesh(
        vertices=np.array([[0, 0, 0], [1, 0, 0], [0, 2, 0], [0, 0, 3]], np.float32),
        colours=np.array([[255, 0, 0], [0, 255, 0], [10, 20, 200], [128, 128, 128]], np.uint8),
        faces=np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]], np.int32),
    )


def test_trimesh_reads_back_the_very_ply(mesh, tmp_path):
    write_ply(tmp_path / "mesh.ply", mesh)
    read = trimesh.load(tmp_path / "mesh.ply", process=False)
    np.testing.assert_array_equal(read.vertices, mesh.vertices)
    np.testing.assert_array_equal(read.faces, mesh.faces)
    np.testing.assert_array_equal(read.visual.vertex_colors[:, :3], mesh.colours)
    assert read.volume == pytest.approx(1.0)


def test_open3d_reads_back_the_very_ply(mesh, tmp_path):
    write_ply(tmp_path / "mesh.ply", mesh)
    read = o3d.io.read_triangle_mesh(str(tmp_path / "mesh.ply"))
    np.testing.assert_array_equal(np.asarray(read.vertices), mesh.vertices)
    np.testing.assert_array_equal(np.asarray(read.triangles), mesh.faces)
    np.testing.assert_allclose(np.asarray(read.vertex_colors) * 255, mesh.colours, atol=0.5)


def test_an_empty_mesh_is_a_valid_ply(tmp_path):
    write_ply(tmp_path / "empty.ply", Mesh.empty())
    read = o3d.io.read_point_cloud(str(tmp_path / "empty.ply"))
    assert len(read.points) == 0
    assert b"element vertex 0\n" in (tmp_path / "empty.ply").read_bytes()


def test_glb_turns_z_up_into_y_up_and_keeps_the_volume(mesh, tmp_path):
    write_glb(tmp_path / "mesh.glb", mesh)
    read = trimesh.load(tmp_path / "mesh.glb", force="mesh", process=False)
    np.testing.assert_array_equal(read.vertices[3], [0, 3, 0])
    np.testing.assert_array_equal(read.vertices[2], [0, 0, -2])
    np.testing.assert_array_equal(read.faces, mesh.faces)
    assert read.volume == pytest.approx(1.0), "a mirrored mesh would have a negative volume"


def test_glb_colours_are_linear(mesh, tmp_path):
    write_glb(tmp_path / "mesh.glb", mesh)
    (read,) = trimesh.load_scene(tmp_path / "mesh.glb", process=False).geometry.values()
    expected = 255 * linear_from_srgb(mesh.colours)
    colours = np.asarray(read.visual.vertex_attributes["color"], np.float64)
    np.testing.assert_allclose(colours[:, :3] / colours[:, 3:] * 255, expected, atol=1.0)


def test_open3d_opens_the_glb(mesh, tmp_path):
    write_glb(tmp_path / "mesh.glb", mesh)
    read = o3d.io.read_triangle_mesh(str(tmp_path / "mesh.glb"))
    assert len(read.triangles) == 4
    assert read.has_vertex_colors()
    assert np.asarray(read.vertices).max(0).tolist() == [1, 3, 0]


def test_middle_grey_is_a_fifth_of_the_light():
    """IEC 61966-2-1: sRGB 0.5 is 0.214 linear, black and white stay."""
    grey = linear_from_srgb(np.array([[0, 128, 255]], np.uint8))
    np.testing.assert_allclose(grey, [[0.0, 0.2159, 1.0]], atol=1e-4)


def test_an_empty_mesh_is_no_glb(tmp_path):
    with pytest.raises(StorageError, match="the mesh is empty"):
        write_glb(tmp_path / "empty.glb", Mesh.empty())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("write", [write_ply, write_glb])
def test_a_mesh_that_is_not_finite_or_not_whole_is_refused(mesh, tmp_path, write):
    nan = mesh.vertices.copy()
    nan[1, 1] = np.nan
    with pytest.raises(StorageError, match="not finite"):
        write(tmp_path / "a", Mesh(vertices=nan, colours=mesh.colours, faces=mesh.faces))
    with pytest.raises(StorageError, match="vertices that it lacks"):
        write(tmp_path / "a", Mesh(vertices=nan[:1], colours=nan[:1], faces=mesh.faces))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("write", [write_ply, write_glb])
def test_a_folder_that_is_not_there_is_named(mesh, tmp_path, write):
    with pytest.raises(StorageError, match=r"cannot write .*lost"):
        write(tmp_path / "lost" / "mesh", mesh)
