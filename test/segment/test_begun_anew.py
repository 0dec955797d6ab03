# SPDX-License-Identifier: Apache-2.0
"""Keyframes told again are no news, and a segmenter that was killed goes on with its objects."""

from __future__ import annotations

import functools
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from dds_domain import own_domain
from segment_scenes import ROOM_EYE, room

rclpy = pytest.importorskip("rclpy", reason="ROS is not set up: run these through `make test`")

from worldsystem_msgs.srv import LoadMap, QueryObjects, SaveMap  # noqa: E402

from worldsystem_core import returning_keyframes  # noqa: E402
from worldsystem_core.errors import MapError  # noqa: E402
from worldsystem_core.reconstruction import (  # noqa: E402
    MovedKeyframes,
    NewKeyframe,
    RemovedKeyframes,
    ScaleState,
)
from worldsystem_core.sparing import Sparing  # noqa: E402
from worldsystem_segment.identify import identifier  # noqa: E402
from worldsystem_segment.identify.identifier import Inquiry  # noqa: E402
from worldsystem_segment.node import SegmenterNode  # noqa: E402
from worldsystem_segment.objects import object_file, saver  # noqa: E402
from worldsystem_segment.objects.object_file import NAME  # noqa: E402


@pytest.fixture
def begin(tmp_path):
    """A segmenter that keeps its objects in one folder; it is never closed, as one killed."""
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=own_domain(__file__))

    def made(**settings: object) -> SegmenterNode:
        given = {"map": str(tmp_path)} | settings
        parameters = [rclpy.parameter.Parameter(name, value=value) for name, value in given.items()]
        return SegmenterNode(context=context, parameter_overrides=parameters)

    yield made
    rclpy.try_shutdown(context=context)


@pytest.fixture(scope="module")
def keyframes():
    shot = room().caster().shot(0, ROOM_EYE, (0.0, 1.5, 0.3))[0]
    return [replace(shot, id=k, frame_id=10 * k, stamp_ns=k * 500_000_000) for k in range(6)]


def test_keyframes_told_again_are_counted_and_followed_but_not_segmented(begin, keyframes):
    node = begin()
    for keyframe in keyframes:
        node._on_keyframe(NewKeyframe(keyframe))
    before = node._segmenter.objects(0).objects
    moved = keyframes[0].world_from_cam.copy()
    moved[:3, 3] += 5.0
    for keyframe in keyframes:
        node._on_keyframe(NewKeyframe(replace(keyframe, world_from_cam=moved)))
    account = node.ledger.state()
    assert (account.used, account.dropped) == (6, {"told_again": 6})
    assert node.ledger.violations == account.in_flight == 0
    after = node._segmenter.objects(0).objects
    assert [each.id for each in after] == [each.id for each in before] != []
    for old, new in zip(before, after, strict=True):
        shift = new.world_from_box[:3, 3] - old.world_from_box[:3, 3]
        np.testing.assert_allclose(shift, 5.0, atol=0.1)


@pytest.mark.parametrize("scale", [None, ScaleState.METRIC])
def test_sizes_told_after_a_keyframe_was_told_again_count_from_there(begin, keyframes, scale):
    node = begin()
    for keyframe in keyframes:
        node._on_keyframe(NewKeyframe(keyframe))
    poses = {keyframe.id: keyframe.world_from_cam for keyframe in keyframes}

    def sizes_at(factor: float, root: ScaleState | None = None) -> list[np.ndarray]:
        node._on_keyframe(MovedKeyframes(poses, dict.fromkeys(poses, factor), root))
        return [np.sort(each.size) for each in node._segmenter.objects(0).objects]

    grown = sizes_at(2.0, scale)
    assert len(grown) > 5
    for keyframe in keyframes:
        points = keyframe.pointmap * np.float32(2.0)
        node._on_keyframe(NewKeyframe(replace(keyframe, pointmap=points)))
    for factor in (1.0, 1.5):
        for now, before in zip(sizes_at(factor), grown, strict=True):
            np.testing.assert_allclose(now, factor * before, rtol=0.1)


def test_one_that_is_killed_is_followed_by_one_with_the_same_objects(begin, keyframes, tmp_path):
    node = begin()
    for keyframe in keyframes:
        node._on_keyframe(NewKeyframe(keyframe))
    ids = [each.id for each in node._segmenter.objects(0).objects]
    assert ids
    node._keep_map()
    written_ns = (tmp_path / NAME).stat().st_mtime_ns
    node._keep_map()
    assert (tmp_path / NAME).stat().st_mtime_ns == written_ns, "nothing was new"
    again = begin()
    assert [each.id for each in again._segmenter.objects(0).objects] == ids


def test_one_that_follows_a_killed_one_gives_no_id_that_it_may_have_given(begin, keyframes):
    node = begin()
    for keyframe in keyframes:
        node._on_keyframe(NewKeyframe(keyframe))
    node._keep_map()
    given = [node._segmenter._backend.map.tracker.take_id() for _ in range(20)]  # not saved
    again = begin(restore=True)._segmenter._backend.map.tracker
    assert again.take_id() > max(given)


def test_a_map_saved_by_request_keeps_what_was_told(begin, keyframes, tmp_path):
    node = begin()
    for keyframe in keyframes:
        node._on_keyframe(NewKeyframe(keyframe))
    folder = tmp_path / "by_request"
    assert node._on_save(SaveMap.Request(path=str(folder)), SaveMap.Response()).success
    for again in (begin(map=str(folder)), begin(map="")):
        if not again.config.map:
            assert again._on_load(LoadMap.Request(path=str(folder)), LoadMap.Response()).success
        for keyframe in keyframes:
            again._on_keyframe(NewKeyframe(keyframe))
        assert again.ledger.state().dropped == {"told_again": 6}


def test_what_was_known_by_ids_goes_when_other_objects_are_loaded(begin, keyframes, tmp_path):
    node = begin(map="")
    for keyframe in keyframes:
        node._on_keyframe(NewKeyframe(keyframe))
    node._on_save(SaveMap.Request(path=str(tmp_path)), SaveMap.Response())
    held = node._segmenter.objects(0).objects[0].id
    node._segmenter.identify(held, "an oak desk")
    assert node._segmenter.enhanced(held) is not None
    assert node._on_load(LoadMap.Request(path=str(tmp_path)), LoadMap.Response()).success
    assert node._segmenter.enhanced(held) is None
    assert {each.identity for each in node._segmenter.objects(0).objects} == {""}


def test_objects_that_could_not_be_saved_are_told_of_until_they_are(
    begin, keyframes, tmp_path, monkeypatch
):
    node = begin()
    node._on_keyframe(NewKeyframe(keyframes[0]))
    with monkeypatch.context() as full:

        def write(*_):
            raise MapError("the disk is full")

        full.setattr(saver, "write_objects", write)
        node._keep_map()
        assert "the disk is full" in node.problem()
    node._keep_map()  # nothing new came, but that had not been saved
    assert node.problem() == ""
    assert (tmp_path / NAME).exists()


def test_a_disk_that_takes_its_time_holds_up_no_keyframe(begin, keyframes, tmp_path, monkeypatch):
    node, written, go_on = begin(), [], threading.Event()

    def write(packed, folder):
        assert go_on.wait(20.0)
        written.append(packed)
        object_file.write_objects(packed, folder)

    monkeypatch.setattr(saver, "write_objects", write)
    for keyframe in keyframes:  # each is what is to be saved then
        node._on_keyframe(NewKeyframe(keyframe))
        node._saving = Sparing(1.0)
        node._saving.wanted = True
        node._keep_due_map()
    assert node.ledger.state().used == len(keyframes)
    assert not (tmp_path / NAME).exists()
    go_on.set()
    assert node._saver.settle()
    assert written[-1] == node._segmenter.packed(node._told)
    assert len(written) <= 2, "the first, and the newest of those that waited"
    again = begin()
    ids = [each.id for each in node._segmenter.objects(0).objects]
    assert [each.id for each in again._segmenter.objects(0).objects] == ids


def test_what_is_still_being_written_is_not_written_over_by_request(begin, keyframes, monkeypatch):
    node, go_on = begin(), threading.Event()
    node._on_keyframe(NewKeyframe(keyframes[0]))
    monkeypatch.setattr(saver, "write_objects", lambda *_: go_on.wait(20.0))
    monkeypatch.setattr(node._saver, "settle", functools.partial(node._saver.settle, 0.1))
    node._keep_map()
    answer = node._on_save(SaveMap.Request(), SaveMap.Response())
    go_on.set()
    assert not answer.success
    assert "still being saved" in answer.message


def test_objects_are_saved_elsewhere_while_the_disk_of_the_map_takes_its_time(
    begin, keyframes, tmp_path, monkeypatch
):
    node, go_on = begin(map=str(tmp_path / "map")), threading.Event()
    node._on_keyframe(NewKeyframe(keyframes[0]))
    monkeypatch.setattr(saver, "write_objects", lambda *_: go_on.wait(20.0))
    monkeypatch.setattr(node._saver, "settle", functools.partial(node._saver.settle, 0.1))
    node._keep_map()
    folder = tmp_path / "elsewhere"
    answer = node._on_save(SaveMap.Request(path=str(folder)), SaveMap.Response())
    loaded = node._on_load(LoadMap.Request(), LoadMap.Response())
    go_on.set()
    assert answer.success, answer.message
    assert (folder / NAME).exists()
    assert "still being saved" in loaded.message


def test_sizes_count_on_for_one_that_follows_a_killed_one(begin, keyframes):
    """The reconstruction lives on, so that sizes stay relative to what it told the dead one."""
    node = begin()
    for keyframe in keyframes:
        node._on_keyframe(NewKeyframe(keyframe))
    poses = {keyframe.id: keyframe.world_from_cam for keyframe in keyframes}

    def sizes(of, factor: float, root: ScaleState | None = None) -> list[np.ndarray]:
        of._on_keyframe(MovedKeyframes(poses, dict.fromkeys(poses, factor), root))
        return [np.sort(each.size) for each in of._segmenter.objects(0).objects]

    grown = sizes(node, 5.0, ScaleState.METRIC)
    assert len(grown) > 5
    node._keep_map()
    for now, before in zip(sizes(begin(), 6.0), grown, strict=True):
        np.testing.assert_allclose(now, 1.2 * before, rtol=0.1)


def test_one_that_follows_a_killed_one_knows_the_keyframes_that_were_told(begin, keyframes):
    node = begin()
    for keyframe in keyframes:
        node._on_keyframe(NewKeyframe(keyframe))
    before = node._segmenter.objects(0).objects
    node._keep_map()
    again, moved = begin(), keyframes[0].world_from_cam.copy()
    moved[:3, 3] += 5.0
    for keyframe in keyframes:
        again._on_keyframe(NewKeyframe(replace(keyframe, world_from_cam=moved)))
    assert again.ledger.state().dropped == {"told_again": 6}
    for old, new in zip(before, again._segmenter.objects(0).objects, strict=True):
        shift = new.world_from_box[:3, 3] - old.world_from_box[:3, 3]
        np.testing.assert_allclose(shift, 5.0, atol=0.1)


def test_what_was_seen_in_keyframes_that_were_replaced_meanwhile_goes_along_with_others(
    begin, keyframes, monkeypatch
):
    """The first of all was replaced while the segmenter was away; the others are told again, then
    corrected."""
    monkeypatch.setattr(returning_keyframes, "QUIET_S", 0.05)
    node = begin()
    for keyframe in keyframes:
        node._on_keyframe(NewKeyframe(keyframe))
    before = node._segmenter.objects(0).objects
    node._keep_map()
    again = begin(restore=True)
    poses = {keyframe.id: keyframe.world_from_cam for keyframe in keyframes[1:]}
    again._on_keyframe(MovedKeyframes(poses, dict.fromkeys(poses, 1.0), keyframes[0].scale))
    for keyframe in keyframes[1:]:
        again._on_keyframe(NewKeyframe(keyframe))
    time.sleep(0.1)
    again._ask_for_missed()
    moved = {key: pose.copy() for key, pose in poses.items()}
    for pose in moved.values():
        pose[:3, 3] += 5.0
    again._on_keyframe(MovedKeyframes(moved))
    after = again._segmenter.objects(0).objects
    assert [each.id for each in after] == [each.id for each in before] != []
    for old, new in zip(before, after, strict=True):
        shift = new.world_from_box[:3, 3] - old.world_from_box[:3, 3]
        np.testing.assert_allclose(shift, 5.0, atol=0.1)
        np.testing.assert_allclose(np.sort(new.size), np.sort(old.size), rtol=0.1)
    again._on_keyframe(RemovedKeyframes(tuple(poses)))
    assert again._segmenter.objects(0).objects == (), "nothing of the old map is left"


def test_objects_of_a_loaded_map_are_told_as_of_when_they_were_seen_last(begin, keyframes):
    node = begin()
    for keyframe in keyframes[1:]:
        node._on_keyframe(NewKeyframe(keyframe))
    node._keep_map()
    again, told = begin(), []
    again._objects_out.publish = lambda objects: told.append(objects.stamp_ns)
    again._tell_objects()
    assert told == [keyframes[-1].stamp_ns]
    empty, told = begin(), []
    empty._segmenter.remove([keyframe.id for keyframe in keyframes])
    empty._objects_out.publish = told.append
    empty._tell_objects()
    # what was told as it was loaded goes from the displays
    assert [(each.stamp_ns, each.objects) for each in told] == [(keyframes[-1].stamp_ns, ())]


def test_distances_are_empty_while_no_camera_is_known(begin, keyframes):
    node = begin()
    for keyframe in keyframes:
        node._on_keyframe(NewKeyframe(keyframe))
    seen = node._on_query(QueryObjects.Request(), QueryObjects.Response())
    assert len(seen.distances) == len(seen.objects) > 5
    node._keep_map()
    again = begin()
    answer = again._on_query(QueryObjects.Request(), QueryObjects.Response())
    assert len(answer.objects) == len(seen.objects)
    assert len(answer.distances) == 0


def test_one_that_is_killed_after_a_reset_is_followed_by_one_without_objects(begin, keyframes):
    node = begin()
    for keyframe in keyframes:
        node._on_keyframe(NewKeyframe(keyframe))
    node._keep_map()
    assert node._segmenter.objects(0).objects
    node._on_keyframe(RemovedKeyframes(tuple(keyframe.id for keyframe in keyframes)))
    again = begin(restore=True)
    assert again._segmenter.objects(0).objects == ()
    assert again._told.ids == ()


def test_no_question_about_a_map_that_was_reset_goes_out(begin, keyframes, monkeypatch):
    asked, may_go, was_last = [], threading.Event(), threading.Event()

    def ask(service, jpeg, label, question):
        asked.append(question)
        assert may_go.wait(20.0)
        if question == "last":
            was_last.set()
        return "a thing"

    monkeypatch.setattr(identifier, "ask", ask)
    node = begin(identify_url="http://127.0.0.1:9")
    for keyframe in keyframes:
        node._on_keyframe(NewKeyframe(keyframe))
    things = node._segmenter.objects(0).objects
    number = next(thing.id for thing in things if node._segmenter.enhanced(thing.id))
    node._asking._identifier.submit(Inquiry(9001, "", b"", "first"))  # the next one waits for it
    assert node._asking.ask(number, "of the map before")[0]
    node._on_keyframe(RemovedKeyframes(tuple(keyframe.id for keyframe in keyframes)))
    node._asking._identifier.submit(Inquiry(9002, "", b"", "last"))
    may_go.set()
    assert was_last.wait(20.0)
    node._asking.close()
    assert "of the map before" not in asked
