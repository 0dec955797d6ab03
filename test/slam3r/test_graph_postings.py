# SPDX-License-Identifier: Apache-2.0
"""Which rows hold a word, against plain lists; and what that takes."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from places_naive import ListedPostings

from worldsystem_slam3r.graph.postings import Postings

TABLES = 3


def skewed_words(rng: np.random.Generator, features: int, words: int) -> np.ndarray:
    """Some words are everywhere, most are rare, as in pictures."""
    return (words * rng.uniform(size=(features, TABLES)) ** 3).astype(np.int64)


@pytest.mark.parametrize("words", [1, 7, 300, 5000])
def test_votes_are_those_of_plain_lists_while_rows_come_and_go(words):
    rng = np.random.default_rng(words)
    postings, twin = Postings(TABLES, words), ListedPostings(TABLES)
    held: dict[int, np.ndarray] = {}
    for step in range(400):
        if held and rng.uniform() < 0.45:
            row = int(rng.choice(list(held)))
            gone = held.pop(row)
            postings.remove(row, gone)
            twin.remove(row, gone)
        else:
            row = next(row for row in range(len(held) + 1) if row not in held)
            held[row] = skewed_words(rng, int(rng.integers(0, 60)), words)
            postings.add(row, held[row])
            twin.add(row, held[row])
        if step % 10 == 0:
            asked = skewed_words(rng, 40, words)
            np.testing.assert_allclose(
                postings.votes(asked, 401), twin.votes(asked, 401), rtol=1e-12
            )


def test_one_word_that_everybody_holds_finds_room_as_its_list_grows():
    postings, word = Postings(1, 2), np.ones((1, 1), np.int64)
    for row in range(5000):
        postings.add(row, word)
    votes = postings.votes(word, 5000)
    np.testing.assert_allclose(votes, np.log1p(1.0))


def test_a_word_that_nobody_holds_votes_for_nobody():
    postings = Postings(TABLES, 10)
    assert not postings.votes(np.full((5, TABLES), 3, np.int64), 4).any()
    postings.remove(0, np.full((5, TABLES), 3, np.int64))
    assert not postings.votes(np.full((5, TABLES), 3, np.int64), 4).any()


def test_rows_that_come_and_go_take_no_more_room_than_those_that_are_there():
    rng = np.random.default_rng(2)
    postings, features, words = Postings(8, 1 << 16), 1000, 1 << 16

    def row_of_words() -> np.ndarray:
        return rng.integers(0, words, (features, 8))

    held = [row_of_words() for _ in range(60)]
    for row, each in enumerate(held):
        postings.add(row, each)
    tables = Postings(8, words).size_bytes
    before = postings.size_bytes
    assert before - tables < 2.5 * 4 * 8 * features * 60, "bytes of one number for each word held"
    for turn in range(300):
        row = turn % len(held)
        postings.remove(row, held[row])
        held[row] = row_of_words()
        postings.add(row, held[row])
        assert postings.size_bytes < 1.3 * before
