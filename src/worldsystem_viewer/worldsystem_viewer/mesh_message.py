# SPDX-License-Identifier: Apache-2.0
"""Mesh blocks to and from the page's binary message."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from worldsystem_core.mesh_code.code import decode
from worldsystem_core.surface import BlockIndex, MeshAssembly, MeshBlock, stack_blocks
from worldsystem_viewer.protocol import MeshCode, MeshUpdate


@dataclass(frozen=True, kw_only=True, eq=False)
class MeshChange:
    """What changed on the surface between the change numbers `since` and `change`."""

    since: int
    change: int
    blocks: tuple[MeshBlock, ...]
    removed: tuple[BlockIndex, ...]
    totals: tuple[int, int]

    def to_message(self) -> MeshUpdate:
        """All blocks one behind the other."""
        blocks = stack_blocks(self.blocks)
        return MeshUpdate(
            change=self.change,
            total_vertices=self.totals[0],
            total_faces=self.totals[1],
            removed=np.array(self.removed, np.int32).reshape(-1, 3),
            index=blocks.index,
            vertex_count=blocks.vertex_count.view(np.uint32),
            face_count=blocks.face_count.view(np.uint32),
            vertices=blocks.vertices.astype(np.float32, copy=False),
            colours=blocks.colours,
            faces=blocks.faces.view(np.uint32),
        )


def apply_update(assembly: MeshAssembly, update: MeshUpdate) -> None:
    """What a page does with a mesh message, for clients in Python."""
    for index in update.removed.tolist():
        assembly.blocks.pop(tuple(index), None)
    vertex_ends = np.cumsum(update.vertex_count)
    face_ends = np.cumsum(update.face_count)
    for at, index in enumerate(update.index.tolist()):
        vertices = slice(int(vertex_ends[at] - update.vertex_count[at]), int(vertex_ends[at]))
        faces = slice(int(face_ends[at] - update.face_count[at]), int(face_ends[at]))
        assembly.blocks[tuple(index)] = MeshBlock(
            index=tuple(index),
            version=update.change,
            vertices=update.vertices[vertices],
            colours=update.colours[vertices],
            faces=update.faces[faces].astype(np.int32),
        )
    assembly.sequence = update.change


def apply_code(assembly: MeshAssembly, message: MeshCode) -> None:
    """What a page does with a mesh message in the block code, for clients in Python."""
    for index in message.removed.tolist():
        assembly.blocks.pop(tuple(index), None)
    for block in decode(message.code.tobytes()) if len(message.code) else ():
        assembly.blocks[block.index] = block
    assembly.sequence = message.change
