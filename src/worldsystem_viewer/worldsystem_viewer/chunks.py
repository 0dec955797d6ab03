# SPDX-License-Identifier: Apache-2.0
"""Blocks of the surface in chunks of 4 × 4 × 4: viewers draw tens of parts, not thousands."""

from __future__ import annotations

import threading
from collections import OrderedDict

from worldsystem_core.surface import BlockIndex, Mesh, MeshBlock, MeshDelta, join_blocks

_CHUNK_BLOCKS = 4
_BYTES_PER_VERTEX = 40  # with its share of faces
ChunkIndex = tuple[int, int, int]


class ChunkedSurface:
    """The current surface by chunk, and which chunks have changed since they were last taken.

    Written by the pipeline's thread, taken by a viewer's; holds references only. Above `most_bytes`
    the blocks that changed longest ago go, to 90 %, as if they had been removed.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._lock = threading.Lock()
        self._chunks: dict[ChunkIndex, dict[BlockIndex, MeshBlock]] = {}
        self._sizes: OrderedDict[BlockIndex, int] = OrderedDict()  # what changed last is last
        self._bytes = 0
        self._changed: dict[ChunkIndex, None] = {}

    @property
    def bytes(self) -> int:
        """What the blocks take that are held."""
        with self._lock:
            return self._bytes

    @property
    def changed(self) -> int:
        """How many chunks are to be taken."""
        with self._lock:
            return len(self._changed)

    def apply(self, delta: MeshDelta) -> None:
        """Take changed and removed blocks."""
        with self._lock:
            for index in delta.removed:
                self._remove(index)
            for block in delta.blocks:
                self._remove(block.index)
                self._add(block)
            if self._bytes > self._most_bytes:
                self._let_go_of_old()

    def mark_all_changed(self) -> None:
        """Everything is to be shown again, for a viewer that came late."""
        with self._lock:
            self._changed.update(dict.fromkeys(self._chunks))

    def take_changed(self) -> tuple[ChunkIndex, Mesh] | None:
        """One changed chunk and its surface, which is empty when the chunk is gone; None: none."""
        with self._lock:
            if not self._changed:
                return None
            chunk = next(iter(self._changed))
            del self._changed[chunk]
        return chunk, self.mesh_of(chunk)

    def mesh_of(self, chunk: ChunkIndex) -> Mesh:
        """A chunk's surface as it is now."""
        with self._lock:
            blocks = list(self._chunks.get(chunk, {}).values())
            if not blocks:
                self._chunks.pop(chunk, None)
        return join_blocks(blocks)

    def _add(self, block: MeshBlock) -> None:
        chunk, size = chunk_of(block.index), _BYTES_PER_VERTEX * block.vertex_count
        self._chunks.setdefault(chunk, {})[block.index] = block
        self._changed[chunk] = None
        self._sizes[block.index] = size
        self._bytes += size

    def _remove(self, index: BlockIndex) -> None:
        size = self._sizes.pop(index, None)
        if size is None:
            return
        chunk = chunk_of(index)
        del self._chunks[chunk][index]
        self._changed[chunk] = None
        self._bytes -= size

    def _let_go_of_old(self) -> None:
        while self._bytes > 0.9 * self._most_bytes:
            self._remove(next(iter(self._sizes)))


def chunk_of(index: BlockIndex) -> ChunkIndex:
    """The chunk that a block belongs to."""
    x, y, z = (part // _CHUNK_BLOCKS for part in index)
    return x, y, z
