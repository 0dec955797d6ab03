# SPDX-License-Identifier: Apache-2.0
"""Rows of chosen ranges of a column, put one behind the other."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import warp as wp
from jaxtyping import Int, Int32

from worldsystem_mesh.kernels_copying import copy_pieces
from worldsystem_mesh.launcher import over, start_warp

MOST_SLICES = 200
"""More pieces are copied by a kernel: it takes as long to launch as Python for these many."""


@dataclass(frozen=True, eq=False)
class Pieces:
    """Piece i are the rows `first[i]` to `last[i]` - 1 of a column."""

    first: Int32[np.ndarray, "p"]
    last: Int32[np.ndarray, "p"]

    def of(self, column: np.ndarray) -> np.ndarray:
        """These rows of a column; of a single piece they are not copied."""
        bounds = zip(self.first.tolist(), self.last.tolist(), strict=True)
        if len(self.first) == 1:
            return np.asarray(column[slice(*next(bounds))])
        if len(self.first) < MOST_SLICES:
            return np.concatenate([column[first:last] for first, last in bounds] or [column[:0]])
        return self._copied(column)

    def _copied(self, column: np.ndarray) -> np.ndarray:
        count, places = self._places
        rows = np.empty((count, *column.shape[1:]), column.dtype)
        width = math.prod(column.shape[1:]) * column.itemsize
        inputs = [_bytes_of(column), width, *places, _bytes_of(rows)]
        wp.launch(copy_pieces, dim=len(self.first), inputs=inputs, device="cpu")
        return rows

    @cached_property
    def _places(self) -> tuple[int, list[wp.array]]:
        """How many rows there are, and where pieces begin, end, and go, as the kernel takes it."""
        start_warp()
        begins = np.zeros(len(self.first) + 1, np.int32)
        np.cumsum(self.last - self.first, out=begins[1:])
        return int(begins[-1]), [over(at, wp.int32) for at in (self.first, self.last, begins)]


def ranges(
    start: Int32[np.ndarray, "b+1"], chosen: Int[np.ndarray, "n"]
) -> tuple[Pieces, Int32[np.ndarray, "n+1"]]:
    """Rows of the chosen ranges, where range i begins at `start[i]` and ends where the next begins;
    and where each begins in the result. Ranges that follow one another are one piece."""
    first, last = start[:-1][chosen], start[1:][chosen]
    begins = np.zeros(len(chosen) + 1, np.int32)
    np.cumsum(last - first, out=begins[1:])
    some = np.flatnonzero(last > first)
    first, last = first[some], last[some]
    breaks = np.flatnonzero(first[1:] != last[:-1])
    opens, closes = np.append(-1, breaks) + 1, np.append(breaks, len(some) - 1)
    return Pieces(first[opens[: len(some)]], last[closes[: len(some)]]), begins


def _bytes_of(column: np.ndarray) -> wp.array:
    return over(np.ascontiguousarray(column).reshape(-1).view(np.uint8), wp.uint8)
