# SPDX-License-Identifier: Apache-2.0
"""Ground and walls have ids beside those of objects: none is two things', and they come back."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
from segment_scenes import ROOM_EYE, room

from worldsystem_core.reconstruction import Successor
from worldsystem_segment.config import SegmentConfig
from worldsystem_segment.geometric import structure
from worldsystem_segment.geometric.walls import MAX_WALLS, Wall, WallMemory
from worldsystem_segment.objects.track_ids import MAX_ID, REST_FEEDS
from worldsystem_segment.segmenter import Segmenter

AHEAD = (0.0, 1.5, 0.3)


def _fed(count: int = 4, first_id: int = 1) -> Segmenter:
    segmenter, caster = Segmenter(), room().caster()
    segmenter._backend.map.tracker._ids.next_id = first_id
    for k in range(count):
        segmenter.feed(caster.shot(k, ROOM_EYE, AHEAD)[0])
    return segmenter


def test_walls_and_floor_of_before_hold_no_number_of_a_loaded_object(tmp_path) -> None:
    saved = _fed()
    saved.save(tmp_path)
    lowest = min(thing.id for thing in saved.objects(0).objects)
    loading = _fed(first_id=lowest)  # so that floor and walls have ids of those
    loading.load(tmp_path)
    loading.set_prompt("floor. wall. object")
    shot = room().caster().shot(50, ROOM_EYE, AHEAD)[0]
    tracks = loading.feed(shot).tracks
    assert {"floor", "wall"} < {track.label for track in tracks}
    ids = [track.id for track in tracks]
    assert len(ids) == len(set(ids))


def test_ids_of_walls_that_are_forgotten_come_back() -> None:
    segmenter = _fed()
    walls = {wall.id for wall in segmenter._backend._structure._walls.walls}
    assert walls
    segmenter.remove(range(4))
    assert walls <= set(segmenter._backend.map.tracker.unused_ids)


def test_the_oldest_wall_makes_way_and_is_named() -> None:
    memory, place = WallMemory(), np.zeros(3)
    walls = [Wall(number, 0, np.zeros(4), place, 1.0) for number in range(MAX_WALLS + 2)]
    gone = [memory.add(wall) for wall in walls]
    assert gone == [[]] * MAX_WALLS + [[walls[0]], [walls[1]]]
    assert memory.walls == walls[2:]


def test_ids_that_a_process_before_may_have_given_rest_and_come_back() -> None:
    tracker = Segmenter()._backend.map.tracker
    tracker.skip_ids(3)
    assert tracker.take_id() == 4
    tracker._ids.next_id = MAX_ID + 1
    assert tracker.take_id() == 0
    tracker.feed_count += REST_FEEDS
    assert [tracker.take_id() for _ in range(4)] == [1, 2, 3, 0]


def test_what_stands_in_for_a_loaded_keyframe_lies_where_it_is_told_to(tmp_path) -> None:
    saved = _fed()
    saved.save(tmp_path)
    before = {thing.id: thing.world_from_box[:3, 3] for thing in saved.objects(0).objects}
    other, shot = _fed(), room().caster().shot(50, ROOM_EYE, AHEAD)[0]
    other.feed(dataclasses.replace(shot, id=77))
    pose = other._backend.map.tracker.pose(77).copy()
    pose[:3, 3] = 40.0  # what the saved map knows nothing of lay elsewhere
    other._backend.map.tracker.move({77: pose})
    other.load(tmp_path)
    other.remove([0], {0: Successor(77, shot.world_from_cam)})
    other.move({77: shot.world_from_cam})
    after = {thing.id: thing.world_from_box[:3, 3] for thing in other.objects(0).objects}
    assert after.keys() == before.keys() != set()
    for number, place in after.items():
        # boxes are fitted anew, with another vertical; poses of before were 40 away
        assert np.allclose(place, before[number], atol=0.2)


def test_two_planes_of_one_wall_are_one_region(monkeypatch) -> None:
    labels = np.full((4, 6), 255, np.uint8)
    labels[:, :2], labels[:, 4:] = 0, 1
    planes = np.array([[0.0, 0.0, -1.0, 2.0], [0.0, 0.0, -1.0, 2.03]])
    monkeypatch.setattr(structure, "find_planes", lambda *_: (labels, planes))
    monkeypatch.setattr(structure, "closes_scene", lambda *_: np.zeros(2, bool))
    monkeypatch.setattr(structure, "reach_of", lambda *_: (np.zeros(3), 1.0))
    nowhere = np.full(labels.shape, -1, np.int16)
    monkeypatch.setattr(structure, "first_surface", lambda *_: nowhere)
    finder = structure.StructureFinder(SegmentConfig(), lambda: 9, lambda number: None)
    finder._walls.add(Wall(7, 0, planes[0], np.zeros(3), 1.0))
    view = SimpleNamespace(world_from_cam=np.eye(4))
    pool = np.ones(labels.shape, bool)
    ((number, region),) = finder._find_walls(view, pool, None, lambda keyframe_id: np.eye(4))
    assert number == 7
    np.testing.assert_array_equal(region, labels != 255)
