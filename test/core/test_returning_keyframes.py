# SPDX-License-Identifier: Apache-2.0
"""Of the keyframes of before, those that are not told again while others are were replaced."""

from __future__ import annotations

from worldsystem_core import returning_keyframes
from worldsystem_core.returning_keyframes import ReturningKeyframes


def test_it_waits_until_it_is_quiet_and_tells_once(monkeypatch):
    now_s = [100.0]
    monkeypatch.setattr(returning_keyframes.time, "monotonic", lambda: now_s[0])
    returning = ReturningKeyframes([1, 2, 3, 4])
    assert returning.take_replaced() == ()
    for number in (1, 3):
        returning.heard([number])
        now_s[0] += 0.9 * returning_keyframes.QUIET_S
        assert returning.take_replaced() == ()
    returning.heard([1, 77])  # was heard already, or is none of them
    now_s[0] += 0.2 * returning_keyframes.QUIET_S
    assert returning.take_replaced() == (2, 4)
    assert returning.take_replaced() == ()


def test_a_reconstruction_that_says_nothing_has_replaced_nothing(monkeypatch):
    monkeypatch.setattr(returning_keyframes, "QUIET_S", 0.0)
    returning = ReturningKeyframes([1, 2])
    returning.heard([5])
    assert returning.take_replaced() == ()


def test_without_any_of_before_there_is_nothing_to_wait_for(monkeypatch):
    monkeypatch.setattr(returning_keyframes, "QUIET_S", 0.0)
    returning = ReturningKeyframes()
    returning.heard([1])
    assert returning.take_replaced() == ()
