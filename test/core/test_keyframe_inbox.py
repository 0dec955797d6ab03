# SPDX-License-Identifier: Apache-2.0
"""A full inbox of keyframes lets go of keyframes; corrections stay, in their order."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from worldsystem_core.keyframe_inbox import MOST_FOLD, KeyframeInbox, ToldAgain, joined
from worldsystem_core.reconstruction import (
    MovedKeyframes,
    NewKeyframe,
    RemovedKeyframes,
    ScaleState,
    Successor,
)


def pose(x: float) -> np.ndarray:
    found = np.eye(4)
    found[0, 3] = x
    return found


def moved(key: int, x: float, **more: object) -> MovedKeyframes:
    return MovedKeyframes({key: pose(x)}, **more)


def new(key: int, x: float = 0.0) -> NewKeyframe:
    return NewKeyframe(SimpleNamespace(id=key, world_from_cam=pose(x)))


def inbox_of(capacity: int, known: tuple[int, ...] = ()) -> tuple[KeyframeInbox, list]:
    lost: list = []
    inbox = KeyframeInbox(capacity, lost.append)
    inbox.is_known = lambda keyframe: keyframe.id in known
    return inbox, lost


def taken(inbox: KeyframeInbox) -> list:
    return [inbox.get(0.0) for _ in range(len(inbox))]


def place(event: MovedKeyframes | ToldAgain, key: int) -> float:
    return float(event.world_from_cam[key][0, 3])


def test_the_oldest_keyframe_goes_and_corrections_before_it_stay():
    inbox, lost = inbox_of(3)
    events = [moved(7, 1.0), new(1), new(2), new(3)]
    for event in events:
        inbox.put(event)
    assert lost == [events[1]]
    assert taken(inbox) == [events[0], events[2], events[3]]
    assert inbox.dropped == 1


def test_corrections_alone_are_made_fewer_and_none_is_lost():
    inbox, lost = inbox_of(2)
    for step in range(10):
        inbox.put(moved(step % 3, float(step), point_scale={step % 3: 2.0 + step}))
    one, last = taken(inbox)
    assert (one.world_from_cam | last.world_from_cam).keys() == {0, 1, 2}
    assert [place(one if k != 0 else last, k) for k in range(3)] == [9.0, 7.0, 8.0]
    assert (one.point_scale | last.point_scale)[1] == 9.0
    assert lost == []


def test_no_keyframe_goes_for_corrections_that_can_be_made_one():
    """As when the reconstruction says where all lie, each in a message of its own."""
    inbox, lost = inbox_of(5)
    for number in range(4):
        inbox.put(new(number))
    for number in range(100):
        inbox.put(moved(number, 1.0))
    assert lost == []
    *news, last, newest = taken(inbox)
    assert [event.keyframe.id for event in news] == [0, 1, 2, 3]
    assert last.world_from_cam.keys() | newest.world_from_cam.keys() == set(range(100))


def test_the_change_of_the_unit_outlasts_later_moves():
    first = moved(1, 1.0, point_scale={1: 20.0}, scale=ScaleState.METRIC)
    (one,) = joined([first, moved(1, 2.0)])
    assert (place(one, 1), one.point_scale, one.scale) == (2.0, {1: 20.0}, ScaleState.METRIC)


def test_moves_in_the_old_unit_are_not_joined_with_the_change_of_the_unit():
    """A reader takes how much the root grew from all sizes that are told with it."""
    old = moved(2, 1.0, point_scale={2: 1.0})
    change = moved(1, 20.0, point_scale={1: 20.0}, scale=ScaleState.METRIC)
    before, after = joined([old, change])
    assert (before.point_scale, before.scale) == ({2: 1.0}, None)
    assert (after.point_scale, after.scale) == ({1: 20.0}, ScaleState.METRIC)
    third = moved(2, 20.0, point_scale={2: 20.0}, scale=ScaleState.METRIC)
    _, whole = joined([old, change, third])
    assert whole.point_scale == {1: 20.0, 2: 20.0}


def test_moves_of_those_that_the_change_of_the_unit_tells_anew_are_joined_with_it():
    change = moved(1, 20.0, point_scale={1: 20.0}, scale=ScaleState.METRIC)
    (one,) = joined([moved(1, 1.0, point_scale={1: 1.0}), change])
    assert (place(one, 1), one.point_scale, one.scale) == (20.0, {1: 20.0}, ScaleState.METRIC)


def test_a_full_inbox_that_hears_the_unit_change_loses_no_correction_and_stays_small():
    inbox, lost = inbox_of(2)
    for number in range(30):
        inbox.put(moved(number, 1.0, point_scale={number: 1.0}))
    for number in range(30):
        scale = {"point_scale": {number: 20.0}, "scale": ScaleState.METRIC}
        inbox.put(moved(number, 20.0, **scale))
        assert len(inbox) <= 4
    events = taken(inbox)
    assert lost == []
    in_new_unit = [event for event in events if event.scale is not None]
    assert {key for event in in_new_unit for key in event.world_from_cam} == set(range(30))
    assert all(set(event.point_scale.values()) == {20.0} for event in in_new_unit)


def test_moves_and_removals_keep_their_order():
    heir = Successor(2, pose(3.0))
    inbox, _ = inbox_of(1)
    inbox.put(moved(1, 1.0))
    inbox.put(RemovedKeyframes((1,), {1: heir}))
    inbox.put(RemovedKeyframes((4,)))
    inbox.put(moved(2, 2.0))
    inbox.put(moved(3, 2.0))
    inbox.put(new(9))
    before, gone, after, last = taken(inbox)
    assert place(before, 1) == 1.0
    assert (gone.ids, gone.successors) == ((1, 4), {1: heir})
    assert after.world_from_cam.keys() == {2, 3}
    assert isinstance(last, NewKeyframe)


def test_of_a_known_keyframe_stays_where_it_was_told_again():
    inbox, lost = inbox_of(2, known=(1, 2))
    inbox.put(moved(1, 1.0, point_scale={1: 20.0}))
    inbox.put(new(1, 1.0))
    inbox.put(new(2, 5.0))
    inbox.put(moved(1, 2.0, point_scale={1: 1.5}))
    first, telling, second = taken(inbox)
    assert first.point_scale == {1: 20.0}
    assert isinstance(telling, ToldAgain)
    assert (place(telling, 1), place(telling, 2)) == (1.0, 5.0)
    assert second.point_scale == {1: 1.5}
    assert [event.keyframe.id for event in lost] == [1, 2]


def test_corrections_that_nobody_reads_are_bounded_and_told_as_lost():
    inbox, lost = inbox_of(2)
    for step in range(4 * MOST_FOLD):
        inbox.put(moved(step, 0.0))
        inbox.put(RemovedKeyframes((step,)))
    assert len(inbox) <= 2 * MOST_FOLD
    assert len(lost) == inbox.dropped > 0
    ids = [key for event in lost + taken(inbox) for key in getattr(event, "ids", ())]
    assert ids == list(range(4 * MOST_FOLD))


def test_after_the_end_whatever_comes_is_let_go():
    inbox, lost = inbox_of(2)
    inbox.close()
    inbox.put(moved(1, 1.0))
    assert (len(lost), len(inbox)) == (1, 0)


def test_what_is_no_news_is_taken_up_to_the_next_news():
    inbox, _ = inbox_of(9, known=(1, 2))
    counted = []
    inbox.on_known = lambda keyframe: counted.append(keyframe.id)
    for event in (new(1, 1.0), moved(2, 2.0), new(2, 3.0), new(5), moved(1, 4.0)):
        inbox.put(event)
    first, second, third = inbox.take_corrections()
    assert (place(first, 1), place(second, 2), place(third, 2)) == (1.0, 2.0, 3.0)
    assert isinstance(first, ToldAgain)
    assert counted == [1, 2]
    news = inbox.get(0.0)
    assert inbox.is_news(news)
    assert inbox.take_corrections(moved(1, 0.0))[1].world_from_cam.keys() == {1}
    assert len(inbox) == 0


def test_a_keyframe_that_is_told_again_behind_its_removal_is_news():
    """As of a map that is loaded after a reset, while the reader was at an older keyframe."""
    inbox, _ = inbox_of(9, known=(1, 2))
    for event in (RemovedKeyframes((1,)), new(2, 3.0), new(1, 1.0)):
        inbox.put(event)
    gone, again = inbox.take_corrections()
    assert gone.ids == (1,)
    assert place(again, 2) == 3.0
    assert len(inbox) == 1, "it waits to be taken as a new one"
    assert inbox.take_corrections(RemovedKeyframes((1,)))[1:] == []
