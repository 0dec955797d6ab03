# SPDX-License-Identifier: Apache-2.0
"""An inverted index as one writes it at first: a dictionary a table, a list for each word.

The plain twin, too, that tests hold the flat lists against.
"""

from __future__ import annotations

import sys
from array import array

import numpy as np
from jaxtyping import Float64, Int64


class ListedPostings:
    """The interface of `graph.postings.Postings`."""

    def __init__(self, tables: int) -> None:
        self._tables: list[dict[int, array[int]]] = [{} for _ in range(tables)]

    @property
    def size_bytes(self) -> int:
        """Memory of the dictionaries, the lists and the numbers that are their keys."""
        lists = [held for table in self._tables for held in table.values()]
        keys = sum(sys.getsizeof(word) for table in self._tables for word in table)
        return keys + sum(map(sys.getsizeof, self._tables)) + sum(map(sys.getsizeof, lists))

    def add(self, row: int, words: Int64[np.ndarray, "n t"]) -> None:
        for table, column in zip(self._tables, words.T, strict=True):
            for word in np.unique(column).tolist():
                held = table.get(word)
                if held is None:
                    table[word] = array("i", (row,))
                else:
                    held.append(row)

    def remove(self, row: int, words: Int64[np.ndarray, "n t"]) -> None:
        for table, column in zip(self._tables, words.T, strict=True):
            for word in np.unique(column).tolist():
                table[word].remove(row)
                if not table[word]:
                    del table[word]

    def votes(self, words: Int64[np.ndarray, "n t"], rows: int) -> Float64[np.ndarray, "k"]:
        found: list[array[int]] = []
        for table, column in zip(self._tables, words.T.tolist(), strict=True):
            found += [held for held in map(table.get, column) if held is not None]
        if not found:
            return np.zeros(rows)
        counts = np.fromiter(map(len, found), np.int64, len(found))
        weights = np.repeat(np.log1p(rows / counts), counts)
        return np.bincount(np.frombuffer(b"".join(found), np.int32), weights, minlength=rows)
