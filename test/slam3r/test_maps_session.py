# SPDX-License-Identifier: Apache-2.0
"""A map outlives its session: saved, loaded, found again, and continued."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from drifting_backend import DriftingBackend, Film, film, ring_poses
from test_scale_metric import fixes, run, turned_odometry, walk  # noqa: F401

from worldsystem_core.errors import MapError
from worldsystem_core.geometry.sim3 import Sim3
from worldsystem_core.reconstruction import (
    Event,
    MovedKeyframes,
    NewKeyframe,
    Pose,
    ScaleState,
    TrackingState,
)
from worldsystem_core.telemetry import GpsFix
from worldsystem_slam3r.config import Slam3rConfig
from worldsystem_slam3r.maps import keeper
from worldsystem_slam3r.maps.content import SavedMap
from worldsystem_slam3r.maps.folder import is_map
from worldsystem_slam3r.scale.enu import ENU, LEVEL
from worldsystem_slam3r.session.backend import GraphBackend
from worldsystem_slam3r.session.restartable import RenewableBackend
from worldsystem_slam3r.session.services import tell_again

COUNT = 16


@pytest.fixture(scope="module")
def first() -> Film:
    return film(ring_poses(COUNT + 1)[:8])


@pytest.fixture(scope="module")
def second() -> Film:
    """Begins over known ground, seen from a little aside, and goes on where the first ended."""
    return film(ring_poses(COUNT + 1)[4:11], first_id=500)


def session(of: Film, unit: float, **settings: object) -> tuple[list[Event], GraphBackend]:
    backend = RenewableBackend(DriftingBackend([of], unit=unit), None)
    graph = GraphBackend(backend, Slam3rConfig(**settings))  # type: ignore[arg-type]
    events: list[Event] = []
    for frame in of.frames:
        events += graph.feed(frame)
    return events + graph.finish(), graph


@pytest.fixture(scope="module")
def saved(first, tmp_path_factory):
    folder = tmp_path_factory.mktemp("maps") / "room"
    _, graph = session(first, 1.0)
    text = graph.save_map(folder)
    assert "saved 8 keyframes" in text
    return folder


def test_a_second_session_goes_on_in_the_map_of_the_first(saved, second, first):
    events, graph = session(second, 3.3, map=str(saved), map_every_s=0.0)
    keyframes = [event.keyframe for event in events if isinstance(event, NewKeyframe)]
    assert [k.id for k in keyframes[:3]] == [0, 1, 2]
    assert {k.id for k in keyframes} == set(range(15))
    assert graph.counts.merged == 1
    start = np.linalg.inv(first.poses[0])
    truth = {f.id: start @ p for f, p in zip(second.frames, second.poses, strict=True)}
    for pose in (event for event in events if isinstance(event, Pose)):
        assert pose.state is TrackingState.TRACKED
        assert np.allclose(pose.world_from_cam[:3, 3], truth[pose.frame_id][:3, 3], atol=0.06)
    # in the map's unit, not in that of the session
    late = keyframes[-1]
    depth = second.depths[late.frame_id - 500]
    assert np.nanmedian(late.pointmap[..., 2] / depth) == pytest.approx(1.0, rel=0.02)


def test_the_first_picture_over_known_ground_is_located(saved, second):
    backend = RenewableBackend(DriftingBackend([second], lost={500}), None)
    graph = GraphBackend(backend, Slam3rConfig(map=str(saved), map_every_s=0.0))
    events = graph.feed(second.frames[0])
    (pose,) = (event for event in events if isinstance(event, Pose))
    assert pose.state is TrackingState.TRACKED
    assert graph.counts.relocalised == 1


def test_loaded_keyframes_have_the_geometry_that_was_saved(saved, first):
    graph = GraphBackend(RenewableBackend(DriftingBackend([first]), None), Slam3rConfig())
    graph.load_map(saved)
    loaded = graph.maps.loaded_keyframes(everything=True)
    assert len(loaded) == 8
    for keyframe, depth, pose in zip(loaded, first.depths, first.poses, strict=True):
        assert np.nanmax(np.abs(keyframe.pointmap[..., 2] / depth - 1)) < 1e-3
        place = np.linalg.inv(first.poses[0]) @ pose
        assert np.allclose(keyframe.world_from_cam, place, atol=1e-6)


def test_surfaces_that_memory_has_no_room_for_stay_in_the_map(first, tmp_path, monkeypatch):
    monkeypatch.setattr(keeper, "MEGABYTE", 1_000)
    graph = GraphBackend(RenewableBackend(DriftingBackend([first]), None), Slam3rConfig(map_mb=64))
    for frame in first.frames:
        graph.feed(frame)
        graph.save_map(tmp_path / "map")
    assert graph.maps.dense.let_go > 2
    again = GraphBackend(RenewableBackend(DriftingBackend([first]), None), Slam3rConfig())
    again.load_map(tmp_path / "map")
    assert len(again.maps.loaded_keyframes(everything=True)) == len(first.frames)


def test_a_damaged_map_that_is_refused_leaves_no_trace(first, tmp_path):
    _, graph = session(first, 1.0)
    graph.atlas.scale = ScaleState.METRIC
    graph.save_map(tmp_path / "map")
    next((tmp_path / "map").glob("keyframes/*-place.npz")).unlink()
    fresh = GraphBackend(RenewableBackend(DriftingBackend([first]), None), Slam3rConfig())
    before = fresh.atlas.graph.held_log_scale
    with pytest.raises(MapError, match="damaged"):
        fresh.load_map(tmp_path / "map")
    assert (fresh.atlas.scale, fresh.atlas.graph.held_log_scale) == (ScaleState.SCENE, before)
    events = [event for frame in first.frames for event in fresh.feed(frame)]
    assert {event.scale for event in events if isinstance(event, Pose)} == {ScaleState.SCENE}


@pytest.mark.parametrize("damage", ["gone", "cut"])
def test_one_surface_that_cannot_be_read_holds_up_no_other(saved, second, tmp_path, caplog, damage):
    folder = tmp_path / "map"
    shutil.copytree(saved, folder)
    (lost,) = folder.glob("keyframes/000003-*-dense.npz")
    if damage == "gone":
        lost.unlink()
    else:
        lost.write_bytes(lost.read_bytes()[:-1])
    config = Slam3rConfig(map=str(folder), map_every_s=0.0)
    graph = GraphBackend(RenewableBackend(DriftingBackend([second]), None), config)
    events = [event for frame in second.frames[:3] for event in graph.feed(frame)]
    others = [0, 1, 2, 4, 5, 6, 7]
    assert [e.keyframe.id for e in events if is_new(e) and e.keyframe.id < 8] == others
    if damage == "cut":
        graph.save_map(folder)
        assert not lost.exists(), "what is damaged is not kept for ever"
    graph.maps.tell_again()
    again = graph.maps.loaded_keyframes(everything=True)
    assert [keyframe.id for keyframe in again if keyframe.id < 8] == others
    assert caplog.text.count("keyframe 3 of the map leaves no surface") == 1
    graph.save_map(tmp_path / "anew")
    anew = SavedMap(tmp_path / "anew")
    anew.check()
    assert "keyframes/" + lost.name.replace("dense", "place") in anew.manifest.files
    assert "keyframes/" + lost.name not in anew.manifest.files


def test_a_map_keeps_itself_saved(first, tmp_path):
    folder = tmp_path / "kept"
    session(first, 1.0, map=str(folder), map_every_s=0.001)
    saved = SavedMap(folder)
    saved.check()
    assert len(saved.nodes) == 8
    assert saved.scale is ScaleState.SCENE


def test_a_save_that_failed_is_tried_again_though_nothing_is_new(first, tmp_path):
    disk = tmp_path / "disk"
    disk.write_bytes(b"a file where a folder should be")
    config = Slam3rConfig(map=str(disk / "map"), map_every_s=0.001)
    graph = GraphBackend(RenewableBackend(DriftingBackend([first]), None), config)
    for frame in first.frames:
        graph.feed(frame)
    until(lambda: graph.maps.failure != "")
    disk.unlink()

    def is_saved() -> bool:
        graph.maps.tick()
        return is_map(disk / "map")

    until(is_saved)
    graph.maps.close()
    assert graph.maps.failure == ""


def until(done, limit_s: float = 20.0) -> None:
    deadline = time.monotonic() + limit_s
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_metric_map_stays_metric_and_keeps_its_origin(first, tmp_path):
    _, graph = session(first, 1.0)
    graph.observe(GpsFix(stamp_ns=0, latitude_deg=47.4, longitude_deg=8.5, altitude_m=500.0))
    graph.atlas.scale, graph.atlas.axes = ScaleState.METRIC, ENU
    graph.save_map(tmp_path / "metric")
    again = GraphBackend(RenewableBackend(DriftingBackend([first]), None), Slam3rConfig())
    again.load_map(tmp_path / "metric")
    assert again.scale is ScaleState.METRIC
    assert again.metric.enu == graph.metric.enu is not None
    assert again.atlas.axes == ENU
    assert all(k.scale is ScaleState.METRIC for k in _told(again, first))


def test_fixes_that_came_before_a_map_was_loaded_do_not_move_its_origin(first, tmp_path):
    here = GpsFix(stamp_ns=0, latitude_deg=47.4, longitude_deg=8.5, altitude_m=500.0)
    _, graph = session(first, 1.0)
    graph.observe(here)
    graph.atlas.scale, graph.atlas.axes = ScaleState.METRIC, ENU
    graph.save_map(tmp_path / "metric")
    again = GraphBackend(RenewableBackend(DriftingBackend([first]), None), Slam3rConfig())
    again.observe(replace(here, latitude_deg=47.401))
    again.load_map(tmp_path / "metric")
    assert again.metric.enu == graph.metric.enu
    again.save_map(tmp_path / "anew")
    assert SavedMap(tmp_path / "anew").enu == graph.metric.enu


def test_a_map_that_gps_has_not_turned_names_no_origin(first, tmp_path):
    _, graph = session(first, 1.0)
    graph.observe(GpsFix(stamp_ns=0, latitude_deg=47.4, longitude_deg=8.5, altitude_m=500.0))
    graph.save_map(tmp_path / "scene")
    assert SavedMap(tmp_path / "scene").enu is None


def places(graph: GraphBackend) -> np.ndarray:
    return np.array([graph.atlas.keyframes[key].world.translation for key in range(8)])


def later_part(of: Film, first: int, end: int) -> Film:
    """Flown again 100 s later."""
    frames = [
        replace(frame, id=frame.id + 100, stamp_ns=frame.stamp_ns + 100_000_000_000)
        for frame in of.frames[first:end]
    ]
    return Film(frames, of.depths[first:end], of.poses[first:end])


def test_the_first_fixes_of_a_session_do_not_resize_a_loaded_map(walk, tmp_path):  # noqa: F811
    _, graph = run(walk, fixes(walk, 0.5))
    graph.save_map(tmp_path / "map")
    again = later_part(walk, 4, 10)
    _, later = run(again, fixes(again, 3.0), map=str(tmp_path / "map"), map_every_s=0.0)
    assert later.counts.merged == 1
    assert later.metric.has_positions
    before, after = places(graph), places(later)
    for a, b in combinations(range(8), 2):
        ratio = np.linalg.norm(after[a] - after[b]) / np.linalg.norm(before[a] - before[b])
        assert ratio == pytest.approx(1.0, abs=0.02)
    assert np.linalg.norm(after - before, axis=1).max() < 6.0  # no more than fixes are off


def test_fixes_turn_a_loaded_map_without_axes_but_do_not_resize_it(walk, tmp_path):  # noqa: F811
    """They are too far apart by 8 %, and know the size less well than the map does."""
    _, graph = run(walk, turned_odometry(walk))
    assert graph.atlas.scale is ScaleState.METRIC
    assert graph.atlas.axes != ENU
    graph.save_map(tmp_path / "map")
    again = later_part(walk, 2, 12)
    far = [pose.copy() for pose in again.poses]
    for pose in far:
        pose[:3, 3] *= 1.08
    settings = {"map": str(tmp_path / "map"), "map_every_s": 0.0}
    _, later = run(again, fixes(replace(again, poses=far), 0.8), **settings)
    assert later.atlas.axes == ENU
    before, after = places(graph), places(later)
    for a, b in combinations(range(8), 2):
        ratio = np.linalg.norm(after[a] - after[b]) / np.linalg.norm(before[a] - before[b])
        assert ratio == pytest.approx(1.0, abs=0.02)


def _told(graph: GraphBackend, of: Film) -> list:
    events = graph.feed(of.frames[0])
    return [event.keyframe for event in events if isinstance(event, NewKeyframe)]


def test_a_session_that_overlaps_nothing_begins_level_where_the_last_one_ended(walk, tmp_path):  # noqa: F811
    """The room's cameras are level; these see noise, so that nothing of them is known again."""
    _, graph = run(walk, fixes(walk, 0.5))
    graph.save_map(tmp_path / "map")
    rng = np.random.default_rng(0)
    elsewhere = later_part(walk, 0, 8)
    frames = [
        replace(frame, rgb=rng.integers(0, 255, frame.rgb.shape, dtype=np.uint8))
        for frame in elsewhere.frames
    ]
    settings = {"map": str(tmp_path / "map"), "map_every_s": 0.0, "submap_keyframes": 4}
    events, later = run(replace(elsewhere, frames=frames), [], **settings)
    assert later.counts.guessed == 1
    told = [e.keyframe for e in events if is_new(e)]  # type: ignore[union-attr]
    begin = next(k for k in told if k.frame_id >= frames[0].id).world_from_cam
    assert -begin[2, 1] > np.cos(np.deg2rad(3.0))  # the picture's up
    last = max(k for k in graph.atlas.keyframes)
    assert np.allclose(begin[:3, 3], graph.atlas.keyframes[last].world.translation, atol=0.1)


def test_a_phones_odometry_does_not_turn_a_map_whose_east_is_known(walk, tmp_path):  # noqa: F811
    _, graph = run(walk, fixes(walk, 0.5))
    graph.save_map(tmp_path / "map")
    again = later_part(walk, 4, 12)
    settings = {"map": str(tmp_path / "map"), "map_every_s": 0.0}
    _, later = run(again, turned_odometry(again), **settings)
    assert (later.metric.axes, later.atlas.axes) == (LEVEL, ENU)
    assert np.allclose(places(later), places(graph), atol=0.5)


def test_a_second_life_never_numbers_into_the_loaded_map(saved, second):
    """The first died while it was still telling the keyframes of the map: the stage knows three."""
    config = Slam3rConfig(map=str(saved), map_every_s=0.0)
    graph = GraphBackend(RenewableBackend(DriftingBackend([second]), None), config)
    graph.number_from(3)
    graph.feed(second.frames[0])
    assert set(graph.atlas.keyframes) == set(range(9))


def test_loading_into_a_map_that_is_being_made_is_refused(saved, first):
    graph = GraphBackend(RenewableBackend(DriftingBackend([first]), None), Slam3rConfig())
    graph.feed(first.frames[0])
    with pytest.raises(MapError, match="before the camera is located"):
        graph.load_map(saved)


def test_saving_nothing_is_refused(first, tmp_path):
    graph = GraphBackend(RenewableBackend(DriftingBackend([first]), None), Slam3rConfig())
    with pytest.raises(MapError, match="no map yet"):
        graph.save_map(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()


def test_a_map_folder_that_does_not_exist_begins_a_new_map(first, tmp_path):
    _, graph = session(first, 1.0, map=str(tmp_path / "new"), map_every_s=60.0)
    assert graph.counts.submaps == 1
    assert len(SavedMap(tmp_path / "new").nodes) == 8  # saved at the end


def test_a_stage_that_began_anew_is_told_every_keyframe_again(first):
    backend = RenewableBackend(DriftingBackend([first]), None)
    graph = GraphBackend(backend, Slam3rConfig())
    told = [e.keyframe for frame in first.frames[:6] for e in graph.feed(frame) if is_new(e)]
    assert tell_again(graph) == "6 keyframes are told again"
    events = [event for frame in first.frames[6:] for event in graph.feed(frame)]
    again = [e.keyframe for e in events if is_new(e)]
    assert isinstance(events[0], MovedKeyframes), "first where all lie, for one that has them still"
    assert events[0].world_from_cam.keys() == set(range(6))
    assert events[0].scale is graph.atlas.scale
    assert not any(isinstance(e, MovedKeyframes) and len(e.world_from_cam) > 5 for e in events[1:])
    assert sorted(k.id for k in again) == list(range(8))
    for before, after in zip(told, sorted(again, key=lambda k: k.id)[:6], strict=True):
        assert np.allclose(before.world_from_cam, after.world_from_cam, atol=0.02)
        both = np.isfinite(before.pointmap) & np.isfinite(after.pointmap)
        assert both.mean() > 0.9
        assert np.allclose(before.pointmap[both], after.pointmap[both], rtol=0.02)


def is_new(event: Event) -> bool:
    return isinstance(event, NewKeyframe)


def test_a_correction_that_no_keyframe_follows_is_saved_too(first, tmp_path):
    """As of a loop that is settled late, while the camera rests."""
    config = Slam3rConfig(map=str(tmp_path / "map"), map_every_s=0.001)
    graph = GraphBackend(RenewableBackend(DriftingBackend([first]), None), config)

    def is_handed_on() -> bool:
        graph.maps.tick()
        return graph.maps._handed_on == graph.maps._state()

    for frame in first.frames:
        graph.feed(frame)
    until(is_handed_on)
    graph.atlas.transform(Sim3(2.0, np.eye(3), np.zeros(3)))
    assert graph.atlas.changed(everything=True) is not None
    until(is_handed_on)
    graph.maps.let_go()  # what waits is written, and nothing else
    assert SavedMap(tmp_path / "map").nodes["world"][:, 0] == pytest.approx(2.0, rel=0.02)
