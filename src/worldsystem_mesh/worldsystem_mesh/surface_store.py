# SPDX-License-Identifier: Apache-2.0
"""The mesh as blocks with versions: what every client's copy should look like."""

from __future__ import annotations

from collections.abc import Iterable

from worldsystem_core.surface import BlockIndex, MeshBlock
from worldsystem_mesh.extraction import BlockSurface


class SurfaceStore:
    """Newest mesh of every block; a block's version is the sequence number of its last change.

    `removed` remembers when blocks lost their surface, for clients that catch up.
    """

    def __init__(self) -> None:
        self.sequence = 0
        self.blocks: dict[BlockIndex, MeshBlock] = {}
        self.removed: dict[BlockIndex, int] = {}
        self.vertex_count = 0
        self.face_count = 0

    @property
    def bytes(self) -> int:
        """Memory that vertices (place and colour) and faces take."""
        return 15 * self.vertex_count + 12 * self.face_count

    def update(
        self, surfaces: Iterable[BlockSurface]
    ) -> tuple[tuple[MeshBlock, ...], tuple[BlockIndex, ...]]:
        """Take in new surfaces; return the blocks that differ and those that are gone.

        The sequence number grows by one when there are any.
        """
        version = self.sequence + 1
        changed: list[MeshBlock] = []
        gone: list[BlockIndex] = []
        for surface in surfaces:
            old = self.blocks.get(surface.index)
            if len(surface.faces) == 0:
                if old is not None:
                    self._drop(old, version)
                    gone.append(surface.index)
            elif old is None or _differs(old, surface):
                changed.append(self._replace(old, surface, version))
        if changed or gone:
            self.sequence = version
        return tuple(changed), tuple(gone)

    def newer_than(self, sequence: int) -> tuple[tuple[MeshBlock, ...], tuple[BlockIndex, ...]]:
        """Blocks changed, and blocks gone, after `sequence`."""
        blocks = tuple(block for block in self.blocks.values() if block.version > sequence)
        gone = tuple(index for index, at in self.removed.items() if at > sequence)
        return blocks, gone

    def _replace(self, old: MeshBlock | None, surface: BlockSurface, version: int) -> MeshBlock:
        block = MeshBlock(
            index=surface.index,
            version=version,
            vertices=surface.vertices,
            colours=surface.colours,
            faces=surface.faces,
        )
        if old is not None:
            self._count(old, -1)
        self._count(block, 1)
        self.blocks[block.index] = block
        self.removed.pop(block.index, None)
        return block

    def _drop(self, block: MeshBlock, version: int) -> None:
        self._count(block, -1)
        del self.blocks[block.index]
        self.removed[block.index] = version

    def _count(self, block: MeshBlock, sign: int) -> None:
        self.vertex_count += sign * len(block.vertices)
        self.face_count += sign * len(block.faces)


def _differs(old: MeshBlock, new: BlockSurface) -> bool:
    if len(old.vertices) != len(new.vertices) or len(old.faces) != len(new.faces):
        return True
    return bool(
        (old.vertices != new.vertices).any()
        or (old.colours != new.colours).any()
        or (old.faces != new.faces).any()
    )
