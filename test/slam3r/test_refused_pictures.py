# SPDX-License-Identifier: Apache-2.0
"""Pictures that no back-end takes cost themselves alone: late, doubled, too small."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product

import filmed_room
import numpy as np
import pytest

from worldsystem_core.frames import Frame, StampedCamera
from worldsystem_slam3r.backend import refusal_of
from worldsystem_slam3r.config import Slam3rConfig
from worldsystem_slam3r.geometric.intake import LEAST_SIDE_PX, Intake

CONFIG = Slam3rConfig()
SIDES = (32, 33, 35, 63, 64, 65, 100, 639, 641, 1280, 2000)


def picture(width: int, height: int, *, id: int = 5, stamp_ns: int = 50) -> Frame:
    return Frame(id=id, stamp_ns=stamp_ns, rgb=np.zeros((height, width, 3), np.uint8))


def reason_of(frame: Frame, last: tuple[int, int] | None = None, **settings: int) -> str:
    refusal = refusal_of(frame, last, replace(CONFIG, **settings))
    return "" if refusal is None else refusal.reason


@pytest.mark.parametrize(
    ("last", "reason"),
    [
        (None, ""),
        ((4, 40), ""),
        ((4, 50), ""),
        ((5, 50), "out_of_order"),
        ((4, 51), "out_of_order"),
        ((6, 40), "out_of_order"),
    ],
)
def test_a_picture_has_to_be_newer_than_the_last(last, reason):
    assert reason_of(picture(64, 48), last) == reason


def test_a_picture_that_is_newer_but_numbered_lower_is_told_from_an_older_one():
    told = refusal_of(picture(64, 48, id=0, stamp_ns=60), (7, 50), CONFIG).words
    assert "picture 0 came after picture 7" in told
    assert "ids have to grow" in told
    told = refusal_of(picture(64, 48, id=8, stamp_ns=40), (7, 50), CONFIG).words
    assert "a picture of 40 ns came after one of 50 ns" in told
    assert "ids" not in told


@pytest.mark.parametrize("size", [(0, 0), (31, 64), (64, 31), (2000, 99)])
def test_a_picture_that_shows_next_to_nothing_is_too_small(size):
    assert reason_of(picture(*size), processing_width=640) == "too_small"


@pytest.mark.parametrize("processing_width", [64, 65, 640])
def test_what_is_not_refused_is_large_enough_for_the_back_end(processing_width):
    taken = 0
    for width, height in product(SIDES, SIDES):
        frame = picture(width, height)
        if not reason_of(frame, processing_width=processing_width):
            taken += 1
            size = Intake(processing_width, 0.0)._processing_size(frame)
            assert min(size) >= LEAST_SIDE_PX
    assert taken > len(SIDES)


@pytest.mark.ros
@pytest.mark.parametrize("own_process", [True, False])
def test_a_stage_that_is_given_pictures_twice_late_and_too_small_goes_on(context, own_process):
    from rclpy.parameter import Parameter

    from worldsystem_slam3r.node import Slam3rNode

    film = filmed_room.frames(filmed_room.sideways_poses(10, step=0.09), filmed_room.camera())
    tiny = replace(film[0], rgb=np.zeros((16, 16, 3), np.uint8), camera=None)
    settings = [Parameter("own_process", value=own_process), Parameter("synchronous", value=True)]
    stage = Slam3rNode(context=context, parameter_overrides=settings)
    try:
        stage._on_frame(tiny)
        assert "too small" in stage.problem()
        for frame in film:
            stage._on_frame(frame)
            stage._on_frame(frame)  # while the first is at work, in a process of its own
        stage._on_frame(film[3])
        assert "not newer than the last" in stage.problem()
        stage.input_ended()
        state = stage.ledger.state()
        assert state.dropped == {"too_small": 1, "out_of_order": len(film) + 1}
        assert (state.taken, state.used) == (2 * len(film) + 2, len(film))
        assert (state.in_flight, stage.ledger.violations) == (0, 0)
    finally:
        stage.close()


@pytest.mark.ros
def test_a_camera_that_says_it_is_not_calibrated_counts_as_unknown(context):
    """`sensor_msgs/CameraInfo` prescribes zeros for it."""
    from worldsystem_slam3r.node import Slam3rNode

    stage = Slam3rNode(context=context)
    try:
        known = filmed_room.camera()
        for odd in ({"fx": 0.0}, {"fy": 0.0}, {"width": 0}, {"fx": math.nan}, {"cx": math.inf}):
            stage._on_camera(StampedCamera(stamp_ns=0, camera=replace(known, **odd)))
            assert stage._camera is None
        stage._on_camera(StampedCamera(stamp_ns=0, camera=known))
        assert stage._camera == known
        stage._on_camera(StampedCamera(stamp_ns=1, camera=replace(known, fx=0.0, fy=0.0)))
        assert stage._camera is None
    finally:
        stage.close()
