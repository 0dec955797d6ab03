# SPDX-License-Identifier: Apache-2.0
"""Frame numbers that jump, go back, come late or come twice."""

from __future__ import annotations

import numpy as np

from worldsystem_ingest.sender.numbering import FrameNumbers


def ids_of(numbers: FrameNumbers, taken: list[tuple[int, int]], keys=(0,)) -> list[int | None]:
    results = [numbers.take(n, stamp, n in keys) for n, stamp in taken]
    return [result and result.id for result in results]


def test_numbers_are_ids_while_the_sender_runs():
    assert ids_of(FrameNumbers(), [(5, 50), (6, 60), (7, 70)]) == [5, 6, 7]


def test_a_gap_names_the_lost_ids():
    numbers = FrameNumbers()
    numbers.take(3, 30, True)
    numbered = numbers.take(7, 70, False)
    assert numbered is not None
    assert list(numbered.lost) == [4, 5, 6]
    assert numbers.lost == 3


def test_a_restart_continues_the_ids():
    numbers = FrameNumbers()
    assert ids_of(numbers, [(8, 80), (9, 90), (0, 100), (1, 110)]) == [8, 9, 10, 11]
    assert numbers.restarts == 1


def test_a_restart_is_seen_without_a_clock_when_a_new_connection_begins_at_zero():
    numbers = FrameNumbers()
    assert ids_of(numbers, [(8, 0), (9, 0)]) == [8, 9]
    numbers.connected()
    assert ids_of(numbers, [(0, 0), (1, 0)]) == [10, 11]


def test_a_restart_without_a_clock_is_seen_though_the_same_numbers_were_there():
    numbers = FrameNumbers()
    assert ids_of(numbers, [(n, 0) for n in range(4)]) == [0, 1, 2, 3]
    numbers.connected()
    assert ids_of(numbers, [(n, 0) for n in range(3)]) == [4, 5, 6]


def test_an_announced_restart_needs_no_evidence():
    numbers = FrameNumbers()
    ids_of(numbers, [(8, 80), (9, 90)])
    numbers.restart()
    assert ids_of(numbers, [(9, 90), (10, 100)]) == [10, 11]


def test_a_wild_jump_is_another_numbering_and_not_a_million_losses():
    numbers = FrameNumbers()
    assert ids_of(numbers, [(1, 10), (2**64 - 1, 20), (3, 30), (4, 40)]) == [1, 2, 3, 4]
    assert numbers.lost == 0


def test_whatever_comes_every_id_is_settled_at_most_once_and_ids_grow():
    rng = np.random.default_rng(7)
    numbers, ended = FrameNumbers(), []
    for stamp in range(5000):
        number = int(abs(rng.normal(stamp % 700, 5))) if rng.random() < 0.9 else 0
        if rng.random() < 0.01:
            numbers.connected()
        numbered = numbers.take(number, stamp - int(rng.integers(0, 4)), rng.random() < 0.1)
        if numbered:
            ended += [*numbered.lost, numbered.id]
    assert ended == sorted(set(ended))
    assert ended == list(range(ended[0], ended[-1] + 1))


def test_a_sender_that_jumps_on_and_on_cannot_make_losses_at_will():
    now_s = [0.0]
    numbers = FrameNumbers(lambda: now_s[0])
    number = 0
    for stamp in range(10_000):
        now_s[0] += 0.001
        number += 2900
        numbers.take(number, stamp, False)
    assert numbers.lost <= 3000 + 300 * 10
    assert numbers.restarts > 9000


def test_real_losses_of_ten_percent_for_an_hour_are_all_named():
    now_s = [0.0]
    numbers = FrameNumbers(lambda: now_s[0])
    for number in range(30 * 3600):
        now_s[0] += 1 / 30
        if number % 10:
            numbers.take(number, number, number % 30 == 1)
    assert numbers.lost == 3 * 3600 - 1  # number 0 came before any id
    assert numbers.restarts == 0


def test_a_restart_is_seen_after_a_stamp_that_was_far_ahead():
    numbers = FrameNumbers()
    ids_of(numbers, [(500, 1000), (501, 10**12), (502, 1002)])
    found = ids_of(numbers, [(n, 2000 + n) for n in range(20)])
    assert found[:5] == [None] * 5
    assert found[5:] == list(range(503, 518))
    assert numbers.restarts == 1


def test_another_sender_whose_clock_is_behind_begins_at_its_first_key_frame():
    numbers = FrameNumbers()
    ids_of(numbers, [(500, 1000), (501, 1033)])
    numbers.connected()
    assert ids_of(numbers, [(30, 500), (31, 533)], keys=(30,)) == [502, 503]


def test_pictures_sent_again_after_a_reconnection_are_duplicates():
    numbers = FrameNumbers()
    ids_of(numbers, [(n, 10 * n) for n in range(10)])
    numbers.connected()
    assert ids_of(numbers, [(n, 10 * n) for n in range(5, 12)], keys=(5,)) == [None] * 5 + [10, 11]
    assert (numbers.duplicates, numbers.late, numbers.restarts) == (5, 0, 0)


def test_a_drone_that_was_away_for_five_minutes_lost_what_it_numbered_meanwhile():
    now_s = [0.0]
    numbers = FrameNumbers(lambda: now_s[0])
    numbers.take(100, 100, True)
    now_s[0] += 300.0
    numbered = numbers.take(9101, 9101, True)
    assert numbered is not None
    assert (len(numbered.lost), numbers.restarts) == (9000, 0)
