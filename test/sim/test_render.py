# SPDX-License-Identifier: Apache-2.0
"""The renderer against the laws of projection."""

from __future__ import annotations

import numpy as np
import pytest

from worldsystem_core.geometry.pinhole import pointmap_from_depth, project
from worldsystem_core.geometry.se3 import inverse, look_at, transform
from worldsystem_sim.render import Renderer
from worldsystem_sim.scene import build_scene

UP = np.array([0.0, 0.0, 1.0])
POSE = look_at(np.array([20.0, -4.0, 11.0]), np.array([2.0, 0.0, 1.0]), UP)


def test_the_same_seed_gives_the_same_bytes(renderer, config):
    again = Renderer(build_scene.__wrapped__(1), config.camera).render(POSE)
    view = renderer.render(POSE)
    assert np.array_equal(view.rgb, again.rgb)
    assert np.array_equal(view.depth_m, again.depth_m)
    assert np.array_equal(view.ids, again.ids)


def test_another_seed_gives_another_picture(renderer, config):
    other = Renderer(build_scene(2), config.camera).render(POSE)
    assert np.abs(other.rgb.astype(int) - renderer.render(POSE).rgb).mean() > 5


def test_depth_seen_from_one_pose_is_the_depth_seen_from_another(renderer, config):
    """Points lifted from A and projected into B must lie at B's depth unless hidden in B."""
    other = look_at(np.array([19.0, -1.0, 11.5]), np.array([2.0, 0.5, 1.0]), UP)
    points = pointmap_from_depth(renderer.render(POSE).depth_m, config.camera).reshape(-1, 3)
    points = points[np.isfinite(points[:, 2])]
    in_b = transform(inverse(other) @ POSE, points)
    uv, inside = project(in_b, config.camera)
    column, row = np.round(uv[inside]).astype(int).T
    seen_m = renderer.render(other).depth_m[row, column]
    expected_m = in_b[inside, 2]
    assert inside.sum() > 5000
    # Rounding to a pixel moves a slanted surface's depth by a few percent; hidden points are rarer.
    assert np.mean(np.abs(seen_m - expected_m) < 0.04 * expected_m) > 0.93
    assert np.mean(seen_m > 1.15 * expected_m) < 0.02  # nothing is seen through


def test_a_vertex_of_the_mesh_lies_where_the_camera_model_says(renderer, scene, config):
    """Project vertices with K; those whose depth agrees with the picture carry its instance id."""
    vertices = scene.triangles.corners_m[scene.triangles.instance > 1].mean(axis=1).astype(float)
    instances = scene.triangles.instance[scene.triangles.instance > 1]
    cam = transform(inverse(POSE), vertices)
    uv, inside = project(cam, config.camera)
    column, row = np.round(uv[inside]).astype(int).T
    view = renderer.render(POSE)
    visible = np.abs(view.depth_m[row, column] - cam[inside, 2]) < 0.02
    assert visible.sum() > 300
    assert np.mean(view.ids[row, column][visible] == instances[inside][visible]) > 0.95


def test_every_id_in_the_picture_has_a_class_name(renderer, scene):
    ids = np.unique(renderer.render(POSE).ids)
    assert {scene.class_names[int(i)] for i in ids if i} >= {"ground", "house", "car", "tree"}


def test_sky_has_infinite_depth_and_id_zero(renderer):
    up = look_at(np.array([0.0, 0.0, 30.0]), np.array([0.0, 40.0, 50.0]), UP)
    view = renderer.render(up)
    sky = np.isinf(view.depth_m)
    assert sky.mean() > 0.9
    assert np.array_equal(view.ids == 0, sky)


def test_more_exposure_is_brighter(renderer):
    assert renderer.render(POSE, 2.0).rgb.mean() > 1.2 * renderer.render(POSE, 1.0).rgb.mean()


def test_the_truth_alone_equals_the_truth_of_the_picture(renderer):
    view = renderer.render(POSE)
    depth_m, ids = renderer.render_truth(POSE)
    assert np.array_equal(depth_m, view.depth_m)
    assert np.array_equal(ids, view.ids)


def test_texture_does_not_flicker_when_the_camera_moves_a_hair(renderer):
    """Aliasing would change pixels at random; a tenth of a pixel must change little."""
    shifted = POSE.copy()
    shifted[:3, 3] += 0.01 * POSE[:3, 0]
    change = np.abs(renderer.render(POSE).rgb.astype(int) - renderer.render(shifted).rgb)
    assert change.mean() < 4.0


@pytest.mark.parametrize("name", ["house", "window", "door", "barn", "car", "crate", "tree"])
def test_the_scene_has_each_kind_of_thing(scene, name):
    assert name in scene.class_names.values()


def test_the_ground_truth_mesh_is_indexed_soundly(scene):
    mesh = scene.mesh()
    assert mesh.faces.min() == 0
    assert mesh.faces.max() == len(mesh.vertices) - 1
    assert np.isfinite(mesh.vertices).all()
    assert len(mesh.colours) == len(mesh.vertices)
