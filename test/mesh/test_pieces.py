# SPDX-License-Identifier: Apache-2.0
"""Rows of chosen ranges are those that one gets row by row."""

from __future__ import annotations

import numpy as np
import pytest

from worldsystem_mesh.pieces import MOST_SLICES, Pieces, ranges
from worldsystem_mesh.reference import copied_pieces

RANGES = 2000


@pytest.fixture
def start() -> np.ndarray:
    """Where each of many ranges begins; every third is empty."""
    lengths = np.random.default_rng(3).integers(1, 40, RANGES)
    lengths[::3] = 0
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)


def column(rows: int, dtype: type, width: int) -> np.ndarray:
    held = np.random.default_rng(4).integers(0, 200, (rows, width)).astype(dtype)
    return held if width > 1 else held[:, 0]


@pytest.mark.parametrize("count", [1, 7, MOST_SLICES, RANGES, 3 * RANGES], ids=lambda n: f"{n} of")
@pytest.mark.parametrize(
    ("dtype", "width"), [(np.uint8, 1), (np.uint16, 1), (np.uint8, 3), (np.float32, 3)]
)
def test_chosen_ranges_follow_one_another_in_the_order_asked_for(start, count, dtype, width):
    chosen = np.random.default_rng(count).integers(0, RANGES, count)
    held = column(int(start[-1]), dtype, width)
    pieces, begins = ranges(start, chosen)
    got = pieces.of(held)
    assert got.dtype == held.dtype
    np.testing.assert_array_equal(got, copied_pieces(held, pieces))
    for at, number in enumerate(chosen.tolist()):
        theirs = held[start[number] : start[number + 1]]
        np.testing.assert_array_equal(got[begins[at] : begins[at + 1]], theirs)
    assert begins[-1] == len(got)


def test_ranges_that_follow_one_another_are_one_piece_and_not_copied(start):
    held = column(int(start[-1]), np.float32, 3)
    pieces, _ = ranges(start, np.arange(5, 900))
    assert len(pieces.first) == 1
    assert np.shares_memory(pieces.of(held), held)


@pytest.mark.parametrize("chosen", [[], [0], [0, 3, 6]], ids=["none", "an empty one", "empty ones"])
def test_no_rows_are_no_rows(start, chosen):
    pieces, begins = ranges(start, np.array(chosen, np.int64))
    assert pieces.of(column(int(start[-1]), np.uint8, 3)).shape == (0, 3)
    assert begins.tolist() == [0] * (len(chosen) + 1)


def test_a_column_that_is_read_only_or_has_gaps_is_copied_too(start):
    held = column(int(start[-1]), np.uint16, 3)
    held.flags.writeable = False
    every_other = Pieces(start[1:-1:3], start[2::3])
    assert len(every_other.first) >= MOST_SLICES
    np.testing.assert_array_equal(every_other.of(held), copied_pieces(held, every_other))
    middle = held[:, 1]
    np.testing.assert_array_equal(every_other.of(middle), copied_pieces(middle, every_other))
