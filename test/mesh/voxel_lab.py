# SPDX-License-Identifier: Apache-2.0
"""All that two meshers know of their blocks, to be compared."""

from __future__ import annotations

import numpy as np


def voxels_of(mesher):
    """Distances and colours, by block index, of blocks that know anything."""
    volume = mesher.volume
    blocks = np.arange(volume.block_count, dtype=np.int32)
    samples, colours = volume.samples(blocks), volume.colours(blocks)
    return {
        tuple(index): (samples[b], colours[b])
        for b, index in enumerate(volume.coords(blocks).tolist())
        if (samples[b] != -32768).any()
    }


def assert_same_voxels(mesher, other):
    """The same blocks with the same distances and colours."""
    ours, theirs = voxels_of(mesher), voxels_of(other)
    assert ours.keys() == theirs.keys()
    for index, (samples, colours) in ours.items():
        there, their_colours = theirs[index]
        np.testing.assert_array_equal(samples, there)
        np.testing.assert_array_equal(colours, their_colours)
