# SPDX-License-Identifier: Apache-2.0
"""Blocks share what lies on their rims: within one code each such vertex is written once."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Int, Int32

_CORNERS = np.array([[c & 1, c >> 1 & 1, c >> 2] for c in range(8)])


def place_keys(
    index: Int32[np.ndarray, "b 3"],
    block: Int[np.ndarray, "n"],
    points: Int[np.ndarray, "n 3"],
    side: int,
) -> Int[np.ndarray, "n"]:
    """A number for each point of a block, the same where blocks share the point.

    Blocks have `side` + 1 points along an axis; the last is the neighbour's first. The number is
    that of the block at home there, whether or not it is in the code, times side³, plus the point.
    """
    homes = (index[:, None, :] + _CORNERS).reshape(-1, 3)
    home_id = np.unique(homes, axis=0, return_inverse=True)[1].reshape(-1, 8)
    beyond = points == side
    corner = beyond[:, 0] + 2 * beyond[:, 1] + 4 * beyond[:, 2]
    local = np.where(beyond, 0, points)
    inside = local[:, 0] + side * (local[:, 1] + side * local[:, 2])
    return np.asarray(home_id[block, corner] * side**3 + inside)


def first_of_each(keys: Int[np.ndarray, "n"], alone: Bool[np.ndarray, "n"]) -> Int[np.ndarray, "n"]:
    """For each entry the first one with its key; those that stand `alone` are their own."""
    own = np.arange(len(keys))
    kept = own[~alone]
    _, first, inverse = np.unique(keys[kept], return_index=True, return_inverse=True)
    found = own.copy()
    found[kept] = kept[first[inverse.reshape(-1)]]
    return found
