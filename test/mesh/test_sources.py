# SPDX-License-Identifier: Apache-2.0
"""Depth images, point maps and point clouds as keyframes, against surfaces known by geometry."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from worldsystem_core.frames import Camera
from worldsystem_core.geometry.pinhole import pointmap_from_depth
from worldsystem_mesh.config import MeshConfig
from worldsystem_mesh.sources import (
    NotAligned,
    NotAPinhole,
    PointCloud,
    fitted_camera,
    keyframe_from_depth,
    keyframes_from_cloud,
    with_fitting_camera,
)
from worldsystem_mesh.view import view_from_keyframe

CAMERA = Camera(width=64, height=48, fx=60.0, fy=58.0, cx=30.5, cy=25.0)


def wavy_depth() -> np.ndarray:
    v, u = np.mgrid[0:48, 0:64]
    return (3.0 + 0.4 * np.sin(u / 9) + 0.3 * np.cos(v / 7)).astype(np.float32)


def sphere_cloud(count: int, radius: float, sensor: tuple[float, float, float]) -> PointCloud:
    """Points on a sphere around the origin, seen from within."""
    rng = np.random.default_rng(3)
    direction = rng.normal(size=(count, 3))
    points = radius * direction / np.linalg.norm(direction, axis=1, keepdims=True)
    rgb = np.full((count, 3), (200, 100, 50), np.uint8)
    return PointCloud(points.astype(np.float32), rgb, np.array(sensor))


def test_the_camera_of_a_point_map_is_found_despite_holes_and_outliers():
    pointmap = pointmap_from_depth(wavy_depth(), CAMERA)
    pointmap[10:20, 5:25] = np.nan
    pointmap[::24, ::24, 0] += 0.5  # one of the points looked at in sixteen is elsewhere
    fitted = fitted_camera(pointmap)
    assert fitted.camera.fx == pytest.approx(CAMERA.fx, rel=1e-3)
    assert fitted.camera.fy == pytest.approx(CAMERA.fy, rel=1e-3)
    assert fitted.camera.cx == pytest.approx(CAMERA.cx, abs=0.05)
    assert fitted.camera.cy == pytest.approx(CAMERA.cy, abs=0.05)
    assert fitted.residual_px < 0.1


def test_a_wrong_camera_is_replaced_and_a_right_one_kept(sphere_keyframes):
    keyframe = sphere_keyframes(4)[0]
    assert with_fitting_camera(keyframe) is keyframe
    wrong = replace(keyframe.camera, fx=1.3 * keyframe.camera.fx, cx=70.0)
    mended = with_fitting_camera(replace(keyframe, camera=wrong))
    assert mended.camera.fx == pytest.approx(keyframe.camera.fx, rel=1e-3)
    assert mended.pointmap is keyframe.pointmap


def test_points_beside_their_pixels_are_drawn_where_the_camera_sees_them():
    depth = wavy_depth()
    rng = np.random.default_rng(1)
    pointmap = pointmap_from_depth(depth, CAMERA)
    shift = rng.normal(0.0, 0.8, (48, 64, 2)) * (depth / 60.0)[..., None]
    pointmap[..., :2] += shift.astype(np.float32)
    rgb = np.zeros((48, 64, 3), np.uint8)
    made = keyframe_from_depth(0, depth, rgb, CAMERA, np.eye(4))
    drawn = with_fitting_camera(replace(made, pointmap=pointmap))
    again = drawn.pointmap[..., 2]
    known = np.isfinite(again)
    assert known.mean() > 0.5
    assert np.abs(again - depth)[known].max() < 0.2  # a neighbour's depth at most
    assert (drawn.confidence > 0)[known].all()
    assert not drawn.confidence[~known].any()


def test_points_that_suggest_no_camera_are_refused_and_not_fused(make_mesher):
    with pytest.raises(NotAPinhole, match="only 0"):
        fitted_camera(np.full((48, 64, 3), np.nan, np.float32))
    mirrored = pointmap_from_depth(wavy_depth(), CAMERA)[:, ::-1]
    with pytest.raises(NotAPinhole, match="focal lengths"):
        fitted_camera(mirrored)
    made = keyframe_from_depth(7, wavy_depth(), np.zeros((48, 64, 3), np.uint8), CAMERA, np.eye(4))
    mesher = make_mesher()
    assert mesher.integrate(replace(made, pointmap=mirrored)) == 0
    assert mesher.stats()["empty_keyframes"] == 1


def test_a_keyframe_with_a_wrong_camera_is_fused_where_its_points_are(make_mesher, plane_keyframes):
    mesher = make_mesher(min_weight=0.5)
    (keyframe,) = plane_keyframes(1)
    wrong = replace(keyframe.camera, fx=1.2 * keyframe.camera.fx)
    mesher.integrate(replace(keyframe, camera=wrong))
    mesher.settle(0)
    vertices = mesher.mesh().vertices
    assert len(vertices) > 1000
    assert np.abs(vertices[:, 2]).mean() < 0.01


@pytest.mark.parametrize("name", ["pointmap", "confidence", "rgb"])
def test_arrays_of_another_type_are_fused_as_the_numbers_that_they_hold(sphere_keyframes, name):
    """As of a program of one's own, where numpy makes float64 of most things."""
    keyframe, config = sphere_keyframes(4)[0], MeshConfig()
    array = getattr(keyframe, name)
    other = replace(keyframe, **{name: array.astype(np.int64 if name == "rgb" else np.float64)})
    view, twin = view_from_keyframe(other, config, 1), view_from_keyframe(keyframe, config, 1)
    np.testing.assert_array_equal(view.depth, twin.depth)
    np.testing.assert_array_equal(view.paint, twin.paint)
    assert view.depth_step == pytest.approx(twin.depth_step, rel=1e-6)


def test_a_depth_image_is_known_where_its_depth_is():
    depth = wavy_depth()
    depth[0, 0], depth[0, 1], depth[0, 2] = 0.0, np.nan, -1.0
    made = keyframe_from_depth(1, depth, np.zeros((48, 64, 3), np.uint8), CAMERA, np.eye(4))
    assert np.isnan(made.pointmap[0, :3, 2]).all()
    assert made.confidence.sum() == 48 * 64 - 3
    np.testing.assert_array_equal(made.pointmap[1:, :, 2], depth[1:])


def test_the_faces_of_a_cloud_see_every_point_once():
    cloud = sphere_cloud(20_000, 2.0, (0.3, -0.2, 0.1))
    frames = keyframes_from_cloud(10, cloud)
    assert [frame.id for frame in frames] == [10, 11, 12, 13, 14, 15]
    for frame in frames:
        in_world = frame.pointmap[frame.confidence > 0] @ frame.world_from_cam[:3, :3].T
        radius = np.linalg.norm(in_world + frame.world_from_cam[:3, 3], axis=1)
        assert len(radius) > 500
        assert np.abs(radius - 2.0).max() < 0.1  # half a pixel to the side, and filled pixels


def test_a_fused_cloud_is_a_closed_surface_around_its_sensor(make_mesher, edge_uses):
    mesher = make_mesher(min_weight=0.5, voxel=0.1)
    for turn, sensor in enumerate([(0.0, 0.0, 0.0), (0.3, 0.1, -0.2), (-0.2, 0.3, 0.1)]):
        for frame in keyframes_from_cloud(6 * turn, sphere_cloud(60_000, 2.0, sensor)):
            mesher.integrate(frame)
    mesher.settle(0)
    mesh = mesher.mesh(min_component_faces=100)
    assert np.abs(np.linalg.norm(mesh.vertices, axis=1) - 2.0).mean() < 0.03
    assert (edge_uses(mesh) == 2).mean() > 0.999
    assert (np.abs(mesh.colours.astype(int) - (200, 100, 50)) <= 1).all()


def test_the_page_shows_how_a_cloud_is_fused():
    page = Path(__file__).parents[2] / "docs" / "meshing.md"
    (example,) = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, Any] = {}
    exec(example, names)
    radius = np.linalg.norm(names["mesh"].vertices, axis=1)
    assert len(radius) > 1000
    assert np.abs(radius - 2.0).mean() < 0.03


def test_rays_of_a_cloud_wear_away_what_they_pass(make_mesher):
    wall = sphere_cloud(60_000, 2.0, (0.0, 0.0, 0.0))
    ghost = sphere_cloud(60_000, 1.0, (0.0, 0.0, 0.0))
    mesher = make_mesher(min_weight=0.5, voxel=0.1)
    for frame in keyframes_from_cloud(0, ghost):
        mesher.integrate(frame)
    for turn in range(1, 5):
        for frame in keyframes_from_cloud(6 * turn, wall):
            mesher.integrate(frame)
    mesher.settle(0)
    assert np.linalg.norm(mesher.mesh().vertices, axis=1).min() > 1.8


def test_clouds_without_a_usable_point_give_nothing():
    nothing = np.zeros((0, 3), np.float32)
    assert keyframes_from_cloud(0, PointCloud(nothing, nothing.astype(np.uint8), np.zeros(3))) == []
    bad = np.array([[np.nan, 0, 0], [np.inf, 0, 0], [1, 2, 3]], np.float32)
    at_sensor = PointCloud(bad, np.zeros((3, 3), np.uint8), np.array([1.0, 2.0, 3.0]))
    assert keyframes_from_cloud(0, at_sensor) == []


def test_a_single_point_is_a_cloud_too():
    place = np.array([[2.0, 0.1, 0.2]], np.float32)
    point = PointCloud(place, np.zeros((1, 3), np.uint8), np.zeros(3))
    (frame,) = keyframes_from_cloud(0, point)
    assert np.isfinite(frame.pointmap[..., 2]).sum() == 1


@pytest.mark.parametrize(
    ("name", "shape"), [("rgb", (96, 128, 3)), ("rgb", (48, 64, 4)), ("confidence", (96, 128))]
)
def test_a_keyframe_whose_arrays_are_not_of_one_size_is_refused(make_mesher, name, shape):
    rgb = np.zeros((48, 64, 3), np.uint8)
    made = keyframe_from_depth(7, wavy_depth(), rgb, CAMERA, np.eye(4))
    odd = replace(made, **{name: np.ones(shape, getattr(made, name).dtype)})
    mesher = make_mesher()
    with pytest.raises(NotAligned, match=f"keyframe 7: {name} is"):
        mesher.integrate(odd)
    assert not mesher.stats()["keyframes"]
