# SPDX-License-Identifier: Apache-2.0
"""Saving the whole surface while it goes on growing, and welding it."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import trimesh

from worldsystem_core.surface import Mesh, join_blocks
from worldsystem_mesh import services as services_module
from worldsystem_mesh import snapshot
from worldsystem_mesh.config import MeshConfig
from worldsystem_mesh.drawing import BlockMeshes
from worldsystem_mesh.export.files import ExportError
from worldsystem_mesh.services import MeshServices
from worldsystem_mesh.weld import weld


@pytest.fixture
def make_services():
    made = []

    def make(mesher) -> MeshServices:
        made.append(MeshServices(MeshConfig(metrics_port=0), mesher))
        return made[-1]

    yield make
    for services in made:
        services.close()


@pytest.mark.parametrize("texture", [False, True])
def test_fusion_goes_on_while_a_file_is_made_of_what_there_was(
    make_mesher, make_services, plane_keyframes, tmp_path, monkeypatch, texture
):
    begun, may_weld = threading.Event(), threading.Event()

    def held_up(mesh: Mesh) -> Mesh:
        begun.set()
        assert may_weld.wait(30.0)
        return weld(mesh)

    mesher = make_mesher(min_weight=0.5)
    keyframes = plane_keyframes(3)
    mesher.integrate(keyframes[0])
    mesher.extract(0)
    expected = mesher.mesh()
    monkeypatch.setattr(snapshot, "weld", held_up)
    services, path = make_services(mesher), tmp_path / "plane.glb"
    try:
        told = services.save(path, texture=texture)
        assert begun.wait(30.0)
        assert told.face_count == len(expected.faces)
        assert told.vertex_count >= len(expected.vertices)
        mesher.integrate(keyframes[2])
        assert mesher.extract(1) is not None
        assert mesher.stats()["triangles"] > told.face_count
        assert not path.exists()
        with pytest.raises(ExportError, match="still being written"):
            services.save(path)
    finally:
        may_weld.set()
    services._saving.join(30.0)
    assert len(trimesh.load(path, process=False, force="mesh").faces) == len(expected.faces)


def test_a_surface_that_is_empty_is_refused_at_once(make_mesher, make_services, tmp_path):
    with pytest.raises(ExportError, match="no surface yet"):
        make_services(make_mesher()).save(tmp_path / "nothing.ply")


def test_a_folder_that_cannot_be_reached_is_refused_at_once(make_mesher, make_services, tmp_path):
    services = make_services(make_mesher())
    for folder in ("nowhere", 300 * "x"):  # that no file system has
        with pytest.raises(ExportError, match=f"{folder}/a.ply: .* folder that"):
            services.save(tmp_path / folder / "a.ply")


def test_a_snapshot_is_the_blocks_joined(make_mesher, sphere_keyframes):
    mesher = make_mesher()
    for keyframe in sphere_keyframes(6):
        mesher.integrate(keyframe)
    mesher.extract(0)
    taken = mesher.snapshot()
    joined = weld(join_blocks(BlockMeshes(taken.drawer, taken.cells, taken.voxel)))
    mesh = taken.mesh()
    for name in ("vertices", "colours", "faces"):
        np.testing.assert_array_equal(getattr(mesh, name), getattr(joined, name))
        assert getattr(mesh, name).dtype == getattr(joined, name).dtype
    assert (taken.face_count, taken.vertex_count) == (
        mesher.stats()["triangles"],
        mesher.stats()["vertices"],
    )


def welded_as_records(mesh: Mesh) -> Mesh:
    """By sorting positions as records of three numbers."""
    plain = np.ascontiguousarray(mesh.vertices + np.float32(0.0))
    rows = plain.view([("x", np.uint32), ("y", np.uint32), ("z", np.uint32)]).reshape(-1)
    _, first, number = np.unique(rows, return_index=True, return_inverse=True)
    return Mesh(
        vertices=plain[first],
        colours=mesh.colours[first],
        faces=number.astype(np.int32)[mesh.faces],
    )


@pytest.mark.parametrize("count", [1, 2, 50, 5000])
def test_welding_makes_one_vertex_of_each_position_and_the_first_gives_the_colour(count):
    rng = np.random.default_rng(count)
    values = np.array([-1.5, -0.0, 0.0, 0.25, 1e30, -1e-30, 7.0], np.float32)
    mesh = Mesh(
        vertices=rng.choice(values, (count, 3)),
        colours=rng.integers(0, 256, (count, 3)).astype(np.uint8),
        faces=rng.integers(0, count, (3 * count, 3)).astype(np.int32),
    )
    made, expected = weld(mesh), welded_as_records(mesh)
    for name in ("vertices", "colours", "faces"):
        np.testing.assert_array_equal(getattr(made, name), getattr(expected, name))
        assert getattr(made, name).dtype == getattr(expected, name).dtype
    assert len(np.unique(made.vertices, axis=0)) == len(made.vertices)
    np.testing.assert_array_equal(made.vertices[made.faces], mesh.vertices[mesh.faces])


def test_a_texture_for_a_file_that_can_have_none_is_refused_at_once(
    make_mesher, make_services, plane_keyframes, tmp_path
):
    mesher = make_mesher(min_weight=0.5)
    mesher.integrate(plane_keyframes(1)[0])
    mesher.extract(0)
    with pytest.raises(ExportError, match="texture"):
        make_services(mesher).save(tmp_path / "house.ply", texture=True)


def test_surface_that_finds_no_room_is_a_problem_while_it_lasts(
    make_mesher, make_services, plane_keyframes, monkeypatch
):
    mesher = make_mesher(min_weight=0.5)
    mesher.integrate(plane_keyframes(1)[0])
    services, problems = make_services(mesher), []
    for refused in (0, 7, 7, 9):
        facts = mesher.stats() | {"refused_blocks": refused}
        monkeypatch.setattr(mesher, "stats", lambda facts=facts: facts)
        services.figures()
        problems.append(services.problem)
        monkeypatch.undo()
    assert [bool(problem) for problem in problems] == [False, True, False, True]
    assert "memory_mb" in problems[1]


def test_a_glb_of_a_scene_has_the_first_cameras_up_for_up(
    make_mesher, make_services, plane_keyframes, tmp_path
):
    """`scene` is that camera's frame, y down and z ahead; glTF has y up and z behind."""
    mesher = make_mesher(min_weight=0.5)
    mesher.integrate(plane_keyframes(1)[0])
    mesher.extract(0)
    services, path = make_services(mesher), tmp_path / "plane.glb"
    services.save(path)
    services._saving.join(30.0)
    read = trimesh.load(path, process=False, force="mesh")
    np.testing.assert_array_equal(read.vertices, mesher.mesh().vertices * [1, -1, -1])


def test_a_texture_has_as_many_keyframes_as_it_may_with_the_first_and_the_last(
    make_mesher, make_services, plane_keyframes, monkeypatch
):
    """One more than it may have cost half of them."""
    monkeypatch.setattr(services_module, "_MAX_PHOTOS", 4)
    mesher = make_mesher(min_weight=0.5)
    services, chosen = make_services(mesher), []
    for keyframe in plane_keyframes(6):
        mesher.integrate(keyframe)
        chosen.append([view.id for view in services._views_of_photos()])
    assert chosen[3] == [0, 1, 2, 3]
    assert chosen[4] == [0, 1, 2, 4]
    assert chosen[5] == [0, 1, 3, 5]
