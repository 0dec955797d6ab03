# SPDX-License-Identifier: Apache-2.0
"""A delta as it goes over a thin line: encoded, numbered, some of its blocks coarse."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from worldsystem_core.mesh_code.code import encode
from worldsystem_core.mesh_code.draco import encode_draco
from worldsystem_core.mesh_levels import LEVELS, clustered
from worldsystem_core.surface import MeshBlock, MeshDelta


class MeshEncoding(Enum):
    """How blocks are written; the values are those of `worldsystem_msgs/MeshDelta`."""

    RAW = 0
    DRACO = 1
    CODE = 2


@dataclass(frozen=True, kw_only=True, eq=False)
class StreamedDelta:
    """`delta` with its blocks encoded: `code` for all together, or `payloads` one by one, or raw.

    `delta.sequence` is the sequence up to which the receiver now has everything at full level, if
    it has got every `part`; what came later it may have, too.
    """

    delta: MeshDelta
    part: int
    encoding: MeshEncoding
    code: bytes = b""
    payloads: tuple[bytes, ...] = ()

    @property
    def bytes(self) -> int:
        """About what the message takes, without the head of the transport."""
        blocks = self.delta.blocks if self.encoding is not MeshEncoding.CODE else ()
        is_raw = self.encoding is MeshEncoding.RAW
        data = sum(map(_raw_bytes, blocks)) if is_raw else sum(map(len, self.payloads))
        return 100 + len(self.code) + data + 32 * len(blocks) + 12 * len(self.delta.removed)


def _raw_bytes(block: MeshBlock) -> int:
    lattice = 0 if block.cells is None else 4 * len(block.vertices) + 3 * len(block.cells)
    return 15 * len(block.vertices) + 12 * len(block.faces) + lattice


def streamed(
    delta: MeshDelta, encoding: MeshEncoding, *, level: int = 0, part: int = 0
) -> StreamedDelta:
    """Encode `delta`'s level-0 blocks at `level`.

    Raises ValueError for a level that is not known, also without blocks, and when a block lacks the
    lattice form that the code and coarse levels need.
    """
    if level not in LEVELS:
        raise ValueError(f"level {level} is not known; known: {', '.join(map(str, LEVELS))}")
    if encoding is MeshEncoding.CODE:
        code = encode(delta.blocks, delta.block_size / 8.0, level) if len(delta.blocks) else b""
        return StreamedDelta(delta=delta, part=part, encoding=encoding, code=code)
    blocks: Sequence[MeshBlock] = clustered(delta.blocks, level) if level else delta.blocks
    coarse = delta.with_blocks(blocks)
    if encoding is MeshEncoding.RAW:
        return StreamedDelta(delta=coarse, part=part, encoding=encoding)
    payloads = tuple(encode_draco(block, delta.block_size) for block in blocks)
    return StreamedDelta(delta=coarse, part=part, encoding=encoding, payloads=payloads)
