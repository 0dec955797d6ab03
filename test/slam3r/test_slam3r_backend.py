# SPDX-License-Identifier: Apache-2.0
"""The slam3r back-end as a whole, with networks that know the truth: its own logic is tried."""

from __future__ import annotations

from dataclasses import replace

import filmed_room
import numpy as np
import pytest
import torch
from true_networks import PX, TrueNetworks

from worldsystem_core.errors import BackendError
from worldsystem_core.frames import Frame
from worldsystem_core.geometry.se3 import look_at, rotation_angle_rad
from worldsystem_core.geometry.sim3 import Sim3, fit_sim3
from worldsystem_core.reconstruction import Event, NewKeyframe, Pose, TrackingState
from worldsystem_mesh.config import MeshConfig
from worldsystem_mesh.mesher import Mesher
from worldsystem_slam3r.config import Slam3rConfig
from worldsystem_slam3r.slam3r.backend import Slam3rBackend
from worldsystem_slam3r.slam3r.whole_video import WholeVideoBackend

torch.set_num_threads(1)

CAMERA = filmed_room.camera(320, 240)
POSES = filmed_room.sideways_poses(60, step=0.06)
LOST, TRACKED = TrackingState.LOST, TrackingState.TRACKED
INITIALISING = TrackingState.INITIALISING


def backend_of(networks: TrueNetworks, **settings: object) -> Slam3rBackend:
    config = Slam3rConfig(**{"backend": "slam3r", **settings})
    return Slam3rBackend(networks, config, picture_px=PX)


def run(networks: TrueNetworks, film: list[Frame], **settings: object) -> list[Event]:
    backend = backend_of(networks, **settings)
    events = [event for frame in film for event in backend.feed(frame)]
    return events + backend.finish()


def poses_of(events: list[Event]) -> dict[int, Pose]:
    poses = [event for event in events if isinstance(event, Pose)]
    assert len({pose.frame_id for pose in poses}) == len(poses), "a frame with two poses"
    return {pose.frame_id: pose for pose in poses}


def states_of(events: list[Event]) -> list[TrackingState]:
    return [pose.state for _, pose in sorted(poses_of(events).items())]


def fitted(events: list[Event], truth: dict[int, np.ndarray]) -> tuple[Sim3, float]:
    """`truth_from_world` of the tracked poses and their error in percent of the way."""
    poses = {i: pose for i, pose in poses_of(events).items() if pose.state is TRACKED}
    found = np.array([pose.world_from_cam[:3, 3] for pose in poses.values()])
    wanted = np.array([truth[i][:3, 3] for i in poses])
    fit = fit_sim3(wanted, found)
    way = np.linalg.norm(np.diff(wanted, axis=0), axis=1).sum()
    error = np.sqrt(((fit.apply(found) - wanted) ** 2).sum(axis=1).mean())
    return fit, float(100 * error / way)


TRUTH = dict(enumerate(POSES))


@pytest.fixture(scope="module")
def networks() -> TrueNetworks:
    return TrueNetworks()


@pytest.fixture(scope="module")
def film(networks) -> list[Frame]:
    return networks.film(POSES, CAMERA)


@pytest.fixture(scope="module")
def events(networks, film) -> list[Event]:
    return run(networks, film)


def test_every_frame_gets_exactly_one_pose_and_all_are_tracked(film, events):
    assert sorted(poses_of(events)) == [frame.id for frame in film]
    assert states_of(events) == [TRACKED] * len(film)


def test_the_path_is_the_true_one_up_to_a_similarity(events):
    fit, error_percent = fitted(events, TRUTH)
    assert error_percent < 0.3
    for i, pose in poses_of(events).items():
        turn = POSES[i][:3, :3].T @ fit.rotation @ pose.world_from_cam[:3, :3]
        assert rotation_angle_rad(turn) < np.deg2rad(0.3)


def test_keyframes_measure_the_room_at_one_scale(events):
    unit = fitted(events, TRUTH)[0].scale
    keyframes = [event.keyframe for event in events if isinstance(event, NewKeyframe)]
    assert len(keyframes) >= 5
    for keyframe in keyframes:
        truth = filmed_room.render(POSES[keyframe.frame_id], keyframe.camera)[1]
        known = keyframe.confidence > 0
        assert known.mean() > 0.85
        ratio = unit * keyframe.pointmap[..., 2][known] / truth[known]
        assert np.median(ratio) == pytest.approx(1.0, abs=0.01)
        assert np.percentile(np.abs(ratio - 1), 95) < 0.02


def test_keyframes_fit_their_pictures_and_poses(film, events):
    poses = poses_of(events)
    for event in events:
        if isinstance(event, NewKeyframe):
            keyframe = event.keyframe
            assert keyframe.rgb.shape == keyframe.pointmap.shape == (PX, PX, 3)
            v, u = np.nonzero(keyframe.confidence > 0)
            x, y, z = keyframe.pointmap[v, u].T
            camera = keyframe.camera
            assert np.abs(camera.fx * x / z + camera.cx - u).max() < 1e-3
            assert np.abs(camera.fy * y / z + camera.cy - v).max() < 1e-3
            assert np.isnan(keyframe.pointmap[keyframe.confidence == 0]).all()
            assert keyframe.confidence.max() <= 1
            own = poses[keyframe.frame_id].world_from_cam
            np.testing.assert_allclose(keyframe.world_from_cam, own)


def test_keyframes_are_numbered_and_poses_hang_on_told_ones(events):
    told = -1
    for event in events:
        if isinstance(event, NewKeyframe):
            assert event.keyframe.id == told + 1
            told += 1
        elif isinstance(event, Pose):
            assert event.keyframe_id <= told


def test_the_covariance_covers_the_error(events):
    fit, _ = fitted(events, TRUTH)
    ratios = []
    for i, pose in poses_of(events).items():
        assert np.all(np.linalg.eigvalsh(pose.covariance) > 0)
        error = fit.apply(pose.world_from_cam[:3, 3]) - POSES[i][:3, 3]
        sigma = fit.scale * np.sqrt(np.trace(pose.covariance[:3, :3]))
        ratios.append(np.linalg.norm(error) / sigma)
    assert 0.1 < np.median(ratios) < 10


@pytest.mark.parametrize("together", [1, 4, 7])
def test_frames_registered_together_give_the_same_path(networks, film, together):
    events = run(networks, film, register_together=together)
    assert states_of(events) == [TRACKED] * len(film)
    assert fitted(events, TRUTH)[1] < 0.3


def test_no_more_frames_wait_than_are_registered_together(networks, film):
    backend = backend_of(networks, register_together=3)
    told = 0
    for fed, frame in enumerate(film, start=1):
        told += sum(isinstance(event, Pose) for event in backend.feed(frame))
        assert not told or fed - told < 3
    assert told


def test_a_scene_seen_from_far_from_its_start_is_followed_without_re_anchoring(networks, film):
    assert fitted(run(networks, film, re_anchor=False), TRUTH)[1] < 0.3


def test_an_unknown_camera_is_estimated_to_one_percent(networks, film):
    backend = backend_of(networks)
    events: list[Event] = []
    for frame in film:
        events += backend.feed(replace(frame, camera=None))
    events += backend.finish()
    true_px = CAMERA.fx * PX / CAMERA.height
    assert backend.focal_px == pytest.approx(true_px, rel=0.01)
    assert states_of(events) == [TRACKED] * len(film)
    assert fitted(events, TRUTH)[1] < 1.0


def test_black_frames_are_lost_and_cost_no_network(networks, film):
    black = np.zeros_like(film[0].rgb)
    gap = [replace(f, rgb=black.copy()) if 30 <= f.id < 36 else f for f in film]
    before = networks.encoded
    states = states_of(run(networks, gap))
    assert networks.encoded - before == len(film) - 6
    assert states[30:36] == [LOST] * 6
    assert states[36:] == [TRACKED] * 24


def test_repeated_frames_keep_the_pose_and_cost_no_network(networks, film):
    frozen = [replace(f, rgb=film[30].rgb) if 30 < f.id < 40 else f for f in film]
    before = networks.encoded
    events = run(networks, frozen)
    assert networks.encoded - before == len(film) - 9
    assert states_of(events) == [TRACKED] * len(film)
    poses = poses_of(events)
    for i in range(31, 40):
        np.testing.assert_array_equal(poses[i].world_from_cam, poses[30].world_from_cam)


def test_only_black_frames_never_start(networks):
    black = [
        Frame(id=i, stamp_ns=i * 10**8, rgb=np.zeros((48, 64, 3), np.uint8)) for i in range(70)
    ]
    assert states_of(run(networks, black)) == [INITIALISING] * 70


@pytest.mark.parametrize("count", [0, 1, 2, 3, 6])
def test_videos_of_few_frames_end_in_good_order(networks, film, count):
    states = states_of(run(networks, film[:count]))
    assert len(states) == count
    if count < 2:
        assert all(state is INITIALISING for state in states)
    else:
        assert states == [TRACKED] * count


def test_the_picture_size_may_change_within_the_stream(networks, film):
    wide = filmed_room.camera(480, 360)
    other = networks.film(POSES[30:], wide, first_id=30)
    events = run(networks, [*film[:30], *other])
    assert states_of(events) == [TRACKED] * len(film)
    assert fitted(events, TRUTH)[1] < 0.3


def test_the_picture_shape_may_change_within_the_stream(networks, film):
    square = filmed_room.camera(300, 300)
    other = networks.film(POSES[30:], square, first_id=30)
    events = run(networks, [*film[:30], *other])
    assert states_of(events) == [TRACKED] * len(film)
    assert fitted(events, TRUTH)[1] < 0.5


def test_a_turning_camera_stays_where_it_is(networks):
    poses = filmed_room.turning_poses(80)
    events = run(networks, networks.film(poses, CAMERA))
    tracked = [pose for pose in poses_of(events).values() if pose.state is TRACKED]
    assert len(tracked) > 60
    spread = np.ptp([pose.world_from_cam[:3, 3] for pose in tracked], axis=0).max()
    assert spread < 0.02  # of the mean distance of what is seen


def test_numbers_that_are_none_are_survived_and_the_camera_is_found_again(networks, film):
    backend = backend_of(networks, register_together=1)
    events: list[Event] = []
    for frame in film:
        networks.broken = 30 <= frame.id < 36
        events += backend.feed(frame)
    networks.broken = False
    states = states_of(events + backend.finish())
    assert states[30:36] == [LOST] * 6
    assert states[36:] == [TRACKED] * 24
    assert np.isfinite([pose.world_from_cam for pose in poses_of(events).values()]).all()


def test_networks_that_give_no_numbers_never_start(networks, film):
    networks.broken = True
    states = states_of(run(networks, film[:30]))
    networks.broken = False
    assert states == [INITIALISING] * 30


def test_known_ground_is_recognised_after_a_gap(networks, film):
    away = [
        look_at(np.zeros(3), np.array([0.1 * i - 4.0, 0.3, -5.0]), np.array([0, -1.0, 0]))
        for i in range(12)
    ]
    # The camera turns round between two frames, looks at what it never saw, and comes back.
    other = networks.film(away, CAMERA, first_id=40)
    back = networks.film(POSES[10:30], CAMERA, first_id=52)
    events = run(networks, [*film[:40], *other, *back])
    states = states_of(events)
    assert states[40:52] == [LOST] * 12
    assert states[53:] == [TRACKED] * 19
    truth = TRUTH | {52 + i: POSES[10 + i] for i in range(20)}
    assert fitted(events, truth)[1] < 0.3


def test_a_cut_to_another_place_begins_a_new_scene_and_the_way_back_is_found(networks, film):
    there = networks.film(filmed_room.sideways_poses(50), CAMERA, first_id=40, place=1)
    back = networks.film(POSES[10:30], CAMERA, first_id=90)
    events = run(networks, [*film[:40], *there, *back], restart_after=10)
    states = states_of(events)
    assert states[40:50] == [LOST] * 10
    assert states[65:90] == [TRACKED] * 25
    assert states[90] is LOST
    assert states[92:] == [TRACKED] * 18
    truth = TRUTH | {90 + i: POSES[10 + i] for i in range(20)}
    home = [e for e in events if not (isinstance(e, Pose) and 40 <= e.frame_id < 90)]
    assert fitted(home, truth)[1] < 0.3
    elsewhere = [e for e in events if isinstance(e, Pose) and 65 <= e.frame_id < 90]
    path = {40 + i: pose for i, pose in enumerate(filmed_room.sideways_poses(50))}
    assert fitted(elsewhere, path)[1] < 0.5


def test_a_resting_camera_makes_no_more_keyframes(networks, film):
    picture = film[-1].rgb.astype(int)
    rng = np.random.default_rng(0)
    resting = []
    for i in range(40):
        rgb = (picture + rng.integers(-6, 7, picture.shape)).clip(0, 255).astype(np.uint8)
        resting.append(Frame(id=60 + i, stamp_ns=film[-1].stamp_ns + i, rgb=rgb, camera=CAMERA))
        networks.learn(resting[-1], POSES[-1])
    events = run(networks, film + resting)
    assert states_of(events) == [TRACKED] * 100
    assert sum(isinstance(e, NewKeyframe) and e.keyframe.frame_id > 62 for e in events) <= 1


def test_a_frame_not_newer_than_the_last_is_refused(networks, film):
    backend = backend_of(networks)
    backend.feed(film[3])
    with pytest.raises(BackendError, match="not newer"):
        backend.feed(film[2])
    with pytest.raises(BackendError, match="not newer"):
        backend.feed(film[3])
    assert len(backend.finish()) == 1
    assert backend.finish() == []
    with pytest.raises(BackendError, match="finished"):
        backend.feed(film[4])


def test_the_same_film_gives_the_same_result():
    results = []
    for _ in range(2):
        networks = TrueNetworks()
        results.append(poses_of(run(networks, networks.film(POSES[:30], CAMERA))))
    assert results[0].keys() == results[1].keys() == set(range(30))
    for i, pose in results[0].items():
        np.testing.assert_array_equal(pose.world_from_cam, results[1][i].world_from_cam)


def whole_video(networks: TrueNetworks, film: list[Frame], **settings: object) -> list[Event]:
    config = Slam3rConfig(**{"backend": "slam3r", "whole_video": True, **settings})
    backend = WholeVideoBackend(networks, config, picture_px=PX)
    assert [event for frame in film for event in backend.feed(frame)] == []
    events = backend.finish()
    assert backend.finish() == []
    return events


def test_a_whole_video_is_placed_at_its_end(networks, film):
    events = whole_video(networks, film, keyframe_stride=3)
    assert states_of(events) == [TRACKED] * len(film)
    assert fitted(events, TRUTH)[1] < 0.3
    keyframes = [event.keyframe for event in events if isinstance(event, NewKeyframe)]
    assert [keyframe.id for keyframe in keyframes] == list(range(len(keyframes)))
    assert 15 <= len(keyframes) <= 21
    told = [event.frame_id for event in events if isinstance(event, Pose)]
    assert told == sorted(told)


def test_a_whole_video_chooses_its_own_stride(networks, film):
    events = whole_video(networks, film[:20])
    assert states_of(events) == [TRACKED] * 20


def test_faulty_frames_of_a_whole_video_are_passed_by(networks, film):
    black = np.zeros_like(film[0].rgb)
    faulty = [replace(f, rgb=black.copy()) if f.id == 30 else f for f in film]
    faulty[40] = replace(film[40], rgb=film[39].rgb)
    states = states_of(whole_video(networks, faulty, keyframe_stride=3))
    assert [i for i, state in enumerate(states) if state is LOST] == [30]


@pytest.mark.parametrize("count", [0, 1, 2, 4])
def test_whole_videos_of_few_frames_end_in_good_order(networks, film, count):
    states = states_of(whole_video(networks, film[:count]))
    assert states == [INITIALISING if count < 2 else TRACKED] * count


def test_a_whole_video_too_long_to_be_kept_is_refused(networks, film):
    with pytest.raises(BackendError, match=r"whole_video_frames"):
        whole_video(networks, film, whole_video_frames=10)


def test_the_mesh_of_the_keyframes_lies_on_the_walls(events):
    fit, _ = fitted(events, TRUTH)
    mesher = Mesher(MeshConfig(device="cpu"))
    for event in events:
        if isinstance(event, NewKeyframe):
            assert mesher.integrate(event.keyframe) > 0
    mesher.extract(stamp_ns=0)
    vertices = fit.apply(mesher.mesh().vertices.astype(float))
    mesher.close()
    assert len(vertices) > 1000
    off_wall = np.abs(np.abs(vertices) - filmed_room.HALF_SIZE).min(axis=1)
    assert np.median(off_wall) < 0.03
    assert np.percentile(off_wall, 95) < 0.15


def test_the_stride_follows_the_motion(networks):
    strides = []
    for rate_rad in (0.0, 0.06):
        backend = backend_of(networks)
        for frame in networks.film(filmed_room.walking_poses(60, rate_rad), CAMERA):
            backend.feed(frame)
        strides.append(backend.keyframe_stride)
    slow, quick = strides
    assert quick <= 5
    assert 2 * quick < slow <= 15
