# SPDX-License-Identifier: Apache-2.0
"""What goes once more to viewers whose line was full, and when."""

from __future__ import annotations

from worldsystem_viewer.foxglove_second_sending import SecondSending

ONE, TWO = (0, 0, 0), (1, 0, 0)


def sent_at(one_s: float, two_s: float) -> SecondSending:
    again = SecondSending(after_s=10.0, period_s=2.0)
    again.sent(ONE, one_s)
    again.sent(TWO, two_s)
    return again


def test_each_goes_once_more_after_it_was_quiet():
    again = sent_at(100.0, 105.0)
    assert again.take(109.9) is None
    assert again.take(110.0) == ONE
    assert again.take(114.9) is None
    assert again.take(115.0) == TWO
    assert again.take(1000.0) is None


def test_many_go_one_by_one():
    again = sent_at(100.0, 100.0)
    assert again.take(200.0) == ONE
    assert again.take(201.9) is None
    assert again.take(202.0) == TWO


def test_one_that_changes_meanwhile_waits_anew():
    again = sent_at(100.0, 101.0)
    again.sent(ONE, 108.0)
    assert again.take(111.0) == TWO
    assert again.take(117.9) is None
    assert again.take(118.0) == ONE


def test_nothing_sent_is_nothing_to_send_again():
    again = sent_at(100.0, 100.0)
    again.clear()
    assert again.take(1000.0) is None
