# SPDX-License-Identifier: Apache-2.0
"""What is a wall and what lies on it: planes at known places, with and without things behind."""

from __future__ import annotations

import numpy as np
import pytest

from worldsystem_core.frames import Camera
from worldsystem_segment.config import SegmentConfig
from worldsystem_segment.geometric.walls import (
    MAX_BEHIND_FRACTION,
    closes_scene,
    first_surface,
    is_wall,
    plane_in,
    same_plane,
)
from worldsystem_segment.objects.view import View

CAMERA = Camera.from_horizontal_fov(160, 120, np.deg2rad(60.0))
UP_CAM = np.array([0.0, -1.0, 0.0], np.float32)
FACING = np.array([0.0, 0.0, -1.0])
H, W = CAMERA.height, CAMERA.width


def _at(depth: np.ndarray, normal=FACING, valid=None) -> View:
    """A view of these depths, every pixel of it with the same normal."""
    v, u = np.mgrid[0:H, 0:W]
    rays = np.stack([(u - CAMERA.cx) / CAMERA.fx, (v - CAMERA.cy) / CAMERA.fy, np.ones((H, W))])
    valid = np.ones((H, W), bool) if valid is None else valid
    points = np.where(valid, rays * depth, np.nan)
    normals = np.broadcast_to(np.asarray(normal, float), (H, W, 3))
    return View(
        keyframe_id=0,
        stride=1,
        camera=CAMERA,
        rgb=np.zeros((H, W, 3), np.uint8),
        valid=valid,
        points_cam=np.moveaxis(points, 0, -1).astype(np.float32),
        normals=np.where(valid[..., None], normals, np.nan).astype(np.float32),
        world_from_cam=np.eye(4),
        noise=0.0,
    )


def _plane(normal, through) -> np.ndarray:
    unit = np.asarray(normal, float) / np.linalg.norm(normal)
    return np.append(unit, -unit @ np.asarray(through, float))


WALL = _plane(FACING, (0, 0, 2.0))


@pytest.mark.parametrize(
    ("share_behind", "closes"),
    [(0.0, True), (0.5 * MAX_BEHIND_FRACTION, True), (2 * MAX_BEHIND_FRACTION, False)],
)
def test_a_wall_closes_the_scene_unless_points_lie_behind_it(share_behind, closes) -> None:
    depth = np.full((H, W), 2.0)
    depth[:, : round(share_behind * W)] = 3.0  # seen past its side
    assert closes_scene(_at(depth), WALL[None], UP_CAM).tolist() == [closes]


def test_what_lies_before_a_wall_or_hardly_behind_it_does_not_count() -> None:
    for depth in (1.0, 2.05):  # the noise of depth is allowed for: 5 % of it
        assert closes_scene(_at(np.full((H, W), depth)), WALL[None], UP_CAM).all()
    assert not closes_scene(_at(np.full((H, W), 2.2)), WALL[None], UP_CAM).any()


@pytest.mark.parametrize(
    ("tilt_deg", "closes"), [(0, True), (15, True), (20, False), (60, False), (70, True)]
)
def test_only_what_is_upright_or_level_closes_the_scene(tilt_deg, closes) -> None:
    """The limits are 17.5 degrees from upright and 25.8 from level; a roof lies between them."""
    tilt = np.deg2rad(tilt_deg)
    leaning = _plane((0, -np.sin(tilt), -np.cos(tilt)), (0, 0, 9.0))
    view = _at(np.full((H, W), 2.0))
    assert closes_scene(view, leaning[None], UP_CAM).tolist() == [closes]
    assert closes_scene(view, leaning[None], None).all()  # nobody knows what is upright


def test_no_plane_closes_nothing() -> None:
    assert closes_scene(_at(np.full((H, W), 2.0)), np.zeros((0, 4)), UP_CAM).shape == (0,)


def test_a_wall_is_as_large_as_asked_and_runs_out_of_the_picture() -> None:
    view, region = _at(np.full((H, W), 2.0)), np.zeros((H, W), bool)
    region[40:80, :60] = True
    area = 40 * 60 * (2.0 / CAMERA.fx) ** 2
    # A slanting ray meets a smaller part of a surface than is reckoned: 15 % at the border.
    assert is_wall(view, region, 0.95 * area)
    assert not is_wall(view, region, 1.3 * area)
    assert not is_wall(view, np.roll(region, 10, axis=1), 0.5 * area)
    assert not is_wall(view, np.zeros((H, W), bool), 0.0)


def test_the_picture_ends_where_its_depth_does() -> None:
    valid = np.zeros((H, W), bool)
    valid[20:100, 30:130] = True
    view, region = _at(np.full((H, W), 2.0), valid=valid), np.zeros((H, W), bool)
    region[40:80, 30:80] = True
    assert is_wall(view, region, 0.06)
    assert not is_wall(view, np.roll(region, 10, axis=1), 0.06)
    nothing = _at(np.full((H, W), 2.0), valid=np.zeros((H, W), bool))
    assert not is_wall(nothing, region, 0.0)


def test_planes_are_the_same_within_14_degrees_and_6_hundredths() -> None:
    turned = [_plane((np.sin(a), 0, -np.cos(a)), (0, 0, 2.0)) for a in np.deg2rad([0, 10, 13, 15])]
    for plane in turned:
        plane[3] = 2.0  # only its turn differs
    assert same_plane(np.array(turned), WALL).tolist() == [True, True, True, False]
    moved = np.array([WALL + np.array([0, 0, 0, by]) for by in (0.05, -0.05, 0.07, -0.07)])
    assert same_plane(moved, WALL).tolist() == [True, True, False, False]
    assert not same_plane(-WALL[None], WALL).any()  # the other side of it
    assert same_plane(np.zeros((0, 4)), WALL).shape == (0,)


def test_a_plane_in_another_frame_holds_the_same_points() -> None:
    angle = 0.4
    other_from_cam = np.eye(4)
    other_from_cam[:3, :3] = [
        [np.cos(angle), -np.sin(angle), 0],
        [np.sin(angle), np.cos(angle), 0],
        [0, 0, 1],
    ]
    other_from_cam[:3, 3] = 1.0, -2.0, 0.5
    plane = _plane((0.3, -0.2, -1.0), (0, 0, 2.0))
    on_it = np.array([0.0, 0.0, 2.0]) + np.array([[0, 0, 0], [2, 3, 0], [0, 5, -1.0]])
    there = on_it @ other_from_cam[:3, :3].T + other_from_cam[:3, 3]
    moved = plane_in(other_from_cam, plane)
    np.testing.assert_allclose(on_it @ plane[:3] + plane[3], 0.0, atol=1e-12)
    np.testing.assert_allclose(there @ moved[:3] + moved[3], 0.0, atol=1e-12)


def test_pixels_are_on_the_first_surface_near_them_that_looks_their_way() -> None:
    config = SegmentConfig()
    tolerance = 2.0 * config.ground_tolerance
    depth = np.full((H, W), 2.0)
    depth[:, 40:80] = 2.0 * (1 + 0.7 * tolerance)  # near it
    depth[:, 80:120] = 2.0 * (1 + 2 * tolerance)  # too far behind it, on another
    depth[:, 120:] = 5.0  # on none
    behind = _plane(FACING, (0, 0, depth[0, 80]))
    view, which = _at(depth), np.ones((H, W), bool)
    which[:10] = False
    found = first_surface(view, [WALL, behind, WALL], which, config)
    assert (found[:10] == -1).all()
    assert [set(np.unique(part)) for part in np.split(found[10:], [80, 120], axis=1)] == [
        {0}, {1}, {-1},
    ]  # fmt: skip
    aside = first_surface(_at(depth, (1.0, 0.0, 0.0)), [WALL], which, config)
    assert (aside[10:, :40] == 0).all()  # so near that its way does not matter
    assert (aside[10:, 40:] == -1).all()


def test_depth_that_is_noisier_is_allowed_to_lie_farther_from_its_surface() -> None:
    noisy = _at(np.full((H, W), 2.12))
    which = np.ones((H, W), bool)
    assert (first_surface(noisy, [WALL], which, SegmentConfig()) == -1).all()
    object.__setattr__(noisy, "noise", 0.025)
    assert (first_surface(noisy, [WALL], which, SegmentConfig()) == 0).all()


def test_a_surface_reaches_no_farther_than_it_was_seen() -> None:
    view, which = _at(np.full((H, W), 2.0)), np.ones((H, W), bool)
    within = [(np.array([0.0, 0.0, 2.0]), 0.4)]
    found = first_surface(view, [WALL], which, SegmentConfig(), within)
    away = np.linalg.norm(view.points_cam - [0, 0, 2.0], axis=-1)
    assert np.array_equal(found == 0, away < 0.4)
    assert (first_surface(view, [], which, SegmentConfig()) == -1).all()
