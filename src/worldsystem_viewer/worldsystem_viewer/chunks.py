# SPDX-License-Identifier: Apache-2.0
"""Blocks of the surface in chunks of 4 × 4 × 4: viewers draw tens of parts, not thousands."""

from __future__ import annotations

import threading

from worldsystem_core.surface import BlockIndex, Mesh, MeshBlock, MeshDelta, join_blocks

_CHUNK_BLOCKS = 4
ChunkIndex = tuple[int, int, int]


class ChunkedSurface:
    """The current surface by chunk, and which chunks have changed since they were last taken.

    Written by the pipeline's thread, taken by a viewer's; holds references only.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._chunks: dict[ChunkIndex, dict[BlockIndex, MeshBlock]] = {}
        self._changed: dict[ChunkIndex, None] = {}

    def apply(self, delta: MeshDelta) -> None:
        """Take changed and removed blocks."""
        with self._lock:
            for index in delta.removed:
                chunk = chunk_of(index)
                if self._chunks.get(chunk, {}).pop(index, None) is not None:
                    self._changed[chunk] = None
            for block in delta.blocks:
                chunk = chunk_of(block.index)
                self._chunks.setdefault(chunk, {})[block.index] = block
                self._changed[chunk] = None

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
            blocks = list(self._chunks.get(chunk, {}).values())
            if not blocks:
                self._chunks.pop(chunk, None)
        return chunk, join_blocks(blocks)


def chunk_of(index: BlockIndex) -> ChunkIndex:
    """The chunk that a block belongs to."""
    x, y, z = (part // _CHUNK_BLOCKS for part in index)
    return x, y, z
