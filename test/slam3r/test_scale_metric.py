# SPDX-License-Identifier: Apache-2.0
"""From scene to map in a run: when it happens, what moves, and what is said without a source."""

from __future__ import annotations

import math
from dataclasses import replace

import cv2
import numpy as np
import pytest
from drifting_backend import CAMERA, DriftingBackend, Film, film, ring_poses
from filmed_room import render
from scipy.spatial.transform import Rotation

from worldsystem_core.frames import Camera
from worldsystem_core.geometry.pinhole import pointmap_from_depth
from worldsystem_core.geometry.sim3 import Sim3, fit_sim3
from worldsystem_core.reconstruction import Event, Keyframe, MovedKeyframes, Pose, ScaleState
from worldsystem_core.telemetry import BatterySample, GpsFix, OdometrySample, PressureSample
from worldsystem_core.trajectory import Trajectory
from worldsystem_sim.telemetry import geodetic_from_map
from worldsystem_slam3r.config import Slam3rConfig
from worldsystem_slam3r.graph.atlas import Atlas
from worldsystem_slam3r.graph.verify import Link
from worldsystem_slam3r.scale.enu import ENU
from worldsystem_slam3r.scale.hanging import HangingSamples, PositionSample
from worldsystem_slam3r.scale.marker import MarkerRuler
from worldsystem_slam3r.scale.metric import MetricScale
from worldsystem_slam3r.scale.root import MetricRoot
from worldsystem_slam3r.session.backend import GraphBackend
from worldsystem_slam3r.session.restartable import RenewableBackend

METRES = 25.0
"""One unit of the filmed room, which is 1/0.04 of the back-end's scene unit."""
Z_UP = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])
QUARTER = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])


@pytest.fixture(scope="module")
def walk() -> Film:
    return film(ring_poses(17)[:12], period_ns=500_000_000)


def in_map(pose: np.ndarray) -> np.ndarray:
    """Where a camera of the room is in east, north, up [m]: the room is METRES a unit, y down."""
    return METRES * Z_UP @ pose[:3, 3]


def fixes(of: Film, sigma_m: float) -> list[GpsFix]:
    rng = np.random.default_rng(4)
    return [
        GpsFix(
            stamp_ns=frame.stamp_ns + 1000 * k,
            **dict(
                zip(
                    ("latitude_deg", "longitude_deg", "altitude_m"),
                    geodetic_from_map(*(in_map(pose) + sigma_m * rng.normal(size=3))),
                    strict=True,
                )
            ),
            horizontal_error_m=sigma_m * math.sqrt(2.0),
            vertical_error_m=sigma_m,
        )
        for frame, pose in zip(of.frames, of.poses, strict=True)
        for k in (0, 1)
    ]


def run(of: Film, observations: list, **settings: object) -> tuple[list[Event], GraphBackend]:
    backend = RenewableBackend(DriftingBackend([of], unit=0.4), None)
    graph = GraphBackend(backend, Slam3rConfig(**settings))  # type: ignore[arg-type]
    events: list[Event] = []
    waiting = sorted(observations, key=lambda o: o.stamp_ns)
    for frame in of.frames:
        while waiting and waiting[0].stamp_ns <= frame.stamp_ns + 5000:
            graph.observe(waiting.pop(0))
        events += graph.feed(frame)
    return events + graph.finish(), graph


def test_gps_turns_the_scene_into_a_map(walk):
    events, graph = run(walk, fixes(walk, 0.5))
    assert graph.scale is ScaleState.METRIC
    change = next(e for e in events if isinstance(e, MovedKeyframes) and e.scale is not None)
    assert change.scale is ScaleState.METRIC
    before = events[: events.index(change)]
    assert all(pose.scale is ScaleState.SCENE for pose in before if isinstance(pose, Pose))
    told = [pose for pose in events if isinstance(pose, Pose)]
    assert told[-1].scale is ScaleState.METRIC
    trajectory = Trajectory()
    for event in events:
        trajectory.add(event)
    path = trajectory.poses()
    truth = np.array([in_map(pose) for pose in walk.poses])
    rigid = fit_sim3(truth, path.positions, with_scale=False)
    assert np.linalg.norm(rigid.apply(path.positions) - truth, axis=1).max() < 0.6
    assert fit_sim3(truth, path.positions).scale == pytest.approx(1.0, abs=0.02)
    # points grew with the poses: one unit of the told pointmaps is now METRES / 0.4 metres
    assert change.point_scale[0] == pytest.approx(METRES / 0.4, rel=0.05)


def test_a_false_loop_that_positions_rule_out_is_counted(walk, caplog):
    """It says that the camera came sixty metres beside where it was."""
    _, graph = run(walk, fixes(walk, 0.5))
    first, last = (graph.atlas.keyframes[key].world for key in (0, 11))
    true = first.inverse() @ last
    aside = np.array([0.4 * 60.0 / METRES, 0.0, 0.0])
    beside = replace(true, translation=true.translation + aside)
    sure = {"turn_rad": 0.003, "shift": 0.005, "log_scale": 0.005, "inliers": 200}
    graph.atlas.link(Link(0, 11, beside, **sure, overlap=1.0, same=1.0, likeness=1.0))
    graph._root._anchored()
    assert len(graph.atlas.graph.anchors) >= 3
    assert graph.finder.refused["graph"] == 1
    assert graph.facts()["refused.graph"] == 1
    assert "the loop between keyframes 0 and 11 does not fit: dropped" in caplog.text
    assert not graph.atlas.graph.loops


def test_without_a_source_the_scene_stays_a_scene(walk):
    events, graph = run(walk, [])
    assert graph.scale is ScaleState.SCENE
    assert graph.map_from_scene is None
    assert not any(isinstance(e, MovedKeyframes) and e.scale for e in events)


def test_gps_that_is_too_coarse_does_not_decide(walk):
    _, graph = run(walk, fixes(walk, 30.0))
    assert graph.scale is ScaleState.SCENE
    assert graph.map_from_scene is not None
    assert graph.map_from_scene.scale_sigma > 0.05


def test_metric_can_be_turned_off(walk):
    _, graph = run(walk, fixes(walk, 0.5), metric=False)
    assert graph.scale is ScaleState.SCENE


def test_a_phones_own_odometry_gives_metres(walk):
    samples = [
        OdometrySample(stamp_ns=frame.stamp_ns, position_m=tuple(in_map(pose) - [5.0, 6.0, 7.0]))
        for frame, pose in zip(walk.frames, walk.poses, strict=True)
    ]
    _, graph = run(walk, samples)
    assert graph.scale is ScaleState.METRIC
    assert graph.map_from_scene is not None
    assert graph.map_from_scene.map_from_scene.scale == pytest.approx(METRES / 0.4, rel=0.02)


def turned_odometry(of: Film) -> list[OdometrySample]:
    """A phone's, whose x is not east but north."""
    return [
        OdometrySample(
            stamp_ns=frame.stamp_ns, position_m=tuple(QUARTER @ in_map(pose) - [5.0, 6.0, 7.0])
        )
        for frame, pose in zip(of.frames, of.poses, strict=True)
    ]


def test_gps_that_comes_after_the_phones_odometry_still_says_where_east_is(walk):
    late = [fix for fix in fixes(walk, 0.5) if fix.stamp_ns >= walk.frames[5].stamp_ns]
    events, graph = run(walk, [*turned_odometry(walk), *late])
    assert graph.atlas.axes == ENU
    roots = [e for e in events if isinstance(e, MovedKeyframes) and e.scale is not None]
    assert len(roots) == 2
    trajectory = Trajectory()
    for event in events:
        trajectory.add(event)
    path = trajectory.poses()
    fit = fit_sim3(np.array([in_map(pose) for pose in walk.poses]), path.positions)
    assert fit.scale == pytest.approx(1.0, abs=0.03)
    assert Rotation.from_matrix(fit.rotation).magnitude() < 0.06


def test_a_source_of_which_every_second_sample_went_is_looked_at_again():
    """What is hung is bounded: once it was full its count never grows by half as much again."""
    looks = []

    class Counted(MetricScale):
        sample_count = 0

        def fit(self, up: np.ndarray, up_rad: float, **known: float) -> None:
            looks.append(self.sample_count)

    atlas, metric = Atlas(), Counted({}.get)
    atlas.scale = ScaleState.METRIC
    root = MetricRoot(atlas, metric, 0.05)
    for count in [*range(6000), *range(3000, 6000), *range(3000, 6000)]:
        metric.sample_count = count
        root.update()
    assert looks[-2:] == [4500, 4500]


def test_samples_wait_for_the_poses_around_them_and_follow_their_keyframe():
    worlds = {7: Sim3.identity()}
    samples = HangingSamples(worlds.get)
    samples.pose(1_000_000_000, 7, np.array([0.0, 0.0, 0.0]))
    samples.sample(PositionSample(1_100_000_000, np.zeros(3), np.eye(3)))
    assert samples.hung == []
    samples.pose(1_200_000_000, 7, np.array([2.0, 0.0, 0.0]))
    worlds[7] = Sim3(3.0, np.eye(3), np.array([0.0, 5.0, 0.0]))
    ((hung, world),) = samples.placed(PositionSample)
    assert np.allclose(world.apply(hung.place), [3.0, 5.0, 0.0])
    assert np.allclose(hung.velocity, [10.0, 0.0, 0.0])


def test_samples_from_before_the_video_or_over_a_gap_are_counted():
    samples = HangingSamples({0: Sim3.identity()}.get)
    samples.sample(PositionSample(1, np.zeros(3), np.eye(3)))
    samples.pose(10_000_000_000, 0, np.zeros(3))
    samples.sample(PositionSample(12_000_000_000, np.zeros(3), np.eye(3)))
    samples.pose(15_000_000_000, 0, np.zeros(3))
    assert samples.missed == 2
    assert samples.hung == []


@pytest.mark.parametrize("rate_hz", [1.0, 1.4, 15.0])
def test_samples_count_at_any_usual_rate_of_pictures(rate_hz):
    """Between two poses as far apart as always the place is known as well as it ever is."""
    samples = HangingSamples({0: Sim3.identity()}.get)
    period_ns, count = int(1e9 / rate_hz), 20
    for i in range(count):
        samples.pose(i * period_ns, 0, np.array([float(i), 0.0, 0.0]))
        samples.sample(PositionSample(i * period_ns + period_ns // 4, np.zeros(3), np.eye(3)))
    assert len(samples.hung) >= count - 5  # until it is known how far apart they lie
    assert len(samples.hung) + samples.missed == count - 1  # the last one waits for a pose
    for hung in samples.hung:
        assert hung.place[0] == pytest.approx(hung.sample.stamp_ns / period_ns)


@pytest.mark.parametrize("rate_hz", [0.3, 15.0])
def test_samples_within_an_unusual_or_a_long_gap_do_not_count(rate_hz):
    samples = HangingSamples({0: Sim3.identity()}.get)
    period_ns = int(1e9 / rate_hz)
    last_ns = 20 * period_ns
    for i in range(21):
        samples.pose(i * period_ns, 0, np.zeros(3))
    samples.sample(PositionSample(last_ns + 10**9, np.zeros(3), np.eye(3)))
    samples.pose(last_ns + max(period_ns, 3 * 10**9), 0, np.zeros(3))
    assert (samples.missed, samples.hung) == (1, [])


@pytest.mark.parametrize("rate_hz", [1.0, 0.1])
def test_diagnostics_say_how_many_measurements_had_no_pose(rate_hz):
    """At one picture in ten seconds nothing is known of what lies between."""
    slow = film(ring_poses(17)[:8], period_ns=int(1e9 / rate_hz))
    measured = [replace(fix, stamp_ns=fix.stamp_ns - 10**8) for fix in fixes(slow, 0.5)]
    _, graph = run(slow, measured)
    facts = graph.facts()
    counted, missed = facts["measurements"], facts["measurements_without_pose"]
    assert counted + missed == len(measured)
    # else those before the first picture and of two intervals: what is usual is not known yet
    assert missed == (len(measured) if rate_hz < 0.5 else 6)


def test_samples_of_a_withdrawn_keyframe_wait_for_the_next_one():
    worlds = {7: Sim3(2.0, np.eye(3), np.zeros(3))}
    samples = HangingSamples(worlds.get)
    samples.pose(1_000_000_000, 7, np.array([0.0, 0.0, 0.0]))
    samples.sample(PositionSample(1_100_000_000, np.zeros(3), np.eye(3)))
    samples.pose(1_200_000_000, 7, np.array([2.0, 0.0, 0.0]))
    samples.release_keyframes({7})
    del worlds[7]
    ((hung, world),) = samples.placed(PositionSample)
    assert np.allclose(world.apply(hung.place), [1.0, 0.0, 0.0])
    worlds[9] = Sim3.identity()
    samples.keyframe(9, 500_000_000)
    worlds[9] = Sim3(1.0, np.eye(3), np.array([0.0, 4.0, 0.0]))
    ((hung, world),) = samples.placed(PositionSample)
    assert np.allclose(world.apply(hung.place), [1.0, 4.0, 0.0])


def phone_positions(of: Film, error_m: float) -> list[OdometrySample]:
    return [
        OdometrySample(
            stamp_ns=frame.stamp_ns + 1000 * k,
            position_m=tuple(in_map(pose)),
            position_error_m=error_m,
        )
        for frame, pose in zip(of.frames, of.poses, strict=True)
        for k in (0, 1)
    ]


def test_a_phone_that_is_sure_to_a_hair_gives_metres_and_ends_nothing(walk):
    _, graph = run(walk, phone_positions(walk, 0.0))
    assert graph.scale is ScaleState.METRIC


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_measurements_that_are_no_numbers_spoil_none_of_the_others(walk, wrong):
    stamp_ns = walk.frames[1].stamp_ns
    odd = [
        PressureSample(stamp_ns=stamp_ns, pressure_pa=wrong),
        PressureSample(stamp_ns=stamp_ns, pressure_pa=-5.0),
        GpsFix(stamp_ns=stamp_ns, latitude_deg=wrong, longitude_deg=8.0, altitude_m=0.0),
        replace(phone_positions(walk, 0.1)[2], position_m=(wrong, 0.0, 0.0)),
    ]
    _, graph = run(walk, [*odd, *fixes(walk, 0.02)])
    assert graph.scale is ScaleState.METRIC


def test_what_says_nothing_of_metres_is_passed_by():
    metric = MetricScale({}.get)
    metric.observe(BatterySample(stamp_ns=0, charge=0.5))
    metric.observe(PressureSample(stamp_ns=1, pressure_pa=101_325.0))
    assert metric.sample_count == 0
    assert metric.fit(np.array([0.0, 0.0, 1.0]), 0.1) is None


def marker_keyframe(depth: float) -> Keyframe:
    """A marker whose edge is a fifth of a unit, seen at `depth` units, square to the camera."""
    camera = Camera(width=320, height=240, fx=300.0, fy=300.0, cx=159.5, cy=119.5)
    edge_px = round(0.2 * camera.fx / depth)
    dictionary = cv2.aruco.getPredefinedDictionary(cv2.aruco.DICT_4X4_50)
    picture = np.full((240, 320), 220, np.uint8)
    drawn = cv2.aruco.generateImageMarker(dictionary, 3, edge_px)
    picture[60 : 60 + edge_px, 100 : 100 + edge_px] = drawn
    z = np.full((240, 320), depth, np.float32)
    return Keyframe(
        id=0,
        frame_id=0,
        stamp_ns=0,
        world_from_cam=np.eye(4),
        camera=camera,
        pointmap=pointmap_from_depth(z, camera),
        confidence=np.ones((240, 320), np.float32),
        rgb=np.repeat(picture[..., None], 3, axis=-1),
    )


@pytest.mark.parametrize("depth", [0.6, 1.2])
def test_a_printed_marker_is_a_ruler(depth):
    found = MarkerRuler(edge_m=0.3).log_scale(marker_keyframe(depth))
    assert found is not None
    assert math.exp(found[0]) == pytest.approx(0.3 / 0.2, rel=0.03)


def test_no_marker_gives_no_length():
    rgb, depth = render(ring_poses(5)[0], CAMERA)
    plain = Keyframe(
        id=0,
        frame_id=0,
        stamp_ns=0,
        world_from_cam=np.eye(4),
        camera=CAMERA,
        pointmap=pointmap_from_depth(depth, CAMERA),
        confidence=np.ones(depth.shape, np.float32),
        rgb=rgb,
    )
    assert MarkerRuler(edge_m=0.3).log_scale(plain) is None
