# SPDX-License-Identifier: Apache-2.0
"""The newest surface, block by block, as those who send it need it: columns by block number."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float32, Int, Int32, Int64

from worldsystem_core.surface import BlockIndex, MeshBlock, MeshDelta, is_same_size

BLOCK_VOXELS = 8
_FIRST_CAPACITY = 1024


class SurfaceCatalogue:
    """Every block's newest mesh under a number that it keeps; a removed block keeps it, too.

    `change` grows with each delta. One thread at a time.
    """

    def __init__(self) -> None:
        self.change = 0
        self.block_size = 0.0
        self.totals = (0, 0)
        self._number: dict[BlockIndex, int] = {}
        self._blocks: list[MeshBlock | None] = []
        self._index = np.zeros((_FIRST_CAPACITY, 3), np.int32)
        self._changed = np.zeros(_FIRST_CAPACITY, np.int64)
        self._vertices = np.zeros(_FIRST_CAPACITY, np.int32)
        self._codable = np.zeros(_FIRST_CAPACITY, bool)

    def __len__(self) -> int:
        """Numbers given so far."""
        return len(self._blocks)

    @property
    def voxel(self) -> float:
        """Edge of a voxel [world units]; 0 before the first delta."""
        return self.block_size / BLOCK_VOXELS

    @property
    def index(self) -> Int32[np.ndarray, "n 3"]:
        """Place of each block."""
        return self._index[: len(self)]

    @property
    def changed(self) -> Int64[np.ndarray, "n"]:
        """Change at which each block became what it is."""
        return self._changed[: len(self)]

    @property
    def vertices(self) -> Int32[np.ndarray, "n"]:
        """Vertices of each block; 0: it has no surface any more."""
        return self._vertices[: len(self)]

    @property
    def codable(self) -> Bool[np.ndarray, "n"]:
        """Blocks in lattice form; others can only be sent raw."""
        return self._codable[: len(self)]

    def apply(self, delta: MeshDelta, change: int = 0) -> None:
        """Take in what changed; `change` (0: the next one) is not less than the last."""
        self.change = max(change, self.change) if change else self.change + 1
        if not is_same_size(delta.block_size, self.block_size):
            self.block_size = delta.block_size
        self.totals = (delta.total_vertices, delta.total_faces)
        for index in delta.removed:
            if index in self._number:
                self._drop(self._number[index])
        blocks = list(delta.blocks)
        numbers = [self._number_of(block.index) for block in blocks]
        for number, block in zip(numbers, blocks, strict=True):
            self._blocks[number] = block
        self._changed[numbers] = self.change
        self._vertices[numbers] = [block.vertex_count for block in blocks]
        self._codable[numbers] = [block.has_lattice for block in blocks]

    def blocks(self, numbers: Int[np.ndarray, "n"]) -> list[MeshBlock]:
        """The meshes of those of these blocks that have one: n or fewer."""
        found = (self._blocks[number] for number in numbers.tolist())
        return [block for block in found if block is not None]

    def distances(
        self, numbers: Int[np.ndarray, "n"], viewpoint: Float32[np.ndarray, "3"]
    ) -> Float32[np.ndarray, "n"]:
        """From `viewpoint` (world) to the blocks' centres [world units]."""
        centres = (self._index[numbers] + 0.5) * self.block_size
        return np.asarray(np.linalg.norm(centres - viewpoint, axis=1), np.float32)

    def _number_of(self, index: BlockIndex) -> int:
        number = self._number.setdefault(index, len(self._blocks))
        if number == len(self._blocks):
            self._blocks.append(None)
            if number == len(self._changed):
                self._grow()
            self._index[number] = index
        return number

    def _drop(self, number: int) -> None:
        self._blocks[number] = None
        self._changed[number] = self.change
        self._vertices[number] = 0
        self._codable[number] = False

    def _grow(self) -> None:
        for name in ("_index", "_changed", "_vertices", "_codable"):
            old = getattr(self, name)
            setattr(self, name, np.concatenate([old, np.zeros_like(old)]))
