# SPDX-License-Identifier: Apache-2.0
"""What is told of keyframes beside the keyframes: corrections that were let go of, and sizes."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from worldsystem_core.handoff import Handoff
from worldsystem_core.reconstruction import (
    MovedKeyframes,
    NewKeyframe,
    RemovedKeyframes,
    ScaleState,
    Successor,
)
from worldsystem_mesh.overtaken import OvertakenCorrections, ToldAgain, oldest_of
from worldsystem_mesh.told_sizes import ToldSizes


def inbox_of(capacity: int) -> tuple[Handoff, OvertakenCorrections]:
    overtaken = OvertakenCorrections()
    inbox = Handoff(capacity, lambda event: overtaken.drop(event, is_known=is_again(event)))
    overtaken.inbox = inbox
    return inbox, overtaken


def moved(key: int, x: float, **more: object) -> MovedKeyframes:
    pose = np.eye(4)
    pose[0, 3] = x
    return MovedKeyframes({key: pose}, **more)


def new() -> NewKeyframe:
    return NewKeyframe(None)


def again(key: int) -> NewKeyframe:
    return NewKeyframe(SimpleNamespace(id=key))


def is_again(event: object) -> bool:
    return isinstance(event, NewKeyframe) and event.keyframe is not None


def place(event: MovedKeyframes, key: int) -> float:
    return float(event.world_from_cam[key][0, 3])


def test_what_was_let_go_of_comes_before_what_followed_it():
    inbox, overtaken = inbox_of(2)
    for event in (moved(1, 5.0), new(), new()):
        inbox.put(event)
    event = inbox.get(0.0)
    (correction,) = overtaken.before(event)
    assert place(correction, 1) == 5.0
    assert overtaken.before(event) == overtaken.until_now() == []


def test_what_waits_for_its_turn_is_older_than_what_was_let_go_of_meanwhile():
    inbox, overtaken = inbox_of(1)
    inbox.put(moved(1, 5.0))
    event = inbox.get(0.0)
    for later in (moved(1, 6.0), new()):
        inbox.put(later)
    assert overtaken.before(event) == []
    (correction,) = overtaken.until_now()
    assert place(correction, 1) == 6.0
    following = inbox.get(0.0)
    assert overtaken.before(following) == overtaken.until_now() == []


def test_some_come_before_and_some_after_what_was_given_out_between():
    inbox, overtaken = inbox_of(2)
    for event in (moved(1, 5.0), new(), moved(1, 6.0)):
        inbox.put(event)
    event = inbox.get(0.0)
    for later in (new(), new()):
        inbox.put(later)
    assert [place(each, 1) for each in overtaken.before(event)] == [5.0]
    assert [place(each, 1) for each in overtaken.until_now()] == [6.0]


def test_keyframes_that_are_let_go_of_between_corrections_change_nothing():
    inbox, overtaken = inbox_of(1)
    for event in (moved(1, 5.0), new(), moved(2, 6.0), new(), moved(1, 7.0), new()):
        inbox.put(event)
    (correction,) = overtaken.before(inbox.get(0.0))
    assert (place(correction, 1), place(correction, 2)) == (7.0, 6.0)
    assert overtaken.until_now() == []


def test_however_many_are_let_go_of_two_are_kept_that_do_the_same():
    """Against a map in which each was done in its turn."""
    rng = np.random.default_rng(0)
    inbox, overtaken = inbox_of(1)
    in_turn = dict.fromkeys(range(40), 0.0)
    gone, heirs = set(), {}
    for step in range(1, 400):
        key = int(rng.integers(40))
        if rng.random() < 0.9 or key in gone:
            inbox.put(moved(key, float(step)))
            in_turn[key] = float(step)
        else:
            heirs[key] = Successor(int(rng.integers(40)), np.eye(4))
            inbox.put(RemovedKeyframes((key,), {key: heirs[key]}))
            gone.add(key)
    inbox.put(new())
    where, which = overtaken.before(inbox.get(0.0))
    assert set(which.ids) == gone
    assert len(which.ids) == len(gone)
    assert which.successors == heirs
    for key in where.world_from_cam.keys() - gone:
        assert place(where, key) == in_turn[key]
    untouched = in_turn.keys() - where.world_from_cam.keys()
    assert all(in_turn[key] == 0.0 for key in untouched)


def test_sizes_and_the_unit_of_the_root_outlast_later_corrections_without_them():
    inbox, overtaken = inbox_of(1)
    inbox.put(moved(1, 1.0, point_scale={1: 20.0}, scale=ScaleState.METRIC))
    inbox.put(moved(1, 2.0))
    inbox.put(new())
    (correction,) = overtaken.before(inbox.get(0.0))
    assert place(correction, 1) == 2.0
    assert (correction.point_scale, correction.scale) == ({1: 20.0}, ScaleState.METRIC)


def test_what_is_told_again_between_corrections_keeps_its_place():
    inbox, overtaken = inbox_of(1)
    for event in (
        moved(1, 1.0, point_scale={1: 20.0}),
        again(1),
        moved(2, 2.0, point_scale={2: 3.0}),
        moved(1, 2.0, point_scale={1: 1.5}),
        new(),
    ):
        inbox.put(event)
    first, telling, second = overtaken.before(inbox.get(0.0))
    sizes = ToldSizes()
    assert sizes.since_fused(first.point_scale) == {1: 20.0}
    sizes.tell_again(telling.ids)
    assert sizes.since_fused(second.point_scale) == {2: 3.0, 1: 30.0}


def test_what_is_told_again_beside_corrections_of_others_is_no_further_piece():
    inbox, overtaken = inbox_of(1)
    for event in (moved(1, 1.0, point_scale={1: 20.0}), again(2), again(3), moved(2, 2.0), new()):
        inbox.put(event)
    telling, correction = overtaken.before(inbox.get(0.0))
    assert telling == ToldAgain((2, 3))
    assert correction.world_from_cam.keys() == {1, 2}


def test_looking_at_what_waits_longest_takes_nothing():
    inbox: Handoff[int] = Handoff(3)
    assert oldest_of(inbox) is None
    assert oldest_of(None) is None
    inbox.put(7)
    inbox.put(8)
    assert oldest_of(inbox) == 7
    assert len(inbox) == 2


def test_sizes_go_on_from_where_a_keyframe_was_when_it_was_told_again():
    sizes = ToldSizes()
    sizes.begin(1)
    assert sizes.since_fused({1: 20.0}) == {1: 20.0}
    sizes.tell_again((1,))
    assert sizes.since_fused({1: 1.05, 2: 3.0}) == {1: 21.0, 2: 3.0}
    assert sizes.since_fused({1: 1.1})[1] == pytest.approx(22.0)
    sizes.tell_again((1,))
    assert sizes.since_fused({1: 0.5})[1] == pytest.approx(11.0)


def test_a_keyframe_that_is_fused_anew_or_gone_begins_with_its_own_size():
    sizes = ToldSizes()
    for end in (lambda: sizes.begin(1), lambda: sizes.forget((1,))):
        sizes.since_fused({1: 20.0})
        sizes.tell_again((1,))
        end()
        assert sizes.since_fused({1: 1.5}) == {1: 1.5}


def test_a_keyframe_told_again_before_any_correction_has_its_own_size():
    sizes = ToldSizes()
    sizes.tell_again((1,))
    assert sizes.since_fused({1: 2.0}) == {1: 2.0}
