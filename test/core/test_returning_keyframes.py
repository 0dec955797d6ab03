# SPDX-License-Identifier: Apache-2.0
"""Of the keyframes of before, those that are not mentioned while all are told were replaced."""

from __future__ import annotations

import pytest

from worldsystem_core import returning_keyframes
from worldsystem_core.returning_keyframes import QUIET_S, ReturningKeyframes


@pytest.fixture
def now_s(monkeypatch):
    """The clock, as the only element of a list."""
    clock = [100.0]
    monkeypatch.setattr(returning_keyframes.time, "monotonic", lambda: clock[0])
    return clock


def test_it_waits_until_it_is_quiet_and_tells_once(now_s):
    returning = ReturningKeyframes([1, 2, 3, 4])
    returning.answered()
    assert returning.take_replaced() == ()
    for number in (1, 3, 1):  # also one that was heard of before says that it goes on
        returning.heard([number])
        now_s[0] += 0.9 * QUIET_S
        assert returning.take_replaced() == ()
    returning.heard([77])  # is none of them
    now_s[0] += 0.2 * QUIET_S
    assert returning.take_replaced() == (2, 4)
    assert returning.take_replaced() == ()


def test_what_moves_before_the_reconstruction_has_answered_says_nothing_of_the_others(now_s):
    returning = ReturningKeyframes([1, 2, 3])
    returning.heard([1])
    now_s[0] += 2 * QUIET_S
    assert returning.take_replaced() == ()
    returning.answered()
    now_s[0] += 2 * QUIET_S
    assert returning.take_replaced() == ()
    returning.heard([2])
    now_s[0] += 2 * QUIET_S
    assert returning.take_replaced() == (3,)


def test_a_reconstruction_that_mentions_none_of_them_has_replaced_none(now_s):
    returning = ReturningKeyframes([1, 2])
    returning.answered()
    returning.heard([5])
    now_s[0] += 2 * QUIET_S
    assert returning.take_replaced() == ()


def test_without_any_of_before_there_is_nothing_to_wait_for(now_s):
    returning = ReturningKeyframes()
    returning.answered()
    returning.heard([1])
    now_s[0] += 2 * QUIET_S
    assert returning.take_replaced() == ()
