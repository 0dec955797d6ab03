# SPDX-License-Identifier: Apache-2.0
"""Rendered pictures show what geometry says: a disc for a sphere, the inside of a room, a path."""

import numpy as np
import open3d as o3d
import pytest

from worldsystem.charts.views import (
    View,
    core_of,
    mean_viewing_direction,
    two_views,
    upright_from_world,
    vertical,
)
from worldsystem.report.renderer import MeshRenderer, with_path
from worldsystem_core.frames import Camera
from worldsystem_core.geometry.se3 import inverse, look_at, transform
from worldsystem_core.surface import Mesh
from worldsystem_core.trajectory import StampedPoses

RED, GREY = (220, 30, 30), (120, 120, 120)
UP = np.array([0.0, 0.0, 1.0])


def painted(shape: o3d.geometry.TriangleMesh, colour: tuple[int, int, int]) -> Mesh:
    vertices = np.asarray(shape.vertices).astype(np.float32)
    colours = np.tile(np.array(colour, np.uint8), (len(vertices), 1))
    colours[0] ^= 1  # a mesh of one single colour would be drawn in plain grey
    faces = np.asarray(shape.triangles).astype(np.int32)
    return Mesh(vertices=vertices, colours=colours, faces=faces)


def ball(radius: float) -> Mesh:
    return painted(o3d.geometry.TriangleMesh.create_sphere(radius, 60), RED)


def room_with_ball() -> Mesh:
    """A closed 4 m cube whose faces look inward, a red ball in the middle."""
    walls = o3d.geometry.TriangleMesh.create_box(4, 4, 4).translate((-2, -2, -2))
    walls.triangles = o3d.utility.Vector3iVector(np.asarray(walls.triangles)[:, ::-1])
    outer, inner = painted(walls, GREY), ball(0.8)
    return Mesh(
        vertices=np.concatenate([outer.vertices, inner.vertices]),
        colours=np.concatenate([outer.colours, inner.colours]),
        faces=np.concatenate([outer.faces, inner.faces + np.int32(len(outer.vertices))]),
    )


def view_from(eye: tuple[float, float, float], size: int = 200) -> View:
    camera = Camera.from_horizontal_fov(size, size, np.radians(40.0))
    return View(look_at(np.array(eye, float), np.zeros(3), UP), camera)


def poses_at(eyes: list[tuple[float, float, float]]) -> StampedPoses:
    matrices = [look_at(np.array(eye, float), np.zeros(3), UP) for eye in eyes]
    return StampedPoses(np.arange(len(eyes), dtype=np.int64), np.array(matrices))


def red_share(rgba: np.ndarray) -> float:
    return float(((rgba[..., 0] > 100) & (rgba[..., 1] < 60) & (rgba[..., 3] > 200)).mean())


def test_a_sphere_is_a_disc_of_the_right_size_and_distance():
    view = view_from((5.0, 0.0, 0.0))
    picture = MeshRenderer(ball(1.0)).render(view)
    radius_px = view.camera.fx * np.tan(np.arcsin(1.0 / 5.0))
    assert (picture.rgba[..., 3] / 255).sum() == pytest.approx(np.pi * radius_px**2, rel=0.01)
    assert picture.depth[100, 100] == pytest.approx(4.0, abs=0.01)
    assert not np.isfinite(picture.depth[0, 0])
    assert picture.rgba[0, 0, 3] == 0


def test_colours_are_the_vertices_or_the_given_ones():
    mesh, view = ball(1.0), view_from((5.0, 0.0, 0.0))
    renderer = MeshRenderer(mesh)
    assert red_share(renderer.render(view).rgba) > 0.1
    blue = np.tile(np.array([0, 0, 255], np.uint8), (len(mesh.vertices), 1))
    centre = renderer.render(view, blue).rgba[100, 100]
    assert centre[2] > 150
    assert centre[0] == 0


def test_a_room_filmed_from_inside_is_open_towards_the_viewer():
    inside = poses_at([(1.5, 0, 0), (0, 1.5, 0), (-1.5, 0.5, 0), (0, -1.5, 0.5)])
    view = view_from((9.0, 3.0, 4.0))
    closed = MeshRenderer(room_with_ball()).render(view)
    opened = MeshRenderer(room_with_ball(), inside).render(view)
    assert red_share(closed.rgba) == 0.0
    assert red_share(opened.rgba) > 0.02


def test_faces_wound_the_other_way_round_are_opened_too():
    room = room_with_ball()
    flipped = Mesh(
        vertices=room.vertices,
        colours=room.colours,
        faces=np.ascontiguousarray(room.faces[:, ::-1]),
    )
    inside = poses_at([(1.5, 0, 0), (0, 1.5, 0), (-1.5, 0.5, 0), (0, -1.5, 0.5)])
    picture = MeshRenderer(flipped, inside).render(view_from((9.0, 3.0, 4.0)))
    assert red_share(picture.rgba) > 0.02


def test_a_path_is_faint_where_the_surface_hides_it():
    view = view_from((5.0, 0.0, 0.0))
    picture = MeshRenderer(ball(1.0)).render(view)
    line = np.stack([np.zeros(41), np.linspace(-1.5, 1.5, 41), np.zeros(41)], axis=1)
    blue, towards = (0, 0, 255), np.array([2.0, 0, 0])
    behind = with_path(picture, view, line - towards, blue).rgba[100, 100]
    before = with_path(picture, view, line + towards, blue).rgba[100, 100]
    assert before[2] > 240
    assert 20 < behind[2] < 140


def test_a_path_behind_the_viewer_or_of_nan_draws_nothing():
    view = view_from((5.0, 0.0, 0.0))
    picture = MeshRenderer(ball(1.0)).render(view)
    for path in (np.full((3, 3), np.nan), np.array([[9.0, 0, 0], [9.0, 1, 0]]), np.zeros((0, 3))):
        assert (with_path(picture, view, path, (0, 0, 255)).rgba == picture.rgba).all()


def test_an_empty_mesh_and_nan_vertices_are_survived():
    view = view_from((5.0, 0.0, 0.0), size=32)
    assert not MeshRenderer(Mesh.empty(), poses_at([(1, 0, 0)])).render(view).rgba.any()
    whole = ball(1.0)
    whole.vertices[:50] = np.nan
    assert MeshRenderer(whole).render(view).rgba.any()


def test_both_views_see_every_point_and_use_the_picture():
    points = np.random.default_rng(2).uniform((-8, -3, 0), (8, 3, 2), (5000, 3))
    for view in two_views(points, UP, np.zeros(3), 400, 280):
        seen = transform(inverse(view.world_from_cam), points)
        pixels = seen[:, :2] / seen[:, 2:] * (view.camera.fx, view.camera.fy)
        half = np.array([200, 140])
        inside = (np.abs(pixels) <= half).all(axis=1) & (seen[:, 2] > 0)
        assert inside.all()
        assert (np.abs(pixels).max(axis=0) / half).max() > 0.85
        assert (inverse(view.world_from_cam)[:3, :3] @ UP)[1] < 0  # up is up in the picture


def test_views_stand_where_the_camera_stood_or_on_opposite_sides():
    points = np.random.default_rng(2).uniform(-1, 1, (1000, 3))

    def angle_deg(looking: np.ndarray) -> float:
        a, b = (view.world_from_cam[:2, 2] for view in two_views(points, UP, looking, 400, 280))
        return float(np.degrees(np.arccos(a @ b / np.linalg.norm(a) / np.linalg.norm(b))))

    ahead = np.array([0.6, -0.7, 0.1])
    assert angle_deg(np.zeros(3)) == pytest.approx(180.0, abs=1e-3)
    assert angle_deg(ahead) == pytest.approx(70.0)
    for view in two_views(points, UP, ahead, 400, 280):
        assert view.world_from_cam[:3, 2] @ ahead > 0.5
    np.testing.assert_allclose(mean_viewing_direction(poses_at([(0, 3, 0)])), [0, -1, 0])


def test_the_core_keeps_even_bodies_whole_and_cuts_the_horizon_off():
    rng = np.random.default_rng(2)
    cube, line = rng.uniform(-1, 1, (5000, 3)), rng.uniform(-9, 9, (5000, 1)) * [1.0, 0, 0]
    assert len(core_of(cube, 2.2)) == 5000
    assert len(core_of(line, 2.2)) == 5000
    plain = rng.uniform(-200, 200, (500, 3))
    assert np.abs(core_of(np.concatenate([cube, plain]), 2.2)).max() < 4.0
    assert len(core_of(np.zeros((0, 3)), 2.2)) == 0
    assert len(core_of(np.ones((5, 3)), 2.2)) == 5


def test_the_vertical_is_where_upright_cameras_have_it():
    looking_round = poses_at([(3, 0, 1.0), (0, 3, 1.0), (-3, 0, 1.0)])
    np.testing.assert_array_equal(vertical(looking_round), UP)
    first_camera = StampedPoses(np.zeros(1, np.int64), np.eye(4)[None])
    np.testing.assert_array_equal(vertical(first_camera), [0.0, -1.0, 0.0])
    unknown = StampedPoses(np.zeros(1, np.int64), np.full((1, 4, 4), np.nan))
    np.testing.assert_array_equal(vertical(unknown), UP)


def test_the_plan_lies_along_the_widest_direction():
    line = np.linspace(0, 1, 50)[:, None] * [3.0, 4.0, 0.5]
    upright = upright_from_world(line, UP)
    np.testing.assert_allclose(upright @ upright.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(upright) == pytest.approx(1.0)
    np.testing.assert_allclose(np.abs(upright[0]), [0.6, 0.8, 0.0], atol=1e-9)
