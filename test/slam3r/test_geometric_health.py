# SPDX-License-Identifier: Apache-2.0
"""What the geometric back-end says is wrong, for each thing that can be."""

from __future__ import annotations

from dataclasses import replace

import filmed_room
import numpy as np
import pytest
import recordings

from worldsystem_core.frames import Frame
from worldsystem_slam3r.backend import open_backend
from worldsystem_slam3r.config import Slam3rConfig
from worldsystem_slam3r.geometric.health import HealthMonitor
from worldsystem_slam3r.geometric.system import GeometricBackend
from worldsystem_slam3r.health import GOOD, Health, health_of

CAMERA = filmed_room.camera(320, 180)
POSES = filmed_room.sideways_poses(40, step=0.09)
PICTURE = np.random.default_rng(0).integers(0, 255, (90, 160), dtype=np.uint8)
SECOND_NS = 10**9


@pytest.fixture(scope="module")
def film() -> list[Frame]:
    return filmed_room.frames(POSES, CAMERA)


@pytest.mark.parametrize("graph", [True, False])
def test_whoever_opens_the_back_end_is_told_its_health(film, graph):
    opened = open_backend("geometric", Slam3rConfig(synchronous=True, graph=graph))
    opened.backend.feed(film[0])
    assert health_of(opened.backend) is not None


def _fed(film: list[Frame]) -> list[Health]:
    """The health after each frame, without dense depth."""
    backend = GeometricBackend(Slam3rConfig(synchronous=True, depth_planes=16, depth_neighbours=1))
    told = []
    for frame in film:
        backend.feed(frame)
        told.append(backend.health)
    backend.close()
    return told


def _painted(film: list[Frame], rgb: np.ndarray) -> list[Frame]:
    return [replace(frame, rgb=rgb.copy()) for frame in film]


def test_a_sound_run_is_healthy_and_says_nothing(film):
    told = _fed(film)
    assert all(health.score >= GOOD and not health.problem for health in told)
    assert np.mean([health.score for health in told[10:]]) > 0.85


def test_a_covered_lens_is_named(film):
    dark = np.full((CAMERA.height, CAMERA.width, 3), 3, np.uint8)
    told = _fed(film[:16] + _painted(film[16:36], dark))[-1]
    assert told.score == 0.0
    assert "lens covered" in told.problem


def test_a_wall_without_texture_is_named(film):
    ramp = np.linspace(90, 160, CAMERA.width).astype(np.uint8)
    wall = np.broadcast_to(ramp[None, :, None], (CAMERA.height, CAMERA.width, 3))
    told = _fed(_painted(film[:20], wall))[-1]
    assert told.score < GOOD
    assert "texture" in told.problem


def test_a_camera_at_rest_is_told_to_move(film):
    told = _fed([replace(f, rgb=film[0].rgb.copy(), stamp_ns=4 * f.stamp_ns) for f in film[:16]])
    assert "does not move" in told[-1].problem
    assert told[-1].score == 0.0


def test_a_camera_that_only_turns_is_told_so():
    turning = filmed_room.frames(filmed_room.turning_poses(16), CAMERA)
    told = _fed([replace(frame, stamp_ns=4 * frame.stamp_ns) for frame in turning])
    assert "only turns" in told[-1].problem


def test_missing_frames_are_named_with_their_share(film):
    rng = np.random.default_rng(2)
    monitor = HealthMonitor()
    for number in np.flatnonzero(rng.random(200) > 0.4).tolist():
        monitor.picture(number * SECOND_NS // 30, PICTURE)
    assert monitor.missing_share == pytest.approx(0.4, abs=0.08)
    assert "frames are missing" in monitor.health.problem


def test_an_even_stream_of_any_rate_misses_nothing():
    rng = np.random.default_rng(3)
    monitor = HealthMonitor()
    for number in range(80):
        jitter_ns = int(rng.normal(0, 0.1) * SECOND_NS / 7)
        monitor.picture(number * SECOND_NS // 7 + jitter_ns, PICTURE)
    assert monitor.missing_share < 0.02
    assert monitor.health.score >= GOOD


def test_a_third_of_the_frames_may_go_missing_without_losing_the_way(film):
    rng = np.random.default_rng(1)
    backend = GeometricBackend(Slam3rConfig(synchronous=True, depth_planes=16, depth_neighbours=1))
    kept = [frame for frame in film if frame.id < 4 or rng.random() > 0.3]
    states = [e.state.name for f in kept for e in backend.feed(f) if hasattr(e, "state")]
    backend.close()
    assert states.count("TRACKED") == len(kept)


def test_a_map_that_does_not_fit_is_said(film):
    monitor = HealthMonitor()
    monitor.picture(0, PICTURE)
    for _ in range(20):
        monitor.fitted(0.006)
        monitor.followed(200, 0.9)
    assert "does not fit" in monitor.health.problem
    assert monitor.health.score < 0.1


def test_the_worst_part_decides_and_a_loss_names_its_cause():
    monitor = HealthMonitor()
    for i in range(30):
        monitor.picture(i, PICTURE)
        monitor.corners(10)
        monitor.lost()
    assert monitor.health.score == 0.0
    assert monitor.health.problem.startswith("tracking is lost")
    assert "hardly any texture" in monitor.health.problem
    assert health_of(object()) is None


@pytest.mark.slow
def test_a_wrong_focal_length_is_noticed_and_overruled():
    film = list(recordings.living_room(110))
    wrong = replace(recordings.LIVING_ROOM_CAMERA, fx=656.0, fy=656.0)
    backend = GeometricBackend(Slam3rConfig(synchronous=True, depth_planes=16, depth_neighbours=1))
    for frame, _ in film:
        backend.feed(replace(frame, camera=wrong))
    backend.close()
    assert "told wrong" in backend.health.problem
    assert backend.focal_px == pytest.approx(525.0, rel=0.06)


def test_each_start_has_its_own_seconds_before_it_is_missed():
    monitor = HealthMonitor()
    for number in range(100):
        stamp_ns = number * SECOND_NS // 10
        monitor.picture(stamp_ns, PICTURE)
        if number < 2:
            monitor.waiting(stamp_ns, 0.05, 0.05)
        else:
            monitor.followed(200, 0.9)
    for number in range(100, 140):  # a new sub-map is begun
        stamp_ns = number * SECOND_NS // 10
        monitor.picture(stamp_ns, PICTURE)
        monitor.waiting(stamp_ns, 0.05, 0.05)
        if number < 129:
            assert monitor.health == Health(GOOD)
    assert monitor.health.score == 0.0
    assert "no start yet" in monitor.health.problem


@pytest.mark.parametrize(
    ("seen", "words"),
    [("dark", "lens covered"), ("wall", "texture"), ("unlike", "no start yet")],
)
def test_pictures_in_which_nothing_can_be_followed_are_not_said_to_be_of_a_camera_at_rest(
    film, seen, words
):
    size = (16, CAMERA.height, CAMERA.width, 3)
    ramp = np.linspace(90, 160, CAMERA.width).astype(np.uint8)
    shown = {
        "dark": np.full(size, 3, np.uint8),
        "wall": np.broadcast_to(ramp[:, None], size),
        "unlike": np.random.default_rng(4).integers(0, 255, size, dtype=np.uint8),
    }[seen]
    pairs = zip(film[:16], shown, strict=True)
    told = _fed([replace(f, rgb=rgb.copy(), stamp_ns=4 * f.stamp_ns) for f, rgb in pairs])
    assert any(words in health.problem for health in told if health.score == 0.0)
    assert not any("does not move" in health.problem for health in told)
