# SPDX-License-Identifier: Apache-2.0
"""Things that turn out to be one, and what is known of them in the next session."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from segment_scenes import ROOM_EYE, room

from worldsystem_segment.config import SegmentConfig
from worldsystem_segment.objects.duplicates import duplicates
from worldsystem_segment.objects.track_points import TrackPoints
from worldsystem_segment.objects.voxels import voxel_keys
from worldsystem_segment.objects.world_track import WorldTrack
from worldsystem_segment.objects.world_tracker import FEEDS_BETWEEN_MERGES, WorldTracker
from worldsystem_segment.segmenter import Segmenter

AHEAD = (0.0, 1.5, 0.3)


def _thing(number: int, keyframe_id: int, xs, **given) -> WorldTrack:
    points, nowhere = TrackPoints(1.0, 100), np.zeros(3, np.float32)
    cloud = np.array([(x, 0.0, 1.0) for x in xs], np.float32)
    points.add(keyframe_id, cloud, cloud, voxel_keys(cloud, 1.0))
    known = {"lab": nowhere, "centre": nowhere, "first_feed": 0, "first_seen_ns": 0}
    return WorldTrack(id=number, points=points, **known, **given)


def test_a_thing_is_told_in_the_keyframe_in_which_it_turns_out_to_be_another() -> None:
    caster, segmenter = room().caster(), Segmenter()
    shots = [caster.shot(k, ROOM_EYE, AHEAD)[0] for k in range(FEEDS_BETWEEN_MERGES)]
    for shot in shots[:-1]:
        segmenter.feed(shot)
    tracks = segmenter._backend.map.tracker.tracks
    older = tracks[min(thing.id for thing in segmenter.objects(0).objects)]
    younger = copy.deepcopy(older)
    younger.id, older.last_feed = 900, 1
    older.lab = older.lab + np.float32([0, 10, 0])  # so that the younger one is what is seen
    tracks[900] = younger
    frame = segmenter.feed(shots[-1])
    assert (older.id, 900) in segmenter.id_changes.joined
    assert older.id in {track.id for track in frame.tracks if track.area_px}
    assert (frame.labels == older.id).any()


@pytest.mark.parametrize(("last_seen_ns", "left"), [(80, [1]), (30, [1, 2])])
def test_things_of_a_loaded_map_that_a_correction_lays_on_each_other_are_one(
    last_seen_ns, left
) -> None:
    """Unless one view showed both when they were seen last."""
    tracker = WorldTracker(SegmentConfig())
    first = _thing(1, 1, [0.5, 1.5], last_seen_ns=30)
    again = _thing(2, 2, [5.5, 6.5], last_seen_ns=last_seen_ns)
    tracker.restore([first, again], {1: np.eye(4), 2: np.eye(4)}, {}, 3)
    back = np.eye(4)
    back[0, 3] = -5.0
    tracker.move({2: back})
    tracker.settle()
    assert list(tracker.tracks) == left


def test_what_is_hidden_has_its_id_in_the_next_session_too(tmp_path) -> None:
    caster, first, second = room().caster(), Segmenter(), Segmenter()
    for k in range(4):
        first.feed(caster.shot(k, ROOM_EYE, AHEAD)[0])
    tracker = first._backend.map.tracker
    number = min(thing.id for thing in first.objects(0).objects)
    track = tracker.tracks[number]
    track.misses = 7 * track.hits // 3 + 1  # one sighting fewer than it takes
    assert tracker.hidden(track)
    count = len(first.objects(0).objects)
    assert first.save(tmp_path) == second.load(tmp_path) == count
    assert number not in {thing.id for thing in second.objects(0).objects}
    second.feed(caster.shot(4, ROOM_EYE, AHEAD)[0])
    assert number in {thing.id for thing in second.objects(0).objects}


def test_two_things_that_one_view_showed_are_not_made_one_by_a_third() -> None:
    both = _thing(1, 1, [0.5, 1.5, 2.5, 3.5], last_feed=3)
    left, right = _thing(2, 2, [0.5, 1.5], last_feed=8), _thing(3, 2, [2.5, 3.5], last_feed=8)
    pairs = duplicates([both, left, right])
    assert [(kept.id, gone.id) for kept, gone in pairs] == [(1, 2)]
