# SPDX-License-Identifier: Apache-2.0
"""Normals, boxes, shapes, colours and voxels against shapes whose answer is known."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from worldsystem_core.frames import Camera
from worldsystem_segment.geometric.labels import colour_name, median_lab, shape_name, size_name
from worldsystem_segment.geometric.tags import find_tags
from worldsystem_segment.learned.detector import Found, box_iou
from worldsystem_segment.objects.boxes import oriented_box
from worldsystem_segment.objects.normals import normals_cam, smooth_depth
from worldsystem_segment.objects.voxels import dilated, is_in, voxel_keys

CAMERA = Camera.from_horizontal_fov(160, 90, np.deg2rad(70.0))
UP = np.array([0.0, 0.0, 1.0], np.float32)


def _plane_depth(normal: np.ndarray, distance: float) -> np.ndarray:
    u, v = np.meshgrid(np.arange(CAMERA.width), np.arange(CAMERA.height))
    rays = np.stack([(u - CAMERA.cx) / CAMERA.fx, (v - CAMERA.cy) / CAMERA.fy, np.ones(u.shape)])
    return (-distance / np.tensordot(normal, rays, 1)).astype(np.float32)


@pytest.mark.parametrize("normal", [(0, 0, -1), (0.3, -0.5, -1), (-0.6, 0.1, -1)])
def test_normals_of_a_plane_are_its_normal_everywhere_and_face_the_camera(normal) -> None:
    unit = np.array(normal) / np.linalg.norm(normal)
    depth = _plane_depth(unit, 4.0)
    assert (depth > 0).all()
    normals = normals_cam(depth, np.ones(depth.shape, bool), CAMERA)
    inner = normals[4:-4, 4:-4]  # the picture's border repeats, which bends the slope
    assert np.degrees(np.arccos(np.clip(inner @ unit, -1, 1))).max() < 0.2


def test_smoothing_keeps_a_step_and_takes_noise_away() -> None:
    random = np.random.default_rng(0)
    clean = np.where(np.arange(160) < 80, 2.0, 3.0)[None, :].repeat(90, axis=0)
    noisy = (clean * (1 + 0.01 * random.standard_normal(clean.shape))).astype(np.float32)
    smooth, noise = smooth_depth(noisy, np.ones(clean.shape, bool))
    assert np.abs(smooth / clean - 1).std() < 0.4 * 0.01
    assert 0.007 < noise < 0.012
    assert np.abs(smooth / clean - 1).max() < 0.05  # no pixel lies between the two sides


def test_unknown_depth_stays_unknown_and_bends_nothing() -> None:
    depth = np.full((90, 160), 2.0, np.float32)
    valid = np.ones(depth.shape, bool)
    valid[40:50, 70:90] = False
    smooth, _ = smooth_depth(depth, valid)
    assert np.isnan(smooth[~valid]).all()
    assert np.allclose(smooth[valid], 2.0, rtol=1e-3)
    normals = normals_cam(smooth, valid, CAMERA)
    assert np.isnan(normals[~valid]).all()
    assert np.allclose(normals[valid], (0, 0, -1), atol=0.01)


def test_nothing_known_gives_nothing() -> None:
    smooth, noise = smooth_depth(np.ones((9, 16), np.float32), np.zeros((9, 16), bool))
    assert np.isnan(smooth).all()
    assert noise == 0.0


def _box_surface(size: tuple[float, float, float], yaw_rad: float) -> np.ndarray:
    points = np.random.default_rng(1).uniform(-0.5, 0.5, (6000, 3))
    side = np.random.default_rng(2).integers(0, 3, 6000)
    points[np.arange(6000), side] = np.sign(points[np.arange(6000), side]) * 0.5
    turn = cv2.Rodrigues(np.array([0.0, 0.0, yaw_rad]))[0]
    return ((points * size) @ turn.T + (1.0, 2.0, 3.0)).astype(np.float32)


def test_an_upright_box_has_its_centre_its_edges_and_its_yaw() -> None:
    world_from_box, size = oriented_box(_box_surface((2.0, 1.0, 0.5), 0.4), UP)
    assert np.allclose(world_from_box[:3, 3], (1, 2, 3), atol=0.03)
    assert np.allclose(sorted(size), (0.5, 1.0, 2.0), atol=0.06)  # 1 % is trimmed at each side
    assert np.isclose(np.linalg.det(world_from_box[:3, :3]), 1.0)
    yaw_rad = np.arctan2(world_from_box[1, 0], world_from_box[0, 0])
    assert abs((yaw_rad - 0.4 + np.pi / 4) % (np.pi / 2) - np.pi / 4) < 0.03


def test_a_box_of_a_single_point_has_no_size() -> None:
    for up in (UP, None):
        world_from_box, size = oriented_box(np.array([[1.0, 2.0, 3.0]], np.float32), up)
        assert np.allclose(size, 0.0)
        assert np.allclose(world_from_box[:3, 3], (1, 2, 3))


def test_shapes_are_told_apart_by_their_visible_side() -> None:
    random = np.random.default_rng(3)
    ball = random.standard_normal((300, 3))
    ball /= np.linalg.norm(ball, axis=1, keepdims=True)
    ball = ball[ball @ (1, 0, 0.5) > 0.2].astype(np.float32)
    assert shape_name(ball, ball, UP) == "ball"
    angle = random.uniform(-1.2, 1.2, 300)
    side = np.stack([np.cos(angle), np.sin(angle), np.zeros(300)], 1).astype(np.float32)
    tube = side + UP * random.uniform(-1, 1, (300, 1)).astype(np.float32)
    assert shape_name(tube, side, UP) == "cylinder"
    plate = random.uniform(-1, 1, (300, 3)).astype(np.float32) * (1, 1, 0)
    level = np.tile(UP, (300, 1))
    assert shape_name(plate.astype(np.float32), level, UP) == "flat"
    assert shape_name(plate[:5].astype(np.float32), level[:5], UP) == "object"


@pytest.mark.parametrize(
    ("rgb", "name"),
    [
        ((200, 20, 20), "red"), ((30, 60, 200), "blue"), ((40, 160, 50), "green"),
        ((240, 220, 40), "yellow"), ((240, 130, 20), "orange"), ((120, 40, 150), "purple"),
        ((250, 170, 190), "pink"), ((110, 70, 30), "brown"), ((20, 20, 20), "black"),
        ((128, 128, 128), "grey"), ((250, 250, 250), "white"), ((40, 210, 210), "cyan"),
    ],
)  # fmt: skip
def test_plain_colours_have_their_names(rgb, name) -> None:
    assert colour_name(median_lab(np.array([rgb] * 3, np.uint8))) == name


def test_sizes_are_named_only_when_remarkable() -> None:
    assert [size_name(s) for s in (0.01, 0.2, 0.9)] == ["small", "", "large"]


def test_voxel_sets_hold_what_was_put_in_and_its_neighbours() -> None:
    keys = voxel_keys(np.array([[0.01, 0.01, 0.01], [-0.01, 0.0, 0.0]]), 0.1)
    assert keys[0] != keys[1]
    assert is_in(keys[1:], dilated(keys[:1])).all()
    far = voxel_keys(np.array([[0.25, 0.0, 0.0]]), 0.1)
    assert not is_in(far, dilated(keys[:1])).any()
    assert not is_in(keys, np.zeros(0, np.int64)).any()


def test_a_printed_marker_is_read() -> None:
    dictionary = cv2.aruco.getPredefinedDictionary(cv2.aruco.DICT_4X4_50)
    picture = np.full((120, 160, 3), 255, np.uint8)
    picture[30:90, 50:110] = cv2.aruco.generateImageMarker(dictionary, 7, 60)[..., None]
    ((number, centre),) = find_tags(picture)
    assert number == 7
    assert np.allclose(centre, (79.5, 59.5), atol=1.0)
    assert find_tags(np.full((120, 160, 3), 255, np.uint8)) == []


def test_boxes_overlap_as_geometry_says() -> None:
    assert box_iou((0, 0, 2, 2), (1, 0, 3, 2)) == pytest.approx(1 / 3)
    assert box_iou((0, 0, 1, 1), (2, 2, 3, 3)) == 0.0
    assert Found((0, 0, 1, 1), "a", 0.5, ()).label == "a"
