# SPDX-License-Identifier: Apache-2.0
"""What lies in pages of its own takes memory when it is written, and gives it back at once."""

from __future__ import annotations

import gc
import mmap
from pathlib import Path

import numpy as np
import pytest

from worldsystem_core import pages
from worldsystem_core.pages import blank_rows, in_own_pages, unwritten_zeros

STATM = Path("/proc/self/statm")
ON_LINUX = pytest.mark.skipif(not STATM.exists(), reason="reads what Linux tells of its pages")


def resident_mb() -> float:
    return int(STATM.read_text().split()[1]) * mmap.PAGESIZE / 1e6


@pytest.mark.parametrize("shape", [(0, 3), 5, (7, 2, 3)])
def test_zeros_that_nobody_has_written_are_zeros_and_can_be_written(shape):
    made = unwritten_zeros(shape, np.int16)
    plain = np.zeros(shape, np.int16)
    assert made.dtype == plain.dtype
    assert np.array_equal(made, plain)
    made[...] = 7
    assert made.sum() == 7 * plain.size


@ON_LINUX
def test_room_takes_memory_only_where_it_is_written():
    before_mb = resident_mb()
    room = unwritten_zeros(400_000_000, np.uint8)
    assert resident_mb() - before_mb < 20.0
    room[:100_000_000] = 1
    assert 80.0 < resident_mb() - before_mb < 120.0


@ON_LINUX
def test_rows_made_blank_are_zeros_and_their_pages_go_back():
    room = unwritten_zeros((100, 1_000_000), np.uint8)
    before_mb = resident_mb()
    room[...] = 7
    assert resident_mb() - before_mb > 90.0
    blank_rows(room[10:])
    assert resident_mb() - before_mb < 20.0
    assert room[:10].min() == 7
    assert not room[10:].any()
    room[50] = 3
    assert room.sum(dtype=np.int64) == 7 * 10_000_000 + 3_000_000


@pytest.mark.parametrize("advice", [True, False])
@pytest.mark.parametrize("rows", [slice(0, 0), slice(3, 4), slice(1, 3000), slice(None)])
def test_blank_rows_are_exactly_those_asked_for(rows, advice, monkeypatch):
    if not advice:
        monkeypatch.delattr(pages.mmap, "MADV_DONTNEED")
    room = unwritten_zeros((5000, 3), np.int16)
    room[...] = 1
    expected = np.ones((5000, 3), np.int16)
    expected[rows] = 0
    blank_rows(room[rows])
    assert np.array_equal(room, expected)


ARRAYS = [
    np.arange(7, dtype=np.uint8),
    np.arange(24, dtype=np.float32).reshape(2, 3, 4)[:, ::-1],
    np.zeros((0, 4)),
    np.array(5, dtype=np.int64),
    np.array([1 + 2j, 3 - 1j]),
]


def test_copies_in_own_pages_are_equal_and_do_not_overlap():
    copies = in_own_pages(*ARRAYS)
    for copy, array in zip(copies, ARRAYS, strict=True):
        assert copy.dtype == array.dtype
        assert np.array_equal(copy, array)
        assert copy.flags.c_contiguous
        assert copy.flags.writeable
        assert copy.ctypes.data % 64 == 0
    copies[0][...] = 255
    copies[1][...] = -1.0
    assert np.array_equal(copies[4], ARRAYS[4])
    assert ARRAYS[0].tolist() == list(range(7))


@ON_LINUX
def test_pages_go_back_with_the_last_array_that_lies_in_them():
    small, large = np.ones(10, np.uint8), np.ones(200_000_000, np.uint8)
    gc.collect()
    before_mb = resident_mb()
    kept, gone = in_own_pages(small, large)
    assert resident_mb() - before_mb > 190.0
    del gone
    assert resident_mb() - before_mb > 190.0
    assert kept.sum() == 10
    del kept
    assert resident_mb() - before_mb < 20.0


def test_where_the_system_gives_no_more_mappings_copies_come_from_the_heap(monkeypatch):
    def refused(*_: object, **__: object) -> None:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(pages.mmap, "mmap", refused)
    copies = in_own_pages(*ARRAYS)
    assert all(map(np.array_equal, copies, ARRAYS))
    copies[0][...] = 255
    assert ARRAYS[0].tolist() == list(range(7))
