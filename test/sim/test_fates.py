# SPDX-License-Identifier: Apache-2.0
"""What became of the pictures of a long flight."""

from __future__ import annotations

import random
import sys

import pytest

from worldsystem_sim.fates import Fates

KINDS = ("sent", "lost", "broken", "waiting_for_key")


def test_fates_are_those_that_a_plain_mapping_would_hold():
    chance, fates, plain = random.Random(5), Fates(), {}
    for _ in range(2000):
        number, kind = chance.randrange(500), chance.choice(KINDS)
        fates[number] = plain[number] = kind
        gone = chance.randrange(500)
        assert fates.pop(gone, "unsent") == plain.pop(gone, "unsent")
    assert fates == plain
    assert len(fates) == len(plain)
    for kind in (*KINDS, "unsent", ""):
        assert fates.count(kind) == list(plain.values()).count(kind)


def test_a_picture_of_which_nothing_is_known_has_no_fate():
    fates = Fates()
    fates[7] = "sent"
    assert fates.get(3, "unsent") == "unsent"
    with pytest.raises(KeyError):
        fates[8]
    with pytest.raises(KeyError):
        fates[-1] = "sent"


def test_a_day_of_pictures_takes_less_than_two_bytes_each():
    fates, day = Fates(), 15 * 86_400
    for number in range(day):
        fates[number] = "sent"
    assert sys.getsizeof(fates._codes) < 2 * day
    assert fates.count("sent") == day
