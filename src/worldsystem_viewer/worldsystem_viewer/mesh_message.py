# SPDX-License-Identifier: Apache-2.0
"""Mesh blocks to and from the page's binary message."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from worldsystem_core.mesh_code.code import decode
from worldsystem_core.surface import BlockIndex, MeshAssembly, MeshBlock
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
        blocks = self.blocks
        return MeshUpdate(
            change=self.change,
            total_vertices=self.totals[0],
            total_faces=self.totals[1],
            removed=np.array(self.removed, np.int32).reshape(-1, 3),
            index=np.array([block.index for block in blocks], np.int32).reshape(-1, 3),
            vertex_count=np.array([len(block.vertices) for block in blocks], np.uint32),
            face_count=np.array([len(block.faces) for block in blocks], np.uint32),
            vertices=_stacked([block.vertices for block in blocks], np.dtype(np.float32)),
            colours=_stacked([block.colours for block in blocks], np.dtype(np.uint8)),
            faces=_stacked([block.faces for block in blocks], np.dtype(np.uint32)),
        )


def _stacked(arrays: list[np.ndarray], dtype: np.dtype) -> np.ndarray:
    if not arrays:
        return np.zeros((0, 3), dtype)
    return np.concatenate(arrays).astype(dtype, copy=False)


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
