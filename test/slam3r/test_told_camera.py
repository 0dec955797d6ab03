# SPDX-License-Identifier: Apache-2.0
"""What pictures tell of their camera, and what is made of it."""

from __future__ import annotations

import logging
from dataclasses import replace

import filmed_room
import numpy as np
import pytest

from worldsystem_core.errors import ShapeChanged
from worldsystem_core.frames import Camera, Frame, StampedCamera
from worldsystem_core.reconstruction import Event, NewKeyframe, Pose, TrackingState
from worldsystem_slam3r.backend import open_backend
from worldsystem_slam3r.config import Slam3rConfig
from worldsystem_slam3r.geometric.intake import Intake
from worldsystem_slam3r.geometric.system import GeometricBackend
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


def told(focal_px: float, *distortion: float) -> Camera:
    return replace(CAMERA, fx=focal_px, fy=focal_px, distortion=distortion)


@pytest.mark.parametrize(
    ("first", "other"),
    [
        (told(250.0), told(400.0)),
        (told(250.0), told(250.0, -0.2)),
        (told(250.0, -0.2, 0.05), told(250.0)),
    ],
    ids=["zoomed", "bent", "straight"],
)
@pytest.mark.parametrize("mapped", [False, True])
def test_another_camera_is_refused_also_before_a_lens_was_found(first, other, mapped):
    intake = Intake(320, 0.0)
    began = intake.picture(a_frame(0, first)).camera
    with pytest.raises(ShapeChanged, match="another camera"):
        intake.picture(a_frame(1, other), mapped=mapped)
    assert intake.refused
    assert intake.picture(a_frame(2, first), mapped=mapped).camera == began


def test_the_camera_that_was_told_stays_through_focussing_and_silence():
    intake = Intake(320, 0.0)
    began = intake.picture(a_frame(0, told(250.0, -0.1))).camera
    for number, camera in enumerate([told(262.0, -0.1), None, told(240.0, -0.105)], 1):
        assert intake.picture(a_frame(number, camera)).camera == began
    assert not intake.camera_is_unknown


def test_a_camera_that_is_told_late_takes_the_place_of_the_one_assumed():
    intake = Intake(320, 0.0)
    assert intake.picture(a_frame(0, None)).camera.fx == pytest.approx(288.0)
    assert intake.camera_is_unknown
    assert intake.picture(a_frame(1, told(280.0))).camera.fx == 280.0
    assert not intake.camera_is_unknown


def test_to_a_map_begun_without_one_any_camera_is_another():
    intake = Intake(320, 0.0)
    intake.picture(a_frame(0, None))
    with pytest.raises(ShapeChanged, match="another camera"):
        intake.picture(a_frame(1, told(288.0)), mapped=True)


def test_of_a_focal_length_larger_pictures_show_that_those_before_were_small():
    """The map that smaller ones began is of a focal length twice as long."""
    intake = Intake(320, 500.0)
    assert intake.picture(a_frame(0, None)).camera.fx == pytest.approx(500.0)
    large = Frame(id=1, stamp_ns=10**8, rgb=np.full((360, 640, 3), 100, np.uint8))
    with pytest.raises(ShapeChanged):
        intake.picture(large, mapped=True)
    assert intake.anew().picture(large).camera.fx == pytest.approx(250.0)


def _run(film: list[Frame]) -> list[Event]:
    config = Slam3rConfig(synchronous=True, depth_planes=16, graph=False)
    backend = open_backend("geometric", config).backend
    return [event for frame in film for event in backend.feed(frame)] + backend.finish()


def _focal_px(events: list[Event], submap: int) -> set[float]:
    """Of the keyframes, for pictures of the size of `CAMERA`."""
    keyframes = [event.keyframe for event in events if isinstance(event, NewKeyframe)]
    return {k.camera.resized(320, 180).fx for k in keyframes if k.submap == submap}


@pytest.mark.parametrize("late", [1, 3])
def test_a_calibrated_camera_counts_although_the_first_pictures_came_before_it(late):
    """As of a driver that publishes its `CameraInfo` behind the picture."""
    film = filmed_room.frames(filmed_room.sideways_poses(24, step=0.09), CAMERA)
    events = _run([replace(frame, camera=None) for frame in film[:late]] + film[late:])
    poses = [event for event in events if isinstance(event, Pose)]
    assert sorted(pose.frame_id for pose in poses) == [frame.id for frame in film]
    tracked = [pose.frame_id for pose in poses if pose.state is TrackingState.TRACKED]
    assert sorted(tracked) == [frame.id for frame in film[late:]]
    assert _focal_px(events, 0) == {CAMERA.fx}


def test_with_a_camera_that_zooms_a_new_sub_map_begins_in_its_focal_length():
    poses = filmed_room.sideways_poses(50, step=0.09)
    zoomed = told(1.4 * CAMERA.fx)
    film = filmed_room.frames(poses[:20], CAMERA)
    events = _run(film + filmed_room.frames(poses[20:], zoomed, first_id=20))
    assert _focal_px(events, 0) == {CAMERA.fx}
    assert _focal_px(events, 1) == {zoomed.fx}


@pytest.mark.parametrize(("k1", "found"), [(-0.25, True), (0.0, False)])
def test_distortion_is_found_beside_a_focal_length_that_was_told_right(k1, found):
    camera = filmed_room.camera(480, 270)
    filmed = replace(camera, distortion=(k1, 0.06 * found))
    backend = GeometricBackend(Slam3rConfig(synchronous=True, depth_planes=16, depth_neighbours=1))
    for frame in filmed_room.frames(filmed_room.roaming_poses(110), camera):
        backend.feed(replace(frame, rgb=filmed_room.bent(frame.rgb, filmed)))
    backend.close()
    assert backend.lens.fx == pytest.approx(camera.fx)
    assert any(backend.lens.distortion) == found
    assert not found or backend.lens.distortion[0] == pytest.approx(k1, abs=0.05)
    assert not backend.health.problem


def test_a_back_end_knows_its_lens_once_that_was_told_or_found_out():
    backend = GeometricBackend(Slam3rConfig(synchronous=True))
    assert backend.lens is None
    backend.feed(a_frame(0, None))
    assert backend.lens is None
    backend.feed(a_frame(1, told(250.0, -0.1)))
    assert backend.lens == told(250.0, -0.1, 0.0, 0.0, 0.0, 0.0)
    intake = Intake(320, 0.0)
    intake.picture(a_frame(0, None))
    intake.adopt(told(240.0))
    assert intake.known_camera == told(240.0)


@pytest.mark.ros
def test_pictures_of_a_sender_that_tells_no_camera_are_not_given_that_of_the_one_before(
    context, monkeypatch
):
    """The topic's camera is for pictures from other processes, which bring none."""
    from worldsystem_slam3r.node import Slam3rNode

    stage, fed = Slam3rNode(context=context), []
    monkeypatch.setattr(stage._running, "feed", lambda frame: fed.append(frame.camera) or [])
    try:
        stage._on_camera(StampedCamera(stamp_ns=0, camera=CAMERA))
        for number, camera in enumerate([None, CAMERA, None]):
            stage._on_frame(a_frame(number, camera))
        assert fed == [CAMERA, CAMERA, None]
    finally:
        stage.close()


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_distortion_that_is_no_number_is_none(number):
    camera = replace(CAMERA, distortion=(-0.1, number, 0.0, 0.0, 0.0))
    assert with_known_distortion(camera) == CAMERA
    assert Intake(320, 0.0).picture(a_frame(0, camera)).grey.mean() > 50
