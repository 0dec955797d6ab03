# SPDX-License-Identifier: Apache-2.0
"""Which rows hold a word: a list for each word of each table, all lists in one flat pool.

Most words of a small map are held by one row alone, and cost four bytes here: as Python objects
such lists take five times the memory (`benchmarks/bench_places.py`). A list of `n` has room for the
next power of two. One that grows beyond it moves to the end of the pool, and when that is full,
what is in use is packed into a new one.
"""

from __future__ import annotations

import numba
import numpy as np
from jaxtyping import Float64, Int32, Int64

LEAST_ROOM = 1024


class Postings:
    """Words below `words` in each of `tables`, and the rows that hold them."""

    def __init__(self, tables: int, words: int) -> None:
        self._begins: Int32[np.ndarray, "t w"] = np.zeros((tables, words), np.int32)
        self._counts: Int32[np.ndarray, "t w"] = np.zeros((tables, words), np.int32)
        self._pool: Int32[np.ndarray, "p"] = np.empty(LEAST_ROOM, np.int32)
        self._used = 0

    @property
    def size_bytes(self) -> int:
        """Memory in use."""
        return self._begins.nbytes + self._counts.nbytes + self._pool.nbytes

    def add(self, row: int, words: Int64[np.ndarray, "n t"]) -> None:
        """`row`, which held nothing yet, holds these words from now on."""
        flat, lists = words.ravel(), (self._begins, self._counts)
        done, self._used = _add(*lists, self._pool, self._used, row, flat, 0)
        while done < len(flat):
            self._pool, self._used = _packed(*lists, self._pool)
            done, self._used = _add(*lists, self._pool, self._used, row, flat, done)

    def remove(self, row: int, words: Int64[np.ndarray, "n t"]) -> None:
        """`row` holds none of these words any more."""
        _remove(self._begins, self._counts, self._pool, row, words.ravel())

    def votes(self, words: Int64[np.ndarray, "n t"], rows: int) -> Float64[np.ndarray, "k"]:
        """For each of the first `rows`: the weights of these words that it holds, summed. A word's
        is log(1 + `rows` / how many hold it)."""
        return np.asarray(_votes(self._begins, self._counts, self._pool, words.ravel(), rows))


@numba.njit(cache=True, nogil=True)
def _add(begins, counts, pool, used, row, words, done):  # type: ignore[no-untyped-def]
    """Append `row` once to the list of each word from number `done` on, as they lie in turns for
    each table; the number of the first for which the pool has no room, and what of it is used."""
    for i in range(done, len(words)):
        table, word = i % len(begins), words[i]
        begin, count = begins[table, word], counts[table, word]
        if count and pool[begin + count - 1] == row:
            continue
        if count & (count - 1) == 0:  # none, or all of a power of two
            room = 2 * count if count else 1
            if used + room > len(pool):
                return i, used
            for at in range(count):
                pool[used + at] = pool[begin + at]
            begins[table, word] = begin = used
            used += room
        pool[begin + count] = row
        counts[table, word] = count + 1
    return len(words), used


@numba.njit(cache=True, nogil=True)
def _remove(begins, counts, pool, row, words):  # type: ignore[no-untyped-def]
    for i in range(len(words)):
        table, word = i % len(begins), words[i]
        begin, count = begins[table, word], counts[table, word]
        for at in range(begin, begin + count):
            if pool[at] == row:
                pool[at] = pool[begin + count - 1]
                counts[table, word] = count - 1
                break


@numba.njit(cache=True, nogil=True)
def _votes(begins, counts, pool, words, rows):  # type: ignore[no-untyped-def]
    total = np.zeros(rows)
    for i in range(len(words)):
        table, word = i % len(begins), words[i]
        begin, count = begins[table, word], counts[table, word]
        if count:
            weight = np.log1p(rows / count)
            for at in range(begin, begin + count):
                total[pool[at]] += weight
    return total


@numba.njit(cache=True, nogil=True)
def _packed(begins, counts, pool):  # type: ignore[no-untyped-def]
    """A pool with the lists side by side and half as much again to spare, at least what the longest
    needs to grow; and what of it is used."""
    used = longest = 0
    for count in counts.flat:
        used += _room(count)
        longest = max(longest, count)
    spare = max(used // 2, 2 * _room(longest), LEAST_ROOM)
    packed, used = np.empty(used + spare, np.int32), 0
    for table in range(begins.shape[0]):
        for word in range(begins.shape[1]):
            begin, count = begins[table, word], counts[table, word]
            packed[used : used + count] = pool[begin : begin + count]
            begins[table, word] = used
            used += _room(count)
    return packed, used


@numba.njit(cache=True, nogil=True)
def _room(count):  # type: ignore[no-untyped-def]
    """The power of two that holds so many; 0 for none."""
    room = 1 if count else 0
    while room < count:
        room *= 2
    return room
