# SPDX-License-Identifier: Apache-2.0
"""Sets of voxels as sorted 64-bit keys: 21 bits an axis."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int64

_BITS = 21
_CENTRE = 1 << (_BITS - 1)
STEPS = np.array([0, 1, -1, 1 << _BITS, -(1 << _BITS), 1 << 2 * _BITS, -(1 << 2 * _BITS)])
"""What leads from the key of a voxel to those of itself and its six neighbours."""


def voxel_keys(points: Float[np.ndarray, "n 3"], edge: float) -> Int64[np.ndarray, "n"]:
    """Key of the voxel that holds each point; beyond a million voxels from the origin it wraps."""
    index = (np.floor(points.astype(np.float64) / edge).astype(np.int64) + _CENTRE) & (
        (1 << _BITS) - 1
    )
    return np.asarray((index[:, 0] << 2 * _BITS) | (index[:, 1] << _BITS) | index[:, 2])


def dilated(keys: Int64[np.ndarray, "n"]) -> Int64[np.ndarray, "m"]:
    """The voxels and their six neighbours, sorted and unique."""
    return np.unique((keys[:, None] + STEPS[None, :]).ravel())


def is_in(
    keys: Int64[np.ndarray, "n"], sorted_keys: Int64[np.ndarray, "m"]
) -> Bool[np.ndarray, "n"]:
    """Which of `keys` are in the sorted set."""
    if not len(sorted_keys):
        return np.zeros(len(keys), bool)
    place = np.minimum(np.searchsorted(sorted_keys, keys), len(sorted_keys) - 1)
    return np.asarray(sorted_keys[place] == keys)
