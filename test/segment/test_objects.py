# SPDX-License-Identifier: Apache-2.0
"""Objects of the map: occlusion, motion, parting, merging, and keeping."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
from segment_scenes import ROOM_EYE, Scene, box, room

from worldsystem_core.errors import MapError
from worldsystem_core.objects import TrackState
from worldsystem_segment.config import SegmentConfig
from worldsystem_segment.geometric.colour_split import split_by_colour
from worldsystem_segment.objects.object_file import NAME
from worldsystem_segment.objects.object_map import Named
from worldsystem_segment.objects.report import unseen_tracks
from worldsystem_segment.objects.track_ids import MAX_ID, REST_FEEDS
from worldsystem_segment.objects.track_points import TrackPoints
from worldsystem_segment.objects.voxels import voxel_keys
from worldsystem_segment.objects.world_track import WorldTrack
from worldsystem_segment.objects.world_tracker import WorldTracker
from worldsystem_segment.segmenter import Segmenter

AHEAD = (0.0, 1.5, 0.3)


def _floor(*things) -> Scene:
    scene = Scene()
    scene.structure(box((0, 0, -0.05), (12, 12, 0.1)), (150, 140, 130))
    for mesh, colour in things:
        scene.put(mesh, colour=colour)
    return scene


def _shot(scene: Scene, index: int, **given):
    keyframe, truth = scene.caster().shot(index, ROOM_EYE, AHEAD, **given)
    return dataclasses.replace(keyframe, stamp_ns=index * 500_000_000), truth


RED, BLUE = (200, 30, 30), (40, 60, 200)


def _walk(positions, *, texture=0.2):
    """Keyframes of a blue box that is at these x, before a red one that stays."""
    for index, x in enumerate(positions):
        things = [(box((1.0, 2.0, 0.3), (0.6, 0.6, 0.6)), RED)]
        if x is not None:
            things.append((box((x, 0.6, 0.35), (0.5, 0.5, 0.7)), BLUE))
        yield _shot(_floor(*things), index, texture=texture, noise=0.003)


def test_a_thing_that_drives_keeps_its_id_and_is_called_moving() -> None:
    segmenter = Segmenter()
    held = set()
    for keyframe, truth in _walk(np.arange(-1.4, 0.7, 0.3)):
        frame = segmenter.feed(keyframe)
        held |= {int(np.bincount(frame.labels[truth == 2]).argmax())}
    assert len(held - {0}) == 1
    moving = [o for o in segmenter.objects(0).objects if o.moving]
    assert [o.label for o in moving] == ["moving blue box"]
    assert abs(moving[0].world_from_box[0, 3] - 0.4) < 0.2  # where it is, not where it was


def test_a_thing_that_drives_is_called_moving_though_each_keyframe_corrects_an_older_one() -> None:
    segmenter, first = Segmenter(), None
    for keyframe, _ in _walk(np.arange(-1.4, 0.7, 0.3)):
        segmenter.feed(keyframe)
        first = first or keyframe
        nudged = first.world_from_cam.copy()
        nudged[0, 3] += 0.001
        segmenter.move({first.id: nudged})
    assert [o.label for o in segmenter.objects(0).objects if o.moving] == ["moving blue box"]


def test_what_stands_still_is_never_called_moving_while_the_camera_flies() -> None:
    caster = room().caster()
    segmenter = Segmenter()
    for k in range(6):
        eye = (0.3 * k - 0.8, -2.5, 1.7)
        segmenter.feed(caster.shot(k, eye, AHEAD, noise=0.01, texture=0.2)[0])
    assert not any(o.moving for o in segmenter.objects(0).objects)


def test_a_hidden_object_is_occluded_and_comes_back_with_its_id() -> None:
    red = (box((1.0, 2.0, 0.3), (0.6, 0.6, 0.6)), RED)
    screen = (box((0.6, 0.2, 0.7), (1.0, 0.3, 1.4)), BLUE)
    segmenter, states = Segmenter(), []
    for index in range(7):
        hidden = index in (4, 5)
        scene = _floor(red, screen) if hidden else _floor(red)
        keyframe, truth = _shot(scene, index, texture=0.2, noise=0.003)
        assert (truth == 1).any() != hidden
        tracks = segmenter.feed(keyframe).tracks
        states.append({t.id: t.state for t in tracks if "red" in t.label})
    (number,) = states[3]
    assert states[3] == states[6] == {number: TrackState.CONFIRMED}
    assert states[4] == states[5] == {number: TrackState.OCCLUDED}


def test_an_object_that_leaves_the_view_is_lost_once_and_then_not_told() -> None:
    caster = room().caster()
    away = (0.0, -8.0, 1.7)
    segmenter, told = Segmenter(), []
    for k, target in enumerate([AHEAD] * 4 + [away] * 2):
        frame = segmenter.feed(caster.shot(k, ROOM_EYE, target)[0])
        told.append({t.state for t in frame.tracks})
    assert TrackState.LOST in told[4]
    assert TrackState.LOST not in told[5]


def test_two_boxes_with_one_front_are_parted_by_their_colours() -> None:
    labels = np.ones((60, 80), np.int32)
    rgb = np.full((60, 80, 3), RED, np.uint8)
    rgb[:, 40:] = BLUE
    rgb[5:9, 5:9] = (255, 255, 255)  # print is no part of its own
    parted = split_by_colour(labels, rgb, 50)
    assert len(np.unique(parted)) == 2
    assert (parted[:, :38] == parted[0, 0]).all()
    assert (parted[:, 42:] == parted[0, 79]).all()
    assert not split_by_colour(np.zeros((60, 80), np.int32), rgb, 50).any()


def test_shade_alone_parts_nothing() -> None:
    shade = np.linspace(0.6, 1.0, 80)[None, :, None]
    rgb = (np.array(RED) * np.where(shade > 0.8, 1.0, 0.65)).astype(np.uint8).repeat(60, axis=0)
    assert len(np.unique(split_by_colour(np.ones((60, 80), np.int32), rgb, 50))) == 1


def _points(xs) -> np.ndarray:
    return np.stack([np.asarray(xs, np.float32), np.zeros(len(xs)), np.ones(len(xs))], 1).astype(
        np.float32
    )


def _add(points: TrackPoints, keyframe_id: int, xs) -> int:
    cloud = _points(xs)
    return points.add(keyframe_id, cloud, cloud, voxel_keys(cloud, 1.0))


def test_voxels_are_voted_for_doubted_and_bounded() -> None:
    points = TrackPoints(1.0, 4)
    assert _add(points, 1, [0.5, 1.5, 2.5]) == 0
    assert _add(points, 2, [0.5, 1.5]) == 0
    assert sorted(points.votes.tolist()) == [1, 2, 2]
    points.doubt(points.votes == 1)
    assert len(points) == 2
    assert _add(points, 3, [5.5, 6.5, 7.5, 8.5]) == 2  # the voted ones stay, two of four find room
    assert len(points) == 4
    points.withdraw({1})
    assert points.anchors == {3}


def test_one_views_two_things_keep_no_voxel_of_each_other() -> None:
    points = TrackPoints(1.0, 10)
    _add(points, 1, [0.5, 1.5, 2.5])
    points.give_up(voxel_keys(_points([2.5]), 1.0))
    assert len(points) == 2


def test_points_that_were_taken_over_are_known_at_once() -> None:
    points, other = TrackPoints(1.0, 10), TrackPoints(1.0, 10)
    _add(points, 1, [0.5, 1.5])
    _add(other, 2, [1.5, 2.5])
    before = points.changes
    points.take_over(other)
    assert len(points) == len(points.keys) == 3
    assert points.high[0] == 2.5
    assert points.changes > before
    _add(points, 3, [2.5])
    assert len(points) == 3, "a voxel has one point"
    small = TrackPoints(1.0, 2)
    small.take_over(points)
    assert len(small) == len(small.keys) == 2


def test_points_go_with_their_keyframe_and_no_other_does() -> None:
    points = TrackPoints(1.0, 100)
    _add(points, 1, [0.5, 1.5])
    _add(points, 2, [2.5, 3.5])
    _add(points, 3, [4.5])
    ahead = np.eye(4)
    ahead[0, 3] = 10.0
    poses = {1: ahead, 2: ahead, 3: ahead}
    points.place({2}, poses, {})
    assert sorted(points.world[:, 0].tolist()) == [0.5, 1.5, 4.5, 12.5, 13.5]
    points.place({3, 99}, poses, {3: 2.0})
    assert sorted(points.world[:, 0].tolist()) == [0.5, 1.5, 12.5, 13.5, 19.0]
    assert points.keys.tolist() == sorted(voxel_keys(points.world, 1.0).tolist())
    assert points.high[0] == 19.0


def test_what_points_hang_on_is_known_after_each_change() -> None:
    points, other = TrackPoints(1.0, 100), TrackPoints(1.0, 100)
    assert points.anchors == set()
    _add(points, 1, [0.5])
    assert points.anchors == {1}
    _add(points, 2, [1.5])
    assert points.anchors == {1, 2}
    points.hang_on(1, 4, np.eye(4), 1.0)
    assert points.anchors == {2, 4}
    _add(other, 7, [5.5])
    points.take_over(other)
    assert points.anchors == {2, 4, 7}
    points.withdraw({2})
    assert points.anchors == {4, 7}
    points.clear()
    assert points.anchors == set()


def _track(number: int, xs, **given) -> WorldTrack:
    points = TrackPoints(1.0, 100)
    _add(points, 1, xs)
    facts = {"first_feed": 0, "first_seen_ns": 0} | given
    colour, centre = np.zeros(3, np.float32), np.zeros(3, np.float32)
    return WorldTrack(id=number, lab=colour, centre=centre, points=points, **facts)


def _tracker(*tracks: WorldTrack, feed: int, **settings) -> WorldTracker:
    tracker = WorldTracker(SegmentConfig(**settings))
    tracker.tracks = {track.id: track for track in tracks}
    tracker.feed_count = feed
    return tracker


def test_two_tracks_that_are_one_stay_confirmed_when_merged() -> None:
    older = _track(
        1, [0.5, 1.5, 2.5], hits=2, misses=9, last_feed=3, last_seen_ns=30, empty_views=2
    )
    younger = _track(
        2, [0.5, 1.5], hits=4, last_feed=8, last_seen_ns=80, first_seen_ns=40, first_feed=4,
        extent=0.5,
    )  # fmt: skip
    tracker = _tracker(older, younger, feed=8)
    assert tracker.confirmed(younger)
    assert not tracker.confirmed(older)
    tracker._merge()
    assert tracker.take_joined() == [(1, 2)]
    (kept,) = tracker.tracks.values()
    assert kept is older
    assert tracker.confirmed(kept)
    assert (kept.hits, kept.last_feed, kept.last_seen_ns, kept.first_seen_ns) == (4, 8, 80, 0)
    assert (kept.empty_views, kept.extent) == (0, 0.5)


def test_things_that_a_correction_lays_on_each_other_are_one_with_no_keyframe_after_it() -> None:
    first, again = _track(1, [0.5, 1.5], last_feed=3), _track(2, [], last_feed=8)
    _add(again.points, 2, [5.5, 6.5])
    tracker = _tracker(first, again, feed=8)
    tracker._poses = {1: np.eye(4), 2: np.eye(4)}
    assert not tracker.settle()
    back = np.eye(4)
    back[0, 3] = -5.0
    tracker.move({2: back})
    assert tracker.settle()
    assert list(tracker.tracks) == [1]
    assert not tracker.settle()


def test_what_hangs_on_keyframes_that_lie_where_they_lay_is_left_alone() -> None:
    track = _track(1, [0.5, 1.5])
    tracker = _tracker(track, feed=1)
    tracker._poses = {1: np.eye(4)}
    before = track.points.world.copy()
    placed: list[int] = []
    tracker._replace = lambda each: placed.append(each.id)  # type: ignore[method-assign]
    tracker.move({1: np.eye(4), 2: 5.0 * np.eye(4)}, {1: 1.0, 2: 3.0})
    assert placed == []
    del tracker._replace
    shifted, by = np.eye(4), np.array([2.0, 0.0, 0.0])
    shifted[:3, 3] = by
    tracker.move({1: shifted})
    np.testing.assert_allclose(track.points.world, before + by, rtol=0, atol=1e-6)
    tracker.move({1: shifted}, {1: 3.0})
    np.testing.assert_allclose(track.points.world, 3 * before + by, rtol=0, atol=1e-6)


def test_the_id_of_a_thing_that_was_confirmed_is_not_given_again_before_it_has_rested() -> None:
    believed = _track(1, [0.5], hits=5, misses=40, was_confirmed=True)
    tentative = _track(2, [5.5], hits=1)
    tracker = _tracker(believed, tentative, feed=50, max_tracks=2)
    tracker._ids.next_id = MAX_ID + 1
    tracker._drop_unbelieved()
    assert not tracker.tracks
    assert (tracker.forgotten, tracker.tentative_dropped) == (1, 1)
    assert [tracker.take_id(), tracker.take_id()] == [2, 0]
    tracker.feed_count += REST_FEEDS - 1
    assert (tracker.take_id(), tracker.take_given_again()) == (0, [])
    tracker.feed_count += 1
    assert (tracker.take_id(), tracker.take_given_again()) == (1, [1])
    assert tracker.take_id() == 0


def test_ids_of_what_merged_and_vanished_come_back_oldest_first_when_all_others_are_used() -> None:
    known = {"hits": 5, "was_confirmed": True}
    kept, merged = _track(1, [0.5, 1.5], **known), _track(2, [0.5, 1.5], last_feed=1, **known)
    tracker = _tracker(kept, merged, _track(3, [9.5], **known), feed=1)
    tracker._merge()
    tracker._vanish(tracker.tracks[3])
    assert list(tracker.tracks) == [1]
    tracker.feed_count += REST_FEEDS
    tracker._ids.next_id = MAX_ID
    assert [tracker.take_id() for _ in range(4)] == [MAX_ID, 2, 3, 0]
    assert tracker.unused_ids == []


def test_that_no_id_is_left_is_said_once(caplog) -> None:
    tracker = _tracker(feed=0)
    tracker._ids.next_id = MAX_ID
    assert [tracker.take_id() for _ in range(3)] == [MAX_ID, 0, 0]
    (record,) = caplog.records
    assert "segmenter.map" in record.getMessage()


def test_what_was_confirmed_and_is_missed_too_often_is_hidden_until_it_is_seen_again() -> None:
    caster, segmenter = room().caster(), Segmenter()
    away = (0.0, -8.0, 1.7)
    for k in range(4):
        segmenter.feed(caster.shot(k, ROOM_EYE, AHEAD)[0])
    tracks = segmenter._backend.map.tracker.tracks
    missed = min(o.id for o in segmenter.objects(0).objects)
    assert tracks[missed].was_confirmed
    tracks[missed].misses = 7 * tracks[missed].hits // 3 + 1  # one sighting fewer than it takes
    for k in range(4, 12):
        segmenter.feed(caster.shot(k, ROOM_EYE, away)[0])
    assert missed not in {o.id for o in segmenter.objects(0).objects}
    frame = segmenter.feed(caster.shot(12, ROOM_EYE, AHEAD)[0])
    assert missed in {o.id for o in segmenter.objects(0).objects}
    assert missed in {t.id for t in frame.tracks if t.state is TrackState.CONFIRMED}
    assert segmenter.counters()["forgotten"] == 0


def test_objects_saved_with_the_map_keep_their_ids_in_the_next_session(tmp_path) -> None:
    caster = room().caster()
    shots = [caster.shot(k, ROOM_EYE, AHEAD)[0] for k in range(4)]
    first, second = Segmenter(), Segmenter()
    for shot in shots:
        first.feed(shot)
    before = {o.id: o for o in first.objects(0).objects}
    assert first.save(tmp_path) == len(before) > 5
    assert second.load(tmp_path) == len(before)
    restored = {o.id: o for o in second.objects(0).objects}
    assert restored.keys() == before.keys()
    for key, thing in before.items():
        assert restored[key].label == thing.label
        assert np.allclose(restored[key].world_from_box, thing.world_from_box)
    frame = second.feed(dataclasses.replace(shots[0], id=50))
    seen = {t.id for t in frame.tracks if t.area_px}
    assert len(seen & before.keys()) >= 0.9 * len(before)


def test_ids_that_are_free_are_free_in_the_next_session(tmp_path) -> None:
    caster = room().caster()
    first, second, third = (Segmenter() for _ in range(3))
    for k in range(4):
        first.feed(caster.shot(k, ROOM_EYE, AHEAD)[0])
    ids = first._backend.map.tracker
    ids._ids.next_id = MAX_ID + 1
    ids._ids._never_known.extend([40_000, 40_001])
    free = ids.unused_ids
    assert {40_000, 40_001} <= set(free)
    assert not {o.id for o in first.objects(0).objects} & set(free)
    first.save(tmp_path)
    second.load(tmp_path)
    again = second._backend.map.tracker
    assert [again.take_id() for _ in range(len(free) + 1)] == [*free, 0]
    with np.load(tmp_path / NAME) as archive:
        older = {name: archive[name] for name in archive.files if name != "unused"}
    np.savez(tmp_path / NAME, **older)
    assert third.load(tmp_path) == len(first.objects(0).objects)
    assert third._backend.map.tracker.take_id() == 0


def test_a_damaged_or_missing_file_of_objects_changes_nothing(tmp_path) -> None:
    segmenter = Segmenter()
    for k in range(4):
        segmenter.feed(room().caster().shot(k, ROOM_EYE, AHEAD)[0])
    count = len(segmenter.objects(0).objects)
    with pytest.raises(MapError, match="no objects are saved"):
        segmenter.load(tmp_path)
    segmenter.save(tmp_path)
    whole = (tmp_path / NAME).read_bytes()
    for cut in (0, 100, len(whole) // 2, len(whole) - 1):
        (tmp_path / NAME).write_bytes(whole[:cut])
        with pytest.raises(MapError, match="damaged"):
            segmenter.load(tmp_path)
    assert len(segmenter.objects(0).objects) == count


def test_what_has_driven_off_is_not_told_as_occluded_where_it_was() -> None:
    known = {"hits": 5, "moving": True}
    behind = _track(1, [0.5], empty_views=2, **known)
    away = _track(2, [9.5], empty_views=3, **known)
    tracker = _tracker(behind, away, feed=8)
    view = SimpleNamespace(box_of=lambda points: (0, 0, 4, 4))
    told = unseen_tracks(view, tracker, lambda track: Named("moving blue box"))
    assert {track.id: track.state for track in told} == {1: TrackState.OCCLUDED}
