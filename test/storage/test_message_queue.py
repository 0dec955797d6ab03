# SPDX-License-Identifier: Apache-2.0
"""What waits for the disk is bounded in number and size, and every message is accounted for."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from worldsystem_storage.bag_metadata import Topic
from worldsystem_storage.message_queue import MessageQueue, WaitingMessage

TOPIC = Topic("/a", "p/msg/A", "", "", "")


def message(number: int, size: int = 10) -> WaitingMessage:
    return WaitingMessage(TOPIC, bytes(size), number, number)


def numbers(batch: list[WaitingMessage]) -> list[int]:
    return [each.log_time_ns for each in batch]


@pytest.mark.parametrize("seed", range(5))
def test_all_that_was_offered_is_taken_waits_or_was_dropped(seed):
    rng = np.random.default_rng(seed)
    queue = MessageQueue(most_messages=20, most_bytes=1000)
    taken, in_hand = 0, 0
    for number in range(400):
        queue.put(message(number, int(rng.integers(1, 120))))
        if rng.random() < 0.2:
            queue.settle(in_hand)
            batch = queue.take(0.0)
            taken, in_hand = taken + len(batch), sum(len(m.cdr) for m in batch)
        assert queue.waiting_bytes <= 1000 + 120
    queue.settle(in_hand)
    while batch := queue.take(0.0):
        taken += len(batch)
        queue.settle(sum(len(m.cdr) for m in batch))
    assert queue.offered["/a"] == 400 == taken + queue.overflown["/a"]
    assert queue.waiting_bytes == 0


def test_the_newest_stay_in_their_order():
    queue = MessageQueue(most_messages=5, most_bytes=10**6)
    for number in range(12):
        queue.put(message(number))
    found = []
    while batch := queue.take(0.0):
        found += numbers(batch)
    assert found == [7, 8, 9, 10, 11]


def test_what_is_being_written_counts_as_waiting_until_it_is_settled():
    queue = MessageQueue(most_messages=100, most_bytes=1000)
    queue.put(message(0, 900))
    batch = queue.take(0.0)
    for number in (1, 2, 3):
        queue.put(message(number, 300))
    assert queue.overflown["/a"] == 2, "there is room for one beside what is being written"
    queue.settle(len(batch[0].cdr))
    assert numbers(queue.take(0.0)) == [3]


def test_a_writer_is_woken_by_a_batch_or_by_the_end_and_not_by_one_message():
    queue = MessageQueue(most_messages=80, most_bytes=10**6)
    threading.Timer(0.05, queue.put, [message(0)]).start()
    begin = time.monotonic()
    assert numbers(queue.take(1.0)) == [0]
    assert time.monotonic() - begin >= 1.0
    threading.Timer(0.05, lambda: [queue.put(message(n)) for n in range(10)]).start()
    assert len(queue.take(5.0)) == 10
    threading.Timer(0.05, queue.close).start()
    assert queue.take(5.0) == []
    assert time.monotonic() - begin < 4
    queue.put(message(0))
    assert queue.refused["/a"] == 1
