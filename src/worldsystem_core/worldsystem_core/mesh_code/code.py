# SPDX-License-Identifier: Apache-2.0
"""Blocks of one level to and from bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from worldsystem_core.mesh_code.cells import SurfaceCells
from worldsystem_core.mesh_code.clusters import decode_clusters, encode_clusters
from worldsystem_core.mesh_code.container import unpacked
from worldsystem_core.mesh_code.lattice import decode_lattice, encode_lattice
from worldsystem_core.mesh_levels import clustered
from worldsystem_core.surface import MeshBlock


@runtime_checkable
class CodedBlocks(Protocol):
    """Blocks that know their lattice form in columns: they need not be drawn to be coded."""

    cells: SurfaceCells


def encode(blocks: Sequence[MeshBlock], voxel: float, level: int = 0) -> bytes:
    """The code of level-0 `blocks`, at `level`, for a voxel edge of `voxel` [world units].

    Neighbours next to each other in `blocks` share more. Raises ValueError for a block without its
    lattice form.
    """
    if level == 0:
        columns = blocks.cells if isinstance(blocks, CodedBlocks) else SurfaceCells.of(blocks)
        return encode_lattice(columns, voxel)
    return encode_clusters(clustered(blocks, level), level, voxel)


def decode(data: bytes) -> list[MeshBlock]:
    """The blocks in a code, places to 1/128 voxel; raises `ProtocolError` when it is damaged."""
    head, reader = unpacked(data)
    if head.level == 0:
        return decode_lattice(head, reader).blocks(head.voxel)
    return decode_clusters(head, reader)
