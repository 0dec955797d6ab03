# SPDX-License-Identifier: Apache-2.0
"""Live keyframes that the segmenter is too slow for: the oldest make way, and each is counted."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
from dds_domain import own_domain
from segment_scenes import ROOM_EYE, room

rclpy = pytest.importorskip("rclpy", reason="ROS is not set up: run these through `make test`")

from worldsystem_core.handoff import Handoff  # noqa: E402
from worldsystem_core.keyframe_inbox import joined  # noqa: E402
from worldsystem_core.priority import make_urgent  # noqa: E402
from worldsystem_core.reconstruction import (  # noqa: E402
    MovedKeyframes,
    NewKeyframe,
    RemovedKeyframes,
)
from worldsystem_core.ros import topics  # noqa: E402
from worldsystem_core.ros.reference_topic import ReferencePublisher  # noqa: E402
from worldsystem_segment.node import SegmenterNode  # noqa: E402
from worldsystem_segment.segmenter import Segmenter  # noqa: E402

WAIT_S = 0.2


@pytest.fixture
def node():
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=own_domain(__file__))
    wait = rclpy.parameter.Parameter("max_wait_s", value=WAIT_S)
    node = SegmenterNode(context=context, parameter_overrides=[wait])
    yield node
    node.close()
    rclpy.try_shutdown(context=context)


@pytest.fixture(scope="module")
def keyframes():
    caster = room().caster()
    shot = caster.shot(0, ROOM_EYE, (0.0, 1.5, 0.3))[0]
    stamps = range(6)
    return [replace(shot, id=k, frame_id=10 * k, stamp_ns=k * 500_000_000) for k in stamps]


def _send(node, events) -> list[int]:
    """Have the events wait until all of them are late, then delivered; ids of what was fed."""
    fed = []
    feed = node._segmenter.feed
    node._segmenter.feed = lambda keyframe: (fed.append(keyframe.id), feed(keyframe))[1]
    publisher = ReferencePublisher(node, topics.KEYFRAME, outside=False)
    for event in events:
        publisher.publish(event)
    time.sleep(1.5 * WAIT_S)
    links = (link for link in node._links if hasattr(link, "inbox"))
    link = next(link for link in links if link.inbox is node._inbox)
    while len(link.inbox):
        link.deliver()
    publisher.destroy()
    return fed


def test_late_keyframes_make_way_for_the_newest_and_are_counted(node, keyframes) -> None:
    fed = _send(node, [NewKeyframe(k) for k in keyframes])
    assert fed == [0, 5]  # in time order, and the first was begun before any was late
    state = node.ledger.state()
    assert state.dropped == {"superseded": 4}
    assert (state.taken, state.used, node.ledger.violations) == (6, 2, 0)


def test_what_was_let_go_and_is_told_again_is_not_segmented(node, keyframes) -> None:
    assert _send(node, [NewKeyframe(k) for k in keyframes]) == [0, 5]
    assert _send(node, [NewKeyframe(k) for k in keyframes]) == []
    assert node.ledger.state().dropped == {"superseded": 4, "told_again": 6}


def test_what_found_the_inbox_full_and_is_told_again_is_not_segmented(node, keyframes) -> None:
    node._inbox._on_drop(NewKeyframe(keyframes[1]))
    assert _send(node, [NewKeyframe(k) for k in keyframes]) == [0, 5]
    dropped = {"queue_full": 1, "superseded": 3, "told_again": 1}
    assert node.ledger.state().dropped == dropped


def test_one_told_again_to_a_full_inbox_while_it_is_segmented_is_used(node, keyframes) -> None:
    feed = node._segmenter.feed

    def fed_while_told_again(keyframe):
        node._inbox._on_drop(NewKeyframe(keyframe))
        return feed(keyframe)

    node._segmenter.feed = fed_while_told_again
    assert _send(node, [NewKeyframe(keyframes[0])]) == [0]
    state = node.ledger.state()
    assert (state.taken, state.used, state.dropped) == (2, 1, {"queue_full": 1})
    assert not node.ledger.violations


def test_corrections_are_never_let_go(node, keyframes) -> None:
    told = []
    node._segmenter.move = lambda poses, *_: told.append(sorted(poses))
    node._segmenter.remove = lambda ids, _: told.append(list(ids))
    pose = keyframes[0].world_from_cam
    events = [
        NewKeyframe(keyframes[0]), MovedKeyframes({0: pose}), NewKeyframe(keyframes[1]),
        RemovedKeyframes((1,)), NewKeyframe(keyframes[2]), MovedKeyframes({2: pose}),
    ]  # fmt: skip
    assert _send(node, events) == [0, 2]
    assert told == [[0], [1], [2]]
    assert node.ledger.state().dropped == {"superseded": 1}


def test_what_is_not_late_waits_its_turn(node, keyframes) -> None:
    node.config = replace(node.config, max_wait_s=60.0)
    assert _send(node, [NewKeyframe(k) for k in keyframes]) == list(range(6))
    assert not node.ledger.state().dropped


def test_of_a_file_that_waits_for_us_no_keyframe_is_let_go(node, keyframes) -> None:
    pictures: Handoff[int] = Handoff(4)
    make_urgent(pictures)
    assert pictures.put_waiting(1, 1.0)
    assert _send(node, [NewKeyframe(k) for k in keyframes]) == list(range(6))
    assert not node.ledger.state().dropped


def test_corrections_that_wait_together_are_followed_together(node, keyframes) -> None:
    told = []
    node._segmenter.move = lambda poses, *_: told.append({k: v[0, 3] for k, v in poses.items()})
    node._segmenter.remove = lambda ids, _: told.append(list(ids))
    here, there = np.eye(4), np.eye(4)
    there[0, 3] = 5.0
    events = [
        NewKeyframe(keyframes[0]), MovedKeyframes({0: here}), MovedKeyframes({0: there, 1: here}),
        RemovedKeyframes((0,)), RemovedKeyframes((1,)), MovedKeyframes({2: here}),
    ]  # fmt: skip
    assert _send(node, events) == [0]
    assert told == [{0: 5.0, 1: 0.0}, [0, 1], {2: 0.0}]


def test_joined_corrections_leave_the_same_map_as_one_by_one(keyframes) -> None:
    turned = np.eye(4)
    turned[:3, 3] = (3.0, 1.0, -2.0)
    poses = [k.world_from_cam for k in keyframes]
    corrections = [
        MovedKeyframes({0: turned @ poses[0], 1: poses[1]}, {0: 1.5}),
        MovedKeyframes({0: poses[0], 2: turned @ poses[2]}, {0: 1.2}),
        RemovedKeyframes((1,)),
        MovedKeyframes({3: turned @ poses[3]}),
        MovedKeyframes({3: turned @ turned @ poses[3]}),
    ]
    assert len(joined(corrections)) == 3
    assert joined([]) == []
    boxes = []
    for told in (corrections, joined(corrections)):
        segmenter = Segmenter()
        for keyframe in keyframes:
            segmenter.feed(keyframe)
        for event in told:
            if isinstance(event, MovedKeyframes):
                segmenter.move(event.world_from_cam, event.point_scale, event.scale)
            else:
                segmenter.remove(event.ids)
        boxes.append({o.id: o.world_from_box for o in segmenter.objects(0).objects})
    assert boxes[0].keys() == boxes[1].keys() != set()
    for number, box in boxes[0].items():
        np.testing.assert_allclose(boxes[1][number], box, atol=1e-4)
