# SPDX-License-Identifier: Apache-2.0
"""The lens: bending and straightening are inverse, and pictures follow their pixels."""

from __future__ import annotations

from dataclasses import replace

import cv2
import filmed_room
import numpy as np
import pytest

from worldsystem_core.errors import ShapeChanged
from worldsystem_core.frames import Camera, Frame
from worldsystem_slam3r.geometric.intake import Intake
from worldsystem_slam3r.geometric.lens import Lens, LensChange, distort, undistort

PLAIN = filmed_room.camera(320, 180)
BARREL = replace(PLAIN, distortion=(-0.28, 0.07, 0.001, -0.002, 0.0))
CUSHION = replace(PLAIN, distortion=(0.2, 0.05, 0.0, 0.0, 0.0))


def _grid(step: int = 20) -> np.ndarray:
    v, u = np.mgrid[10:171:step, 10:311:step]
    return np.column_stack([u.ravel(), v.ravel()]).astype(np.float64)


@pytest.mark.parametrize("camera", [BARREL, CUSHION])
def test_bending_agrees_with_opencv_and_straightening_undoes_it(camera):
    rays = (_grid() - [camera.cx, camera.cy]) / camera.fx
    corners = np.column_stack([rays, np.ones(len(rays))])
    theirs, _ = cv2.projectPoints(
        corners, np.zeros(3), np.zeros(3), camera.K, np.array(camera.distortion)
    )
    px = distort(rays, camera)
    assert np.abs(px - theirs.reshape(-1, 2)).max() < 1e-9
    assert np.abs(undistort(px, camera) - rays).max() < 1e-6


def test_a_straight_lens_leaves_pictures_alone():
    picture = np.random.default_rng(0).integers(0, 255, (180, 320), np.uint8)
    lens = Lens.of(PLAIN)
    assert lens.straightened(picture) is picture
    assert np.array_equal(lens.pinhole_px(_grid()), _grid())


@pytest.mark.parametrize("camera", [BARREL, CUSHION])
def test_every_straight_pixel_was_filmed(camera):
    border = np.array([[0, 0], [319, 0], [0, 179], [319, 179], [160, 0], [0, 90]], np.float64)
    filmed = Lens.of(camera).filmed_px(border)
    assert (filmed > -0.5).all()
    assert (filmed < [319.5, 179.5]).all()


def test_pixels_and_pictures_go_over_to_a_new_lens_together():
    assumed, found = Lens.of(PLAIN), Lens.of(replace(BARREL, fx=240.0, fy=240.0))
    change = LensChange(assumed, found)
    marks = np.array([[80.0, 60.0], [160.0, 90.0], [230.0, 120.0]])
    picture = np.zeros((180, 320), np.uint8)
    for x, y in marks.astype(int).tolist():
        cv2.circle(picture, (x, y), 3, 255, -1)
    moved = change.picture(picture)
    for wanted in change.px(marks):
        x, y = wanted.round().astype(int)
        spot = moved[y - 6 : y + 7, x - 6 : x + 7].astype(float)
        v, u = np.mgrid[-6:7, -6:7]
        centre = np.array([(u * spot).sum(), (v * spot).sum()]) / spot.sum()
        assert np.abs(centre + np.array([x, y]) - wanted).max() < 0.3
    assert np.isnan(change.px(np.full((1, 2), np.nan))).all()
    back = LensChange(found, assumed).px(change.px(marks))
    assert np.abs(back - marks).max() < 1e-4


def a_frame(number: int, camera: Camera | None) -> Frame:
    rgb = np.full((180, 320, 3), 100, np.uint8)
    return Frame(id=number, stamp_ns=number * 10**8, rgb=rgb, camera=camera)


def told(focal_px: float) -> Camera:
    return Camera(width=320, height=180, fx=focal_px, fy=focal_px, cx=159.5, cy=89.5)


@pytest.mark.parametrize("first", [None, told(250.0)], ids=["untold", "told"])
def test_a_lens_that_was_found_out_goes_with_its_camera(first):
    """Another drone takes the stream: its pictures are not those of the lens that was found."""
    intake = Intake(320, 0.0)
    intake.picture(a_frame(0, first))
    intake.adopt(told(240.0))
    focussed = first and replace(first, fx=1.02 * first.fx, fy=1.02 * first.fy)
    for number, camera in enumerate([first, focussed, first], 1):
        assert intake.picture(a_frame(number, camera)).camera.fx == pytest.approx(240.0, rel=0.01)
    with pytest.raises(ShapeChanged, match="another camera"):
        intake.picture(a_frame(4, told(400.0)))
    assert intake.refused, "the reconstruction begins anew with what is told now"
    assert intake.anew().picture(a_frame(5, told(400.0))).camera.fx == pytest.approx(400.0)


def test_a_focal_length_is_that_of_the_largest_pictures():
    """A browser sends smaller ones while its line is bad."""
    intake, widths = Intake(320, 500.0), (640, 320, 480, 640)
    for number, width in enumerate(widths):
        rgb = np.full((width * 9 // 16 // 2 * 2, width, 3), 100, np.uint8)
        picture = intake.picture(Frame(id=number, stamp_ns=number * 10**8, rgb=rgb))
        assert picture.camera.fx == pytest.approx(250.0, rel=0.01)
