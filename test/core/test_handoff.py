# SPDX-License-Identifier: Apache-2.0
"""A late item is worth less than a fresh one; a patient producer loses nothing."""

from __future__ import annotations

import threading
import time

import pytest

from worldsystem_core.handoff import Handoff


def test_when_full_the_oldest_goes_and_is_counted():
    gone = []
    handoff = Handoff(2, gone.append)
    for number in range(5):
        handoff.put(number)
    assert [handoff.get(0), handoff.get(0), handoff.get(0)] == [3, 4, None]
    assert gone == [0, 1, 2]
    assert handoff.dropped == 3


def test_a_patient_producer_waits_for_room_and_gives_up_in_time():
    handoff = Handoff(1)
    assert handoff.put_waiting(1, 0.01)
    start = time.monotonic()
    assert not handoff.put_waiting(2, 0.05)
    assert time.monotonic() - start >= 0.05
    threading.Timer(0.05, lambda: handoff.get(0)).start()
    assert handoff.put_waiting(2, 5.0)


def test_close_wakes_a_waiting_consumer_and_what_is_queued_can_still_be_got():
    handoff = Handoff(2)
    got, waiting, wait = [], threading.Event(), handoff._changed.wait

    def noted(timeout_s=None):
        waiting.set()
        return wait(timeout_s)

    handoff._changed.wait = noted
    consumer = threading.Thread(target=lambda: got.append(handoff.get(30.0)))
    consumer.start()
    assert waiting.wait(5.0)
    handoff.close()
    consumer.join(5.0)
    assert got == [None]
    full = Handoff(2)
    full.put(1)
    full.close()
    assert full.get(0) == 1
    assert full.get(0) is None


def test_an_item_put_after_close_counts_as_dropped():
    gone = []
    handoff = Handoff(2, gone.append)
    handoff.close()
    handoff.put(7)
    assert gone == [7]
    assert not handoff.put_waiting(8, 1.0)


def test_waiting_for_empty_times_out():
    handoff = Handoff(2)
    handoff.put(1)
    assert not handoff.wait_empty(0.02)
    handoff.get(0)
    assert handoff.wait_empty(0.02)


def test_a_queue_without_room_is_refused():
    with pytest.raises(ValueError, match="at least 1"):
        Handoff(0)


def test_nothing_is_lost_or_doubled_between_threads():
    handoff, got = Handoff(8), []
    consumer = threading.Thread(
        target=lambda: [got.append(item) for item in iter(lambda: handoff.get(1.0), None)]
    )
    consumer.start()
    for number in range(2000):
        assert handoff.put_waiting(number, 5.0)
    handoff.close()
    consumer.join(10.0)
    assert got == list(range(2000))


def test_what_waits_can_be_let_go_and_is_counted():
    lost: list[int] = []
    handoff = Handoff(4, lost.append)
    for number in range(3):
        handoff.put(number)
    handoff.close()
    handoff.drop_all()
    handoff.put(3)
    assert lost == [0, 1, 2, 3]
    assert handoff.dropped == 4
    assert handoff.get(0) is None


def test_late_items_that_are_picked_go_but_never_the_newest_of_them():
    handoff = Handoff(10)
    for item in ("a1", "b1", "a2", "a3"):
        handoff.put(item)
    time.sleep(0.05)
    handoff.put("b2")
    assert handoff.take_late(5.0, lambda item: item[0] == "a") == []
    assert handoff.take_late(0.02, lambda item: item[0] == "a") == ["a1", "a2"]
    assert handoff.dropped == 2
    assert handoff.take_late(0.0, lambda item: item[0] == "a") == []
    assert [handoff.get(0) for _ in range(4)] == ["b1", "a3", "b2", None]


def test_a_newer_item_lets_the_one_before_go_once_that_is_late():
    handoff = Handoff(10)
    handoff.put(1)
    time.sleep(0.05)
    handoff.put(2)
    assert handoff.take_late(0.02, lambda _: True) == [1]
    assert handoff.take_late(0.02, lambda _: True) == []
    assert Handoff(1).take_late(0.0, lambda _: True) == []


def test_what_is_picked_is_taken_from_the_front_up_to_the_first_that_is_not():
    handoff = Handoff(10)
    for number in (2, 4, 5, 6):
        handoff.put(number)
    assert handoff.take_first(lambda number: number % 2 == 0) == [2, 4]
    assert handoff.take_first(lambda number: number % 2 == 0) == []
    assert handoff.dropped == 0
    assert len(handoff) == 2
