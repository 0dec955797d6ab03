# SPDX-License-Identifier: Apache-2.0
"""What pictures tell of their camera, and what is made of it."""

from __future__ import annotations

import logging
from dataclasses import replace

import filmed_room
import numpy as np
import pytest

from worldsystem_core.frames import Camera, Frame
from worldsystem_slam3r.geometric.intake import Intake
from worldsystem_slam3r.told_camera import with_known_distortion

CAMERA = filmed_room.camera(320, 180)
RATIONAL = (0.47, -2.5, 0.001, -0.001, 1.4, 0.35, -2.3, 1.36)


def a_frame(number: int, camera: Camera | None) -> Frame:
    rgb = np.full((180, 320, 3), 100, np.uint8)
    return Frame(id=number, stamp_ns=number * 10**8, rgb=rgb, camera=camera)


@pytest.mark.parametrize(
    ("told", "known"),
    [
        ((), ()),
        ((0.0,) * 8, ()),
        ((-0.2, 0.04), (-0.2, 0.04, 0.0, 0.0, 0.0)),
        ((-0.2, 0.0, 0.0, 0.0, 0.1, 0.0, 0.0, 0.0), (-0.2, 0.0, 0.0, 0.0, 0.1)),
        ((0.0, 0.0, 0.0, 0.0, 0.0, 0.1), ()),
    ],
)
def test_distortion_is_known_as_five_coefficients_or_none(told, known):
    camera = with_known_distortion(replace(CAMERA, distortion=told))
    assert camera == replace(CAMERA, distortion=known)


def test_another_lens_model_is_taken_for_none_and_warned_of_once(caplog):
    intake, camera = Intake(320, 0.0), replace(CAMERA, distortion=RATIONAL)
    with caplog.at_level(logging.WARNING):
        pictures = [intake.picture(a_frame(number, camera)) for number in range(3)]
    assert all(picture.camera == CAMERA for picture in pictures)
    assert ["8 coefficients" in record.message for record in caplog.records] == [True]
