# SPDX-License-Identifier: Apache-2.0
"""Blocks that wait to be made anew, and whose turn it is."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Int, Int32, Int64

from worldsystem_mesh.volume import BlockVolume

CHUNK_BLOCKS = 4
CHUNK_BIAS = 1 << 19
CHUNKS_AT_ONCE = 64
LONGEST_FIRST_EVERY = 8
"""Turns of which one is of the chunk that waits longest: near ones may wait anew before each turn,
as in a flight that goes round and round."""


class WaitingBlocks:
    """Blocks of `volume` by chunks, which are cubes of 4³ of them: the nearest to `near` [blocks]
    come first. All of them have voxels, as long as `let_go` is told of those that lose them."""

    def __init__(self, volume: BlockVolume) -> None:
        self.near = np.zeros(3)
        self._volume = volume
        self._of_chunk: dict[int, list[Int32[np.ndarray, "n"]]] = {}
        self._waits = np.zeros(1, bool)
        self._turns = 0

    @property
    def is_empty(self) -> bool:
        return not self._of_chunk

    @property
    def count(self) -> int:
        """How many blocks wait."""
        return int(np.count_nonzero(self._waits))

    def has(self, blocks: Int32[np.ndarray, "b"]) -> Bool[np.ndarray, "b"]:
        """Whether each block waits."""
        found = np.zeros(len(blocks), bool)
        known = blocks < len(self._waits)
        found[known] = self._waits[blocks[known]]
        return found

    def add(self, blocks: Int32[np.ndarray, "b"]) -> None:
        """Have the blocks, no two of which are the same, made anew, but those without voxels."""
        blocks = blocks[self._volume.pool.holds(blocks)]
        if len(self._waits) < self._volume.block_count:
            more = 2 * self._volume.block_count - len(self._waits)
            self._waits = np.concatenate([self._waits, np.zeros(more, bool)])
        new = blocks[~self._waits[blocks]]
        self._waits[new] = True
        for chunk, part in by_chunk(new, self._volume.coords(new)):
            own = part.copy()  # a slice would keep the blocks of all chunks
            self._of_chunk.setdefault(chunk, []).append(own)

    def let_go(self, blocks: Int32[np.ndarray, "b"]) -> None:
        """Those of the blocks that wait do so no longer."""
        gone = blocks[self.has(blocks)]
        self._waits[gone] = False
        for chunk in np.unique(chunks_of(self._volume.coords(gone))).tolist():
            held = np.concatenate(self._of_chunk[chunk])
            left = held[self._waits[held]]
            if len(left):
                self._of_chunk[chunk] = [left]
            else:
                del self._of_chunk[chunk]

    def next_chunks(self) -> list[int]:
        """Some chunks with waiting blocks, of which there are any: nearest first, and now and then
        the one that waits longest before them."""
        nearest = self._by_distance()
        self._turns += 1
        if self._turns % LONGEST_FIRST_EVERY:
            return nearest
        longest = next(iter(self._of_chunk))
        return [longest, *(chunk for chunk in nearest if chunk != longest)]

    def take(self, chunk: int, most: int) -> Int32[np.ndarray, "n"]:
        """Up to `most` of a chunk's waiting blocks, which wait no longer."""
        blocks = np.sort(np.concatenate(self._of_chunk.pop(chunk)))
        if len(blocks) > most:
            self._of_chunk[chunk] = [blocks[most:]]
        taken = blocks[:most].astype(np.int32)
        self._waits[taken] = False
        return taken

    def _by_distance(self) -> list[int]:
        keys = np.fromiter(self._of_chunk, np.int64, len(self._of_chunk))
        place = np.stack([keys >> 40, keys >> 20 & 0xFFFFF, keys & 0xFFFFF], axis=-1) - CHUNK_BIAS
        gap = (place + 0.5) * CHUNK_BLOCKS - self.near
        distance = (gap * gap).sum(axis=-1)
        some = min(CHUNKS_AT_ONCE, len(keys))
        nearest = np.argpartition(distance, some - 1)[:some]
        return [int(key) for key in keys[nearest[np.argsort(distance[nearest])]]]


def chunks_of(coords: Int32[np.ndarray, "b 3"]) -> Int64[np.ndarray, "b"]:
    """Key of the chunk that the block at each of these block indices is in."""
    x, y, z = (coords // CHUNK_BLOCKS + CHUNK_BIAS).T.astype(np.int64)
    return np.asarray((x << 40) | (y << 20) | z)


def by_chunk(
    values: Int[np.ndarray, "n"], coords: Int32[np.ndarray, "n 3"]
) -> Iterator[tuple[int, Int[np.ndarray, "m"]]]:
    """Values that belong to blocks at these block indices, split by the chunk of the block."""
    if not len(values):
        return
    chunks = chunks_of(coords)
    order = np.argsort(chunks, kind="stable")
    chunks, values = chunks[order], values[order]
    begins = [0, *(np.flatnonzero(chunks[1:] != chunks[:-1]) + 1).tolist(), len(chunks)]
    for begin, end in pairwise(begins):
        yield int(chunks[begin]), values[begin:end]
