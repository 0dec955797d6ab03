# SPDX-License-Identifier: Apache-2.0
"""Where blocks are: the hash from a block's indices to its number, and what is held per number.

Nießner et al., "Real-time 3D Reconstruction at Scale using Voxel Hashing", ACM TOG 32(6), 2013.
"""

from __future__ import annotations

import math

import numpy as np
import warp as wp
from jaxtyping import Int, Int32

from worldsystem_mesh import kernels_volume as kernels
from worldsystem_mesh.launcher import Launcher, zeros

PER_BLOCK: dict[str, tuple[tuple[int, ...], type]] = {
    "coords": ((3,), wp.int32),
    "touched_at": ((), wp.int32),
    "fused_at": ((), wp.int32),
    "step": ((), wp.int32),
    "change": ((), wp.float32),
    "change_drawn": ((), wp.float32),
    "is_dirty": ((), wp.int32),
    "touched": ((), wp.int32),
    "dirty": ((), wp.int32),
}
REMEMBERED_BYTES = 8 + 4 + 4 + 1 + 4
"""Its slot and when it was last seen (`BlockPool`), its first view (`Refusion`), its last one
(`Forgetting`), whether it waits (`WaitingBlocks`) and its place on disk (`PageFile`)."""
PLACE_BYTES: int = REMEMBERED_BYTES + sum(
    math.prod(tail) * wp.types.type_size_in_bytes(t) for tail, t in PER_BLOCK.values()
)
"""Of every block, also on disk."""

KEY_BYTES = 8 + 4


class BlockHash:
    """The places of the blocks in `state`, on the launcher's device, and the kernels' counters.

    It has no room before the first `resize`.
    """

    def __init__(self, state: kernels.Volume, launcher: Launcher) -> None:
        self.count = 0
        self._state = state
        self._launcher = launcher
        self._coords, self._coords_known = np.zeros((0, 3), np.int32), 0
        state.counters = self._zeros(kernels.COUNTERS, wp.int32)

    @property
    def bytes(self) -> int:
        """Memory that places and hash take."""
        return self.count * PLACE_BYTES + int(self._state.keys.size) * KEY_BYTES

    def coords(self, blocks: Int[np.ndarray, "b"]) -> Int32[np.ndarray, "b 3"]:
        """Block indices of the given block numbers."""
        return np.asarray(self._coords[blocks])

    def numbers(self, coords: Int[np.ndarray, "b 3"]) -> Int32[np.ndarray, "b"]:
        """Block numbers at the given block indices, -1 where there is none."""
        device = self._launcher.device
        places = wp.array(np.ascontiguousarray(coords, np.int32), dtype=wp.int32, device=device)
        found = wp.empty(len(coords), dtype=wp.int32, device=device)
        if len(coords):
            self._launcher.whole(kernels.find_blocks, len(coords), [self._state, places, found])
        return np.asarray(found.numpy())

    def counters(self) -> Int32[np.ndarray, "c"]:
        """On a CPU the counters themselves; on CUDA a copy, which waits for the kernels."""
        return np.asarray(self._state.counters.numpy())

    def clear_counters(self, first: int, last: int) -> None:
        """Make the counters from `first` to `last` zero."""
        if self._launcher.device == "cpu":
            self.counters()[first : last + 1] = 0
        else:
            self._state.counters[first : last + 1].zero_()

    def keep_band_count(self) -> None:
        """What is touched from now on is in free space."""
        held = self._state.counters
        if self._launcher.device != "cpu":
            wp.copy(held, held, dest_offset=kernels.IN_BAND, src_offset=kernels.TOUCHED, count=1)
        else:
            held.numpy()[kernels.IN_BAND] = held.numpy()[kernels.TOUCHED]

    def follow(self, count: int) -> None:
        """There are `count` blocks now. The host's copy of their indices is made complete; on a CPU
        it is no copy."""
        self.count = count
        if self._launcher.device == "cpu":
            self._coords = self._state.coords.numpy()
            return
        known = self._coords_known
        if count > len(self._coords):
            self._coords = np.resize(self._coords, (self._state.capacity, 3))
        if count > known:
            self._coords[known:count] = self._state.coords[known:count].numpy()
            self._coords_known = count

    def resize(self, capacity: int) -> None:
        """Give every per-block array room for `capacity` blocks and build the hash anew."""
        kept = min(int(self.counters()[kernels.BLOCKS]), int(self._state.capacity))
        for name, (tail, dtype) in PER_BLOCK.items():
            new = self._zeros((capacity, *tail), dtype)
            if kept:
                wp.copy(new, getattr(self._state, name), count=kept * math.prod(tail))
            setattr(self._state, name, new)
        self._state.capacity = capacity
        self.keep_first(kept)

    def keep_first(self, count: int) -> None:
        """Build the hash anew of the first `count` blocks alone."""
        counters = self.counters()
        counters[kernels.BLOCKS] = count
        if self._launcher.device != "cpu":
            self._state.counters.assign(counters)
        slots = 1 << (2 * int(self._state.capacity) - 1).bit_length()
        self._state.keys = self._zeros(slots, wp.int64)
        self._state.block_of_key = wp.full(
            slots, kernels.REFUSED, dtype=wp.int32, device=self._launcher.device
        )
        if count:
            self._launcher.whole(kernels.insert_blocks, count, [self._state])

    def _zeros(self, shape: int | tuple[int, ...], dtype: type) -> wp.array:
        return zeros(shape, dtype, self._launcher.device)
