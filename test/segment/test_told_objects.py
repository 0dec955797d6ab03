# SPDX-License-Identifier: Apache-2.0
"""How often the objects of the map are told, and what is not worked out anew for it."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
from dds_domain import own_domain
from segment_scenes import ROOM_EYE, room

rclpy = pytest.importorskip("rclpy", reason="ROS is not set up: run these through `make test`")

from worldsystem_msgs.srv import LoadMap  # noqa: E402

from worldsystem_core.keyframe_inbox import ToldAgain  # noqa: E402
from worldsystem_core.objects import IdentifyOutcome, ObjectIdentity  # noqa: E402
from worldsystem_core.reconstruction import (  # noqa: E402
    NewKeyframe,
    RemovedKeyframes,
    ScaleState,
)
from worldsystem_segment import node as node_module  # noqa: E402
from worldsystem_segment.node import (  # noqa: E402
    OBJECTS_AT_LEAST_S,
    OBJECTS_PERIOD_S,
    OBJECTS_SHARE,
    SegmenterNode,
)
from worldsystem_segment.objects import object_map  # noqa: E402
from worldsystem_segment.objects.boxes import oriented_box  # noqa: E402
from worldsystem_segment.segmenter import Segmenter  # noqa: E402


@pytest.fixture
def node():
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=own_domain(__file__))
    node = SegmenterNode(context=context)
    node.told = []
    node._objects_out.publish = node.told.append
    yield node
    node.close()
    rclpy.try_shutdown(context=context)


@pytest.fixture(scope="module")
def keyframes():
    shot = room().caster().shot(0, ROOM_EYE, (0.0, 1.5, 0.3))[0]
    return [replace(shot, id=k, frame_id=10 * k, stamp_ns=k * 500_000_000) for k in range(5)]


def _feed(node, keyframes) -> float:
    """How long it took [s]."""
    begin = time.monotonic()
    for keyframe in keyframes:
        node._on_keyframe(NewKeyframe(keyframe))
    return time.monotonic() - begin


def test_live_the_first_objects_come_at_once_and_the_newest_within_half_a_second(node, keyframes):
    took_s = _feed(node, keyframes)
    assert 1 <= len(node.told) <= 1 + took_s / OBJECTS_PERIOD_S
    assert node.told[0].stamp_ns == keyframes[0].stamp_ns
    time.sleep(OBJECTS_PERIOD_S)
    node._tell_due_objects()  # as its timer does
    assert node.told[-1].stamp_ns == keyframes[-1].stamp_ns
    count = len(node.told)
    time.sleep(OBJECTS_PERIOD_S)
    node._tell_due_objects()
    node.input_ended()
    assert len(node.told) == count, "nothing is new"


def test_the_objects_of_the_last_keyframe_are_told_when_the_video_ends(node, keyframes):
    _feed(node, keyframes)
    node.input_ended()
    assert node.told[-1].stamp_ns == keyframes[-1].stamp_ns


def test_of_a_file_the_objects_are_told_with_each_keyframe(node, keyframes, monkeypatch):
    monkeypatch.setattr(node_module, "paced", lambda: True)
    _feed(node, keyframes)
    assert [told.stamp_ns for told in node.told] == [k.stamp_ns for k in keyframes]


def test_live_many_objects_are_told_so_seldom_that_listing_them_takes_little(node, keyframes):
    list_objects, began_s = node._segmenter.objects, []

    def slowly(stamp_ns: int):
        began_s.append(time.monotonic())
        end_s = time.thread_time() + 1.5 * OBJECTS_PERIOD_S * OBJECTS_SHARE
        while time.thread_time() < end_s:
            pass
        return list_objects(stamp_ns)

    node._segmenter.objects = slowly
    _feed(node, keyframes[:2])
    end_s = time.monotonic() + OBJECTS_AT_LEAST_S
    while len(began_s) < 2 and time.monotonic() < end_s:
        time.sleep(0.01)
        node._tell_due_objects()
    assert began_s[1] - began_s[0] > 1.4 * OBJECTS_PERIOD_S


def test_what_an_object_was_identified_as_is_told_without_another_keyframe(node, keyframes):
    _feed(node, keyframes)
    node.input_ended()
    number = node.told[-1].objects[0].id
    said = ObjectIdentity(
        id=number, label="", stamp_ns=0, outcome=IdentifyOutcome.ANSWERED, answer="an oak desk"
    )
    node._identities.put(said)
    node._tell_identities()
    node.input_ended()
    assert [o.identity for o in node.told[-1].objects if o.id == number] == ["an oak desk"]


def test_saving_many_objects_takes_no_more_than_its_share(node, keyframes, monkeypatch):
    cost_s, saved_s = 0.02, []

    def slowly(*_) -> None:
        saved_s.append(time.monotonic())
        end_s = time.thread_time() + cost_s
        while time.thread_time() < end_s:
            pass

    monkeypatch.setattr(node._segmenter, "packed", slowly)
    monkeypatch.setattr(node._saver, "save", lambda packed: None)
    node.config = replace(node.config, map="somewhere")
    end_s = time.monotonic() + 20.0
    while len(saved_s) < 3 and time.monotonic() < end_s:
        node._saving.wanted = True
        node._keep_due_map()
        time.sleep(0.005)
    assert np.diff(saved_s).min() > 0.8 * cost_s / node_module._SAVING_SHARE
    node.config = replace(node.config, map="")


def test_a_box_is_not_worked_out_anew_for_a_hair_of_tilt(node, keyframes, monkeypatch):
    made = []

    def noted(points, up):
        made.append(up)
        return oriented_box(points, up)

    monkeypatch.setattr(object_map, "oriented_box", noted)
    _feed(node, keyframes[:3])
    objects = node._segmenter._backend.map

    def boxes_with(up) -> list[np.ndarray]:
        found = objects.objects(0, lambda _: object_map.Named("thing"), np.float32(up))
        return [thing.world_from_box for thing in found.objects]

    upright = boxes_with([0.0, 0.0, 1.0])
    assert upright
    made.clear()
    np.testing.assert_array_equal(boxes_with([3e-4, -2e-4, 1.0]), upright)
    assert not made
    assert not np.array_equal(boxes_with([0.02, 0.0, 1.0]), upright)
    assert len(made) == len(upright)


def test_an_answer_that_comes_while_objects_are_loaded_names_none_of_them(
    node, keyframes, monkeypatch, tmp_path
):
    _feed(node, keyframes)
    node._segmenter.save(tmp_path)
    said = ObjectIdentity(
        id=node._segmenter.objects(0).objects[0].id,
        label="",
        stamp_ns=0,
        outcome=IdentifyOutcome.ANSWERED,
        answer="an oak desk",
    )
    load, heard = node._segmenter.load, []

    def answered_meanwhile(*given) -> int:
        count = load(*given)
        node._identities.put(said)
        return count

    monkeypatch.setattr(node._segmenter, "load", answered_meanwhile)
    monkeypatch.setattr(node._identities_out, "publish", heard.append)
    assert node._on_load(LoadMap.Request(path=str(tmp_path)), LoadMap.Response()).success
    node._tell_identities()  # as its timer does
    assert heard == [said]
    assert {thing.identity for thing in node._segmenter.objects(0).objects} == {""}


def test_a_map_without_objects_takes_those_of_the_map_before_away(node, keyframes, tmp_path):
    other = Segmenter()
    assert other.save(tmp_path / "empty") == 0
    for keyframe in keyframes:
        other.feed(keyframe)
    assert other.save(tmp_path / "full") > 0
    other.close()
    for name in ("full", "empty"):
        request = LoadMap.Request(path=str(tmp_path / name))
        assert node._on_load(request, LoadMap.Response()).success
    assert [bool(told.objects) for told in node.told] == [True, False]


def test_an_answer_names_the_world_that_its_object_is_in(node, keyframes, monkeypatch):
    from rclpy.serialization import deserialize_message

    from worldsystem_core.ros import topics

    heard: list[ObjectIdentity] = []
    monkeypatch.setattr(node._identities_out, "publish", heard.append)
    _feed(node, [replace(keyframes[0], scale=ScaleState.METRIC)])
    assert node.told[-1].scale is ScaleState.METRIC
    said = ObjectIdentity(id=1, label="", stamp_ns=0, outcome=IdentifyOutcome.FAILED)
    node._identities.put(said)
    node._tell_identities()
    adapter = topics.IDENTITIES.adapter
    (cdr,) = adapter.dump(heard[0])
    assert deserialize_message(cdr, adapter.ros_type).header.frame_id == "map"
    assert adapter.load(cdr) == heard[0]


def test_a_keyframe_told_again_behind_its_removal_that_found_no_room_is_asked_for(node, keyframes):
    """A full inbox takes it for known: its removal waits before it."""
    _feed(node, keyframes)
    one = keyframes[0]
    node._correct([ToldAgain({one.id: one.world_from_cam})])
    assert not node._lacks_a_correction
    node._correct([RemovedKeyframes((one.id,)), ToldAgain({one.id: one.world_from_cam})])
    assert node._lacks_a_correction
