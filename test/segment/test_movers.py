# SPDX-License-Identifier: Apache-2.0
"""What moves by itself: pictures whose shift is known give the move sideways that it stands for."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from worldsystem_core.frames import Camera
from worldsystem_segment.geometric.movers import (
    MEDIAN_PX,
    MIN_EVIDENCE_PX,
    EgoFlow,
    MoverFinder,
)
from worldsystem_segment.objects.view import View

CAMERA = Camera.from_horizontal_fov(320, 240, np.deg2rad(60.0))
FOCAL = CAMERA.fx
H, W = CAMERA.height, CAMERA.width
THING = np.s_[70:170, 100:220]
DEPTH = 2.0


def _picture(seed: int) -> np.ndarray:
    """Texture without end: blobs of some 10 px."""
    noise = np.random.default_rng(seed).standard_normal((H, W + 40)).astype(np.float32)
    blobs = cv2.GaussianBlur(noise, (0, 0), 4.0)
    return np.clip(128 + 50 * blobs / blobs.std(), 0, 255).astype(np.uint8)


def _view(grey: np.ndarray, x: float = 0.0, depth=DEPTH) -> View:
    """Walls facing the camera, `DEPTH` away where not told, from `x` to the right of the origin."""
    v, u = np.mgrid[0:H, 0:W]
    rays = np.stack([(u - CAMERA.cx) / FOCAL, (v - CAMERA.cy) / CAMERA.fy, np.ones((H, W))])
    world_from_cam = np.eye(4)
    world_from_cam[0, 3] = x
    return View(
        keyframe_id=0,
        stride=1,
        camera=CAMERA,
        rgb=np.repeat(grey[..., None], 3, axis=2),
        valid=np.ones((H, W), bool),
        points_cam=np.moveaxis(depth * rays, 0, -1).astype(np.float32),
        normals=np.broadcast_to(np.float32([0, 0, -1]), (H, W, 3)),
        world_from_cam=world_from_cam,
        noise=0.0,
    )


def _pixels(part) -> np.ndarray:
    inside = np.zeros((H, W), bool)
    inside[part] = True
    return np.flatnonzero(inside)


@pytest.mark.parametrize("shift_px", [3, -4])
@pytest.mark.parametrize("flown_px", [0, 6])
def test_a_known_shift_of_pixels_is_a_known_move_sideways(shift_px, flown_px) -> None:
    """Also where the camera itself went so far that the wall went by `flown_px`."""
    wall, thing = _picture(0), _picture(1)
    before, after = wall[:, 20 : 20 + W].copy(), wall[:, 20 + flown_px : 20 + flown_px + W].copy()
    before[THING] = thing[THING]
    now = 100 + shift_px - flown_px
    after[70:170, now : now + 120] = thing[THING]
    finder = MoverFinder()
    assert finder.compare(_view(before)) is None
    arrived = _view(after, x=flown_px * DEPTH / FOCAL)
    flow, there = finder.compare(arrived), _pixels(np.s_[70:170, now : now + 120])
    moved = flow.motion_of(there)
    assert moved * FOCAL == pytest.approx(abs(shift_px), abs=0.5)
    still = flow.motion_of(_pixels(np.s_[5:50, 20:300]))
    assert still * FOCAL < 0.3
    assert finder.compare(arrived).motion_of(there) * FOCAL < 0.1  # since the view before alone


def test_a_correction_moves_the_view_before_and_not_what_it_shows() -> None:
    wall, thing = _picture(0), _picture(1)
    before, after = wall[:, 20 : 20 + W].copy(), wall[:, 26 : 26 + W].copy()
    before[THING] = thing[THING]
    after[70:170, 97:217] = thing[THING]  # where the camera went 6 px, this went 3
    corrected = np.eye(4)
    corrected[0, 3] = 5.0
    finder = MoverFinder()
    finder.compare(_view(before))
    finder.follow(lambda _: corrected)
    flow = finder.compare(_view(after, x=5.0 + 6 * DEPTH / FOCAL))
    assert flow.motion_of(_pixels(np.s_[70:170, 97:217])) * FOCAL == pytest.approx(3, abs=0.5)
    finder.follow(lambda _: None)  # its keyframe was withdrawn
    assert finder.compare(_view(after)) is None


def test_what_stands_still_nearby_goes_by_faster_and_does_not_move() -> None:
    wall, thing = _picture(0), _picture(1)
    before, after = wall[:, 20 : 20 + W].copy(), wall[:, 26 : 26 + W].copy()
    before[THING] = after[70:170, 88:208] = thing[THING]  # twice as near: 12 px, the wall 6
    near, nearer = np.full((2, H, W), DEPTH)
    near[THING] = nearer[70:170, 88:208] = DEPTH / 2
    finder = MoverFinder()
    finder.compare(_view(before, depth=near))
    flow = finder.compare(_view(after, x=6 * DEPTH / FOCAL, depth=nearer))
    assert flow.motion_of(_pixels(np.s_[70:170, 88:208])) * FOCAL < 0.5


def test_a_pose_that_is_a_little_wrong_moves_nothing() -> None:
    wall, finder = _picture(0), MoverFinder()
    finder.compare(_view(wall[:, 20 : 20 + W]))
    flow = finder.compare(_view(wall[:, 22 : 22 + W]))  # flown by 2 px, which nobody knows
    assert flow.motion_of(_pixels(THING)) * FOCAL < 0.2


def test_after_forgetting_there_is_nothing_to_compare_with() -> None:
    finder = MoverFinder()
    grey = _picture(0)[:, :W]
    finder.compare(_view(grey))
    finder.forget()
    assert finder.compare(_view(grey)) is None
    assert finder.compare(_view(grey)) is not None


def test_views_that_share_too_little_are_not_compared() -> None:
    finder = MoverFinder()
    grey = _picture(0)[:, :W]
    finder.compare(_view(grey))
    assert finder.compare(_view(grey, x=0.95 * W * DEPTH / FOCAL)) is None


def test_a_picture_without_texture_is_no_evidence() -> None:
    finder = MoverFinder()
    blank = np.full((H, W), 128, np.uint8)
    finder.compare(_view(blank))
    flow = finder.compare(_view(blank))
    assert not flow.trusted.any()
    assert flow.motion_of(_pixels(THING)) is None


def _flow(trusted: np.ndarray, residual: np.ndarray) -> EgoFlow:
    return EgoFlow(residual.astype(np.float32), trusted, 200.0, np.ones((H, W), np.float32))


def test_the_move_is_the_median_of_the_trusted_pixels_by_the_focal_length() -> None:
    residual = np.full((H, W, 2), (3.0, -4.0))
    residual[THING][:45] = 90.0  # less than half of its 100 rows
    trusted = np.ones((H, W), bool)
    pixels = _pixels(THING)
    assert len(pixels) > 2 * MEDIAN_PX
    assert _flow(trusted, residual).motion_of(pixels) == pytest.approx(5.0 / 200.0)
    residual[THING][45:55] = 90.0
    trusted[THING][:55] = False
    assert _flow(trusted, residual).motion_of(pixels) == pytest.approx(5.0 / 200.0)


@pytest.mark.parametrize(
    ("count", "of", "known"),
    [
        (MIN_EVIDENCE_PX, 100, True),
        (MIN_EVIDENCE_PX - 1, 100, False),
        (150, 1000, True),
        (149, 1000, False),
        (0, 0, False),
    ],
)
def test_too_few_trusted_pixels_or_too_small_a_part_say_nothing(count, of, known) -> None:
    trusted = np.zeros((H, W), bool)
    trusted.reshape(-1)[:count] = True
    found = _flow(trusted, np.zeros((H, W, 2))).motion_of(np.arange(of))
    assert (found == 0.0) if known else (found is None)
