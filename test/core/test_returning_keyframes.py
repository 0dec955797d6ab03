# SPDX-License-Identifier: Apache-2.0
"""Of the keyframes of before, those that are not mentioned while all are told were replaced."""

from __future__ import annotations

import numpy as np
import pytest

from worldsystem_core import returning_keyframes
from worldsystem_core.keyframe_inbox import ToldAgain
from worldsystem_core.reconstruction import MovedKeyframes, RemovedKeyframes, ScaleState
from worldsystem_core.returning_keyframes import QUIET_S, ReturningKeyframes

SCENE, METRIC = ScaleState.SCENE, ScaleState.METRIC


@pytest.fixture
def now_s(monkeypatch):
    """The clock, as the only element of a list."""
    clock = [100.0]
    monkeypatch.setattr(returning_keyframes.time, "monotonic", lambda: clock[0])
    return clock


def moved(*ids, scale=None, size=1.0):
    return MovedKeyframes(dict.fromkeys(ids, np.eye(4)), dict.fromkeys(ids, size), scale)


def test_what_is_not_among_all_that_are_told_was_replaced(now_s):
    returning = ReturningKeyframes([1, 2, 3, 4])
    returning.heard(moved(1, 3, 77, scale=SCENE))
    assert returning.take_replaced() == ()
    now_s[0] += 1.1 * QUIET_S
    assert returning.take_replaced() == (2, 4)
    assert returning.take_replaced() == ()


def test_it_waits_until_it_is_quiet(now_s):
    """Between processes each comes as a message of its own, and then they are told again."""
    returning = ReturningKeyframes([1, 2, 3])
    returning.heard(moved(1, scale=SCENE))
    for event in (moved(3, scale=SCENE), ToldAgain({1: np.eye(4)}), moved(1)):
        now_s[0] += 0.9 * QUIET_S
        assert returning.take_replaced() == ()
        returning.heard(event)
    now_s[0] += 1.1 * QUIET_S
    assert returning.take_replaced() == (2,)


def test_corrections_of_some_say_nothing_of_the_others(now_s):
    returning = ReturningKeyframes([1, 2, 3])
    for event in (moved(1), RemovedKeyframes((2,))):
        returning.heard(event)
        now_s[0] += 2 * QUIET_S
        assert returning.take_replaced() == ()
    returning.heard(moved(1, scale=SCENE))
    now_s[0] += 2 * QUIET_S
    assert returning.take_replaced() == (3,)


def test_a_reconstruction_that_mentions_none_of_them_has_replaced_none(now_s):
    returning = ReturningKeyframes([1, 2])
    returning.heard(moved(5, scale=SCENE))
    now_s[0] += 2 * QUIET_S
    assert returning.take_replaced() == ()


def test_sizes_count_from_a_telling_that_was_heard(now_s):
    returning = ReturningKeyframes([1, 2])
    event = moved(1, 2, 3, scale=SCENE, size=1.2)
    assert returning.sizes(event, SCENE) == {3: 1.2}
    returning.told_again([2])
    assert returning.sizes(event, SCENE) == {2: 1.2, 3: 1.2}
    assert returning.sizes(moved(1, size=3.7), SCENE) == {}
    larger = moved(1, 2, scale=METRIC, size=3.7)
    assert returning.sizes(larger, SCENE) == {1: 3.7, 2: 3.7}, "all have grown with the root"


def test_without_any_of_before_there_is_nothing_to_wait_for(now_s):
    returning = ReturningKeyframes()
    returning.heard(moved(1, scale=SCENE))
    now_s[0] += 2 * QUIET_S
    assert returning.take_replaced() == ()
    assert returning.sizes(moved(1, size=2.0), SCENE) == {1: 2.0}


def test_all_sizes_are_given_when_the_unit_changes_with_a_message_for_each(now_s):
    """As between processes: the first of them has changed the unit already."""
    returning, unit, given = ReturningKeyframes([1, 2, 3]), SCENE, {}
    for key in (1, 2, 3):
        given |= returning.sizes(moved(key, scale=METRIC, size=3.7), unit)
        unit = METRIC
    assert given == {1: 3.7, 2: 3.7, 3: 3.7}
    later = moved(1, 2, 3, scale=METRIC, size=1.2)
    assert returning.sizes(later, unit) == {}, "nobody knows since when these count"
