# SPDX-License-Identifier: Apache-2.0
"""When a map turns metric, which way is up in it, and how GPS holds it from then on."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from worldsystem_core.frames import Camera
from worldsystem_core.geometry.se3 import inverse, look_at
from worldsystem_core.geometry.sim3 import Sim3
from worldsystem_core.reconstruction import Keyframe, Pose, ScaleState, TrackingState
from worldsystem_core.sparing import Sparing
from worldsystem_core.telemetry import GpsFix, OdometrySample
from worldsystem_slam3r.graph.atlas import Atlas
from worldsystem_slam3r.scale import root
from worldsystem_slam3r.scale.enu import EnuFrame, ecef_m, geodetic
from worldsystem_slam3r.scale.metric import MetricScale
from worldsystem_slam3r.scale.root import MetricRoot

SITE = EnuFrame(47.3977, 8.5456, 488.0)
CAMERA = Camera(width=8, height=8, fx=8, fy=8, cx=3.5, cy=3.5)
UNIT_M = 60.0
STEP_NS = 500_000_000
A_KEYFRAME = 4
"""Pictures from one keyframe to the next."""
HELD_UP = np.array([0.0, -1.0, 0.0])


def fix_at(place_m: np.ndarray, stamp_ns: int, sigma_m: float) -> GpsFix:
    """A receiver's at a place about `SITE`."""
    there = SITE.about(place_m)
    return GpsFix(
        stamp_ns=stamp_ns,
        latitude_deg=there.latitude_deg,
        longitude_deg=there.longitude_deg,
        altitude_m=there.altitude_m,
        horizontal_error_m=sigma_m * math.sqrt(2.0),
        vertical_error_m=sigma_m,
    )


class Flight:
    """An atlas to which keyframes, poses and fixes come; `poses` are of the camera about `SITE`."""

    def __init__(self, settling: Sparing | None = None) -> None:
        self.atlas = Atlas()
        self.atlas.place(0, Sim3.identity())
        self.metric = MetricScale(self._world_of)
        self.root = MetricRoot(self.atlas, self.metric, 0.05, settling)
        self.poses: list[np.ndarray] = []

    def _world_of(self, keyframe_id: int) -> Sim3 | None:
        kept = self.atlas.keyframes.get(keyframe_id)
        return None if kept is None else kept.world

    def see(self, truth: np.ndarray, scene_from_cam: np.ndarray, submap: int = 0) -> None:
        """The next picture: where the camera is, and where the back-end has it."""
        i = len(self.poses)
        self.poses.append(truth)
        if i % A_KEYFRAME == 0:
            shape = (8, 8)
            keyframe = Keyframe(
                id=i // A_KEYFRAME,
                frame_id=i,
                stamp_ns=i * STEP_NS,
                world_from_cam=scene_from_cam,
                camera=CAMERA,
                pointmap=np.ones((*shape, 3), np.float32),
                confidence=np.ones(shape, np.float32),
                rgb=np.zeros((*shape, 3), np.uint8),
                submap=submap,
            )
            self.atlas.add(keyframe)
            self.metric.keyframe(self.atlas.told_keyframe(keyframe))
            self.root.update()
        pose = Pose(
            frame_id=i,
            stamp_ns=i * STEP_NS,
            world_from_cam=scene_from_cam,
            confidence=1.0,
            state=TrackingState.TRACKED,
            keyframe_id=i // A_KEYFRAME,
            submap=submap,
        )
        self.told = self.atlas.told_pose(pose)
        self.metric.pose(self.told)

    def tilt_deg(self) -> float:
        """Angle between z of the map and up."""
        map_from_site = self.told.world_from_cam[:3, :3] @ self.poses[-1][:3, :3].T
        return float(np.degrees(np.arccos(np.clip(map_from_site[2, 2], -1.0, 1.0))))

    def off_m(self) -> float:
        """How far the newest pose is from where the camera is."""
        assert self.metric.enu is not None
        there = SITE.about(self.poses[-1][:3, 3])
        true_m = self.metric.enu.position_m(
            there.latitude_deg, there.longitude_deg, there.altitude_m
        )
        return float(np.linalg.norm(self.told.world_from_cam[:3, 3] - true_m))


def looking_down(heading_deg: float, place_m: np.ndarray, shake: np.ndarray) -> np.ndarray:
    """A camera under a drone: the top of its picture is towards the heading."""
    h = np.deg2rad(heading_deg)
    ahead = np.array([np.sin(h), np.cos(h), 0.0])
    right = np.array([np.cos(h), -np.sin(h), 0.0])
    pose = np.eye(4)
    axes = np.column_stack([right, -ahead, [0.0, 0.0, -1.0]])
    pose[:3, :3] = axes @ Rotation.from_euler("xyz", shake, degrees=True).as_matrix()
    pose[:3, 3] = place_m
    return pose


def survey(flight: Flight, heading_deg: float, legs: range, *, seed: int = 0) -> list[ScaleState]:
    """Legs of 200 m to and fro, 40 m apart, 60 m up, with GPS of 1.5 m; the scale after each."""
    rng = np.random.default_rng(seed)
    count, told = 66, []
    for leg in legs:
        along = np.linspace(0.0, 200.0, count)[:: 1 if leg % 2 == 0 else -1]
        for x in along:
            i = len(flight.poses)
            place = np.array([x, 40.0 * leg, 60.0 + 0.3 * np.sin(i / 7)])
            truth = looking_down(heading_deg, place, 0.6 * rng.normal(size=3))
            if i % 2 == 0:
                noisy = place + rng.normal(size=3) * [1.5, 1.5, 3.0]
                flight.metric.observe(fix_at(noisy, i * STEP_NS, 1.5))
            first = flight.poses[0] if flight.poses else truth
            scene = inverse(first) @ truth
            scene[:3, 3] /= UNIT_M
            flight.see(truth, scene)
        told.append(flight.atlas.scale)
    return told


@pytest.mark.parametrize("seed", [0, 1, 3])
def test_a_straight_leg_over_ground_that_is_looked_straight_down_at_does_not_say_what_is_up(seed):
    flight = Flight()
    told = survey(flight, 90.0, range(2), seed=seed)
    assert told == [ScaleState.SCENE, ScaleState.METRIC]
    assert flight.tilt_deg() < 4.0
    assert flight.off_m() < 8.0


@pytest.mark.parametrize("seed", [0, 3])
def test_a_map_that_became_metric_on_its_side_stands_up_when_positions_say_so(seed, monkeypatch):
    """It flies sideways and looks down, so that the pictures' up lies across the path."""
    monkeypatch.setattr(root, "TILT_KNOWN_RAD", 0.5)  # so that it is metric after one leg
    flight = Flight()
    survey(flight, 0.0, range(1), seed=seed)
    assert flight.atlas.scale is ScaleState.METRIC
    assert flight.tilt_deg() > 45.0
    survey(flight, 0.0, range(1, 3), seed=seed)
    assert flight.tilt_deg() < 4.0
    assert flight.off_m() < 8.0


@pytest.mark.parametrize("nod_deg", [0.0, 35.0])
@pytest.mark.parametrize(("looks", "scale"), [((1, 0, 0), "METRIC"), ((0, 1, 0), "SCENE")])
def test_straight_ahead_the_path_says_how_far_the_camera_looks_down_sideways_nothing_does(
    looks, scale, nod_deg
):
    """As a drone films a coast: it never bends, and its camera is level."""
    rng, flight, nod = np.random.default_rng(5), Flight(), np.deg2rad(nod_deg)
    view = np.cos(nod) * np.array(looks) - np.sin(nod) * np.array([0.0, 0.0, 1.0])
    for i, x in enumerate(np.linspace(0.0, 200.0, 66)):
        place = np.array([x, 0.0, 60.0])
        truth = look_at(place, place + view, np.array([0.0, 0.0, 1.0]))
        flight.metric.observe(fix_at(place + rng.normal(size=3), i * STEP_NS, 1.0))
        scene = inverse(flight.poses[0] if flight.poses else truth) @ truth
        scene[:3, 3] /= UNIT_M
        flight.see(truth, scene)
    assert flight.atlas.scale.name == scale
    assert scale == "SCENE" or flight.tilt_deg() < 3.0


@pytest.mark.parametrize("seed", [0, 3])
def test_a_map_whose_roll_one_leg_leaves_open_turns_metric_upright_with_the_second(seed):
    flight = Flight()
    survey(flight, 0.0, range(1), seed=seed)
    assert flight.atlas.scale is ScaleState.SCENE
    survey(flight, 0.0, range(1, 3), seed=seed)
    assert flight.atlas.scale is ScaleState.METRIC
    assert flight.tilt_deg() < 4.0


def cruise(flight: Flight, minutes: float) -> np.ndarray:
    """Level flight at 5 m/s whose odometry turns slowly away; how far off it was told [m]."""
    rng = np.random.default_rng(5)
    place, bias, off = np.array([0.0, 0.0, 60.0]), 0.0, []
    scene, before = Sim3(1.0 / 30.0, np.eye(3), np.zeros(3)), None
    for i in range(round(minutes * 120)):
        yaw = 0.6 * np.sin(i / 180) + 0.4 * np.sin(i / 74)
        ahead = np.array([np.sin(yaw), np.cos(yaw), 0.0])
        place = place + 2.5 * ahead
        truth = np.eye(4)
        down = np.array([0.0, 0.0, -1.0])
        truth[:3, :3] = np.column_stack([np.cross(down, ahead), down, ahead])
        truth[:3, 3] = place
        if i % 2 == 0:
            flight.metric.observe(fix_at(place + 1.5 * rng.normal(size=3), i * STEP_NS, 1.5))
        if before is not None:
            bias = 0.995 * bias + 2e-5 * rng.normal()
            turned = Rotation.from_rotvec([0.0, bias + 2e-4, 0.0]).as_matrix()
            step = Sim3.from_pose(inverse(before) @ truth, math.exp(2e-4 * rng.normal()))
            scene = scene @ step @ Sim3(1.0, turned, np.zeros(3))
        before = truth
        flight.see(truth, scene.pose)
        if flight.atlas.scale is ScaleState.METRIC:
            off.append(flight.off_m())
    return np.array(off)


def test_gps_holds_a_drifting_camera_as_well_late_as_early():
    off = cruise(Flight(), 8.0)
    late = off[len(off) // 2 :]
    assert np.median(late) < 6.0  # GPS is off by 2.6 m itself
    assert late.max() < 12.0


def test_settling_that_costs_much_is_done_seldom():
    """On a clock that stands still what took an hour is never due again."""
    now_s = iter(range(0, 10**9, 3600))
    settling = Sparing(0.1, clock=lambda: 0.0, spent=lambda: float(next(now_s)))
    worked = []
    settling.work = counted(settling.work, worked)  # type: ignore[method-assign]
    cruise(Flight(settling), 3.0)
    assert len(worked) == 1


def counted(call: object, calls: list) -> object:
    def counting() -> object:
        calls.append(1)
        return call()  # type: ignore[operator]

    return counting


def hovering(first: GpsFix | None) -> MetricScale:
    """A flight in circles with GPS of 1 m, after one fix of before."""
    rng = np.random.default_rng(0)
    metric = MetricScale({0: Sim3.identity()}.get)
    if first is not None:
        metric.observe(first)
    for i in range(300):
        t = i / 5.0
        place = np.array([40 * np.sin(t / 8), 40 * np.cos(t / 8), 20 + 5 * np.sin(t / 5)])
        metric.observe(fix_at(place + rng.normal(size=3), round(t * 1e9) + 10**9, 1.0))
        scene = np.array([place[0], -place[2], place[1]]) / 10.0
        metric_pose(metric, round(t * 1e9) + 10**9, scene)
    return metric


def metric_pose(metric: MetricScale, stamp_ns: int, scene: np.ndarray) -> None:
    """A picture of a camera whose keyframe 0 is the scene."""
    pose = np.eye(4)
    pose[:3, 3] = scene
    metric.pose(
        Pose(
            frame_id=stamp_ns,
            stamp_ns=stamp_ns,
            world_from_cam=pose,
            confidence=1.0,
            state=TrackingState.TRACKED,
            keyframe_id=0,
        )
    )


@pytest.mark.parametrize(
    "first",
    [
        GpsFix(stamp_ns=0, latitude_deg=0.0, longitude_deg=0.0, altitude_m=math.nan),
        GpsFix(stamp_ns=0, latitude_deg=1e-3, longitude_deg=0.0, altitude_m=0.0),
        GpsFix(stamp_ns=1_100_000_000, latitude_deg=46.2, longitude_deg=6.1, altitude_m=400.0),
    ],
    ids=["none", "wrong", "stale"],
)
def test_a_first_fix_from_elsewhere_does_not_decide_where_the_map_is(first):
    metric = hovering(first)
    fit = metric.fit(HELD_UP, 0.1)
    assert fit is not None
    assert metric.enu is not None
    origin = (metric.enu.latitude_deg, metric.enu.longitude_deg, metric.enu.altitude_m)
    assert np.linalg.norm(SITE.position_m(*origin)) < 60.0
    assert np.linalg.norm(fit.map_from_scene.translation) < 60.0
    assert (fit.map_from_scene.rotation @ HELD_UP)[2] > np.cos(np.deg2rad(1.0))
    assert fit.map_from_scene.scale == pytest.approx(10.0, rel=0.02)


def test_the_origin_stays_once_the_map_has_its_axes():
    metric = hovering(None)
    metric.fit(HELD_UP, 0.1)
    chosen = metric.enu
    metric.keep_origin()
    for i in range(400):
        stamp_ns = 70 * 10**9 + i * STEP_NS
        metric.observe(fix_at(np.array([500.0, 2.0 * i, 20.0]), stamp_ns, 1.0))
        metric_pose(metric, stamp_ns, np.array([50.0, -2.0, 0.2 * i]))
    metric.fit(HELD_UP, 0.1)
    assert metric.enu == chosen


@pytest.mark.parametrize("latitude_deg", [-90.0, -33.0, 0.0, 47.4, 89.9999])
@pytest.mark.parametrize("longitude_deg", [-180.0, 8.5, 179.999])
def test_a_place_and_its_geodetic_coordinates_are_inverse(latitude_deg, longitude_deg):
    for height_m in (-100.0, 0.0, 9000.0):
        place = ecef_m(latitude_deg, longitude_deg, height_m)
        assert np.allclose(ecef_m(*geodetic(place)), place, atol=1e-6)


def test_frames_about_two_places_are_told_of_each_other():
    other = EnuFrame(46.2, 6.1, 400.0)
    here = SITE.position_m(46.5, 7.0, 900.0)
    assert np.allclose(other.from_other(SITE).apply(here), other.position_m(46.5, 7.0, 900.0))


def wander(rng: np.random.Generator, count: int, sigma: float, seconds: float) -> np.ndarray:
    """Gauss–Markov, once a second."""
    keeps = math.exp(-1.0 / seconds)
    found = np.zeros((count, 3))
    found[0] = sigma * rng.normal(size=3)
    for i in range(1, count):
        found[i] = keeps * found[i - 1]
        found[i] += sigma * math.sqrt(1.0 - keeps**2) * rng.normal(size=3)
    return found


def test_the_scale_is_said_to_be_no_surer_than_gps_that_wanders_slowly_makes_it():
    """About two in three fits err by less than one standard deviation: its root mean is one."""
    off = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        place = wander(rng, 300, 2.0, 25.0) * [1.0, 1.0, 0.4]
        wrong = wander(rng, 300, 1.5, 100.0)
        metric = MetricScale({0: Sim3.identity()}.get)
        for i in range(300):
            metric.observe(fix_at(place[i] + wrong[i], (i + 1) * 10**9, 1.5))
            for later_ns in (0, STEP_NS):
                at = np.array([np.interp(i + later_ns / 1e9, range(300), axis) for axis in place.T])
                scene = np.array([at[0], -at[2], at[1]]) / 10.0
                metric_pose(metric, (i + 1) * 10**9 + later_ns, scene)
        fit = metric.fit(HELD_UP, 0.1)
        assert fit is not None
        off.append(math.log(fit.map_from_scene.scale / 10.0) / fit.scale_sigma)
    size = math.sqrt(np.mean(np.square(off)))
    assert size < 1.4


@pytest.mark.parametrize("restart", [200, 300])
@pytest.mark.parametrize("heading_deg", [60.0, 180.0])
def test_a_phones_odometry_that_begins_anew_half_way_is_not_believed(restart, heading_deg):
    rng = np.random.default_rng(1)
    metric = MetricScale({0: Sim3.identity()}.get)
    t = np.arange(400) * 0.1
    path = np.column_stack([3 * np.sin(t / 4), 2 * np.cos(t / 3), 1.5 + 0.3 * np.sin(t)])
    told = path.copy()
    turn = Rotation.from_euler("z", heading_deg, degrees=True).as_matrix()
    told[restart:] = (path[restart:] - path[restart]) @ turn.T
    told += 0.02 * rng.normal(size=told.shape)
    for i, (own, place) in enumerate(zip(told, path, strict=True)):
        stamp_ns = (i + 1) * 100_000_000
        metric.observe(OdometrySample(stamp_ns=stamp_ns, position_m=tuple(own)))
        metric_pose(metric, stamp_ns, np.array([place[0], -place[2], place[1]]) / 2.0)
    fit = metric.fit(HELD_UP, 0.1)
    assert fit is None or fit.scale_sigma > 0.05


def test_a_session_that_overlaps_nothing_of_a_loaded_map_does_not_say_how_large_it_is():
    flight = Flight()
    flight.atlas.place(1, Sim3(1.0, np.eye(3), np.array([3.0, 0.0, 0.0])))
    for i in range(3 * A_KEYFRAME):
        scene = np.eye(4)
        scene[:3, 3] = [0.1 * i, 0.0, 0.0]
        flight.see(np.eye(4), scene)
    flight.atlas.graph.restored = set(flight.atlas.keyframes)
    for i in range(100):
        angle = i / 15.0
        place = np.array([40 * np.sin(angle), 40 * np.cos(angle), 20.0 + 3 * np.sin(angle / 2)])
        seen = len(flight.poses) * STEP_NS
        flight.metric.observe(fix_at(place, seen, 0.5))
        scene = np.eye(4)
        scene[:3, 3] = np.array([place[0], -place[2], place[1]]) / 40.0
        flight.see(np.eye(4), scene, submap=1)
    assert flight.metric.has_positions
    assert flight.atlas.scale is ScaleState.SCENE
