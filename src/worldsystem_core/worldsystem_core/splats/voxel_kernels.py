# SPDX-License-Identifier: Apache-2.0
"""Compiled loops over the voxels that splats cover: keys, and a hash of areas by key.

They run without the interpreter's lock. Twins in plain Python: `test/splats/plain_splats.py`.
"""
# mypy: ignore-errors

from __future__ import annotations

import numpy as np
from numba import njit

LEVELS = 12
BITS, HALF = 19, 1 << 18
"""A voxel's key: its level and three numbers of 19 bits each, counted from -2^18."""

EMPTY = -1
"""No voxel's key: of places in the hash that are free."""

_MASK = (1 << BITS) - 1
_SPREAD = np.uint64(0x9E3779B97F4A7C15)


@njit(cache=True, nogil=True)
def key_at(x, y, z, size, level):
    """Key of the voxel of this `size` and level that a point (world) lies in."""
    key = np.int64(level)
    for value in (x, y, z):
        cell = np.int64(np.floor(value / size)) + HALF
        key = key << BITS | min(max(cell, 0), 2 * HALF - 1)
    return key


@njit(cache=True, nogil=True)
def parent_of(key):
    """Key of the voxel of the next coarser level around a voxel."""
    packed = (key >> 3 * BITS) + 1
    for place in (2, 1, 0):
        cell = ((key >> place * BITS & _MASK) - HALF) >> 1
        packed = packed << BITS | (cell + HALF)
    return packed


@njit(cache=True, nogil=True)
def keys_at(means, rotation, translation, levels, voxel, keys):
    """Key of each point's voxel at its level, once `rotation` (its scale included) and
    `translation` have taken it to the world."""
    for i in range(len(means)):
        a, b, c = np.float64(means[i, 0]), np.float64(means[i, 1]), np.float64(means[i, 2])
        x = rotation[0, 0] * a + rotation[0, 1] * b + rotation[0, 2] * c + translation[0]
        y = rotation[1, 0] * a + rotation[1, 1] * b + rotation[1, 2] * c + translation[1]
        z = rotation[2, 0] * a + rotation[2, 1] * b + rotation[2, 2] * c + translation[2]
        keys[i] = key_at(x, y, z, voxel * np.float64(1 << levels[i]), levels[i])


@njit(cache=True, nogil=True)
def place_of(held, key):
    """Where a key is in the hash, or the free place that it would take."""
    last = len(held) - 1  # their number is a power of two, and some are always free
    at = np.int64((np.uint64(key) * _SPREAD) >> np.uint64(32)) & last
    while held[at] != EMPTY and held[at] != key:
        at = (at + 1) & last
    return at


@njit(cache=True, nogil=True)
def count(keys, levels, area, first, room, held, own, finer):
    """Add the areas of splats `first` and on to their own voxels, and to those around them at all
    coarser levels.

    Stops before the first splat for which the hash may have no `room`; returns its number, and how
    many more keys there is room for then.
    """
    chain, places = np.full(LEVELS, EMPTY), np.zeros(LEVELS, np.int64)
    for i in range(first, len(keys)):
        if room < LEVELS:
            return i, room
        key, lowest = keys[i], levels[i]
        if chain[lowest] != key:
            chain[:lowest] = EMPTY
        level = lowest
        while level < LEVELS and chain[level] != key:
            at = place_of(held, key)
            if held[at] == EMPTY:
                held[at] = key
                room -= 1
            chain[level], places[level] = key, at
            key = parent_of(key)
            level += 1  # from where the voxel is that of the splat before, all around it are
        own[places[lowest]] += area[i]
        for level in range(lowest + 1, LEVELS):
            finer[places[level]] += area[i]
    return len(keys), room


@njit(cache=True, nogil=True)
def finer_at(keys, held, finer, found):
    """The area that finer splats have in each key's voxel."""
    for i in range(len(keys)):
        at = place_of(held, keys[i])
        found[i] = finer[at] if held[at] == keys[i] else 0


@njit(cache=True, nogil=True)
def covered_places(held, own, finer, least):
    """How many voxels have more area than `least`."""
    found = 0
    for at in range(len(held)):
        if held[at] != EMPTY and own[at] + finer[at] > least:
            found += 1
    return found


@njit(cache=True, nogil=True)
def move_over(held, own, finer, least, new_held, new_own, new_finer):
    """Take voxels with more area than `least` to another hash, which is empty."""
    for at in range(len(held)):
        if held[at] != EMPTY and own[at] + finer[at] > least:
            there = place_of(new_held, held[at])
            new_held[there] = held[at]
            new_own[there], new_finer[there] = own[at], finer[at]
