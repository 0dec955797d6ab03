# SPDX-License-Identifier: Apache-2.0
"""Where the slam3r back-end's next scene begins, what is built on it, and under which number."""

from __future__ import annotations

from dataclasses import replace

import filmed_room
import numpy as np
import pytest
from test_slam3r_backend import (
    CAMERA,
    LOST,
    POSES,
    TRACKED,
    TRUTH,
    backend_of,
    fitted,
    poses_of,
    run,
    states_of,
)
from true_networks import PX, TrueNetworks

from worldsystem_core.frames import Camera
from worldsystem_core.reconstruction import NewKeyframe, Pose


def test_after_a_start_the_next_scene_is_tried_from_the_least_stride_again():
    networks = TrueNetworks()
    backend, tried = backend_of(networks), []
    for frame in networks.film(POSES, CAMERA):
        backend.feed(frame)
        tried.append(backend._tracker._bootstrap._tried)
        if backend._tracker.state is TRACKED:
            break
    assert max(tried) > 0, "the start came at the least stride: film it more slowly"
    assert backend._tracker._bootstrap._tried == 0
    assert backend._tracker._bootstrap.held == []
    assert backend._tracker._bootstrap.given_up == []


def test_a_scene_begun_after_the_way_back_to_an_older_one_has_a_number_of_its_own():
    networks = TrueNetworks()
    way = filmed_room.sideways_poses(50)
    home = networks.film(POSES[:40], CAMERA)
    there = networks.film(way, CAMERA, first_id=40, place=1)
    back = networks.film(POSES[10:30], CAMERA, first_id=90)
    third = [
        replace(frame, rgb=frame.rgb // 2)
        for frame in filmed_room.frames(way, CAMERA, first_id=110)
    ]
    for frame, pose in zip(third, way, strict=True):
        networks.learn(frame, pose, place=2)
    poses = poses_of(run(networks, [*home, *there, *back, *third], restart_after=10))
    seen = [poses[i] for i in (35, 85, 105, 155)]
    assert [pose.state for pose in seen] == [TRACKED] * 4
    assert [pose.submap for pose in seen] == [0, 1, 0, 2]


def test_a_frame_of_the_start_that_was_not_believed_becomes_no_keyframe():
    networks = TrueNetworks()
    film = networks.film(POSES[:20], CAMERA)
    spoilt = [replace(f, rgb=255 - f.rgb) if 5 <= f.id < 9 else f for f in film]
    events = run(networks, spoilt, keyframe_stride=2, initial_confidence=16.0)
    poses = poses_of(events)
    assert [poses[i].state for i in range(5, 9)] == [LOST] * 4
    keyframes = [e.keyframe.frame_id for e in events if isinstance(e, NewKeyframe)]
    assert all(poses[i].state is TRACKED for i in keyframes)
    assert max(keyframes) >= 9


def test_a_scene_filmed_through_another_lens_is_judged_by_that_lens():
    networks = TrueNetworks()
    tele = Camera.from_horizontal_fov(320, 240, np.deg2rad(40.0))
    wide = networks.film(POSES, CAMERA, known_camera=False)
    way = filmed_room.sideways_poses(44)
    there = networks.film(way, tele, first_id=60, place=1, known_camera=False)
    backend = backend_of(networks, keyframe_stride=3, restart_after=10)
    for frame in [*wide, *there]:
        backend.feed(frame)
    assert backend.focal_px == pytest.approx(tele.fx * PX / tele.height, rel=0.02)


def test_a_start_is_not_thought_less_of_for_what_came_after_it():
    networks = TrueNetworks()
    film = networks.film(POSES[:5], CAMERA)
    spoilt = [replace(f, rgb=255 - f.rgb) if f.id > 2 else f for f in film]
    events = run(networks, spoilt, keyframe_stride=1, initial_confidence=16.0)
    assert states_of(events) == [TRACKED] * 3 + [LOST] * 2


def test_the_way_back_to_what_the_first_lens_filmed_is_judged_by_the_first_lens():
    networks = TrueNetworks()
    tele = Camera.from_horizontal_fov(320, 240, np.deg2rad(40.0))
    wide = networks.film(POSES, CAMERA, known_camera=False)
    way = filmed_room.sideways_poses(44)
    there = networks.film(way, tele, first_id=60, place=1, known_camera=False)
    back = networks.film(POSES[10:30], CAMERA, first_id=104, known_camera=False)
    events = run(networks, [*wide, *there, *back], keyframe_stride=3, restart_after=10)
    poses = poses_of(events)
    assert (poses[100].state, poses[100].submap) == (TRACKED, 1)
    assert [poses[i].state for i in range(108, 124)] == [TRACKED] * 16
    assert {poses[i].submap for i in range(108, 124)} == {0}
    home = [e for e in events if not (isinstance(e, Pose) and 60 <= e.frame_id < 104)]
    truth = TRUTH | {104 + i: POSES[10 + i] for i in range(20)}
    assert fitted(home, truth)[1] < 1.0


def square(camera: Camera) -> Camera:
    """The middle of its pictures, which is what the networks are shown of them."""
    side, cut = camera.height, 0.5 * (camera.width - camera.height)
    return replace(camera, width=side, cx=camera.cx - cut)


def test_the_first_lens_is_kept_for_its_scene_also_where_the_pictures_form_changed_in_it():
    networks = TrueNetworks()
    tele = square(Camera.from_horizontal_fov(320, 240, np.deg2rad(40.0)))
    wide, way = square(CAMERA), filmed_room.sideways_poses(44)
    film = networks.film(POSES[:20], CAMERA, known_camera=False)
    film += networks.film(POSES[20:], wide, first_id=20, known_camera=False)
    film += networks.film(way, tele, first_id=60, place=1, known_camera=False)
    film += networks.film(POSES[10:30], wide, first_id=104, known_camera=False)
    poses = poses_of(run(networks, film, keyframe_stride=3, restart_after=10))
    assert (poses[100].state, poses[100].submap) == (TRACKED, 1)
    assert [poses[i].state for i in range(108, 124)] == [TRACKED] * 16
    assert {poses[i].submap for i in range(108, 124)} == {0}
