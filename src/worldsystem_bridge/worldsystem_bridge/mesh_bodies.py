# SPDX-License-Identifier: Apache-2.0
"""The surface for consumers of `mesh_update_exchange`: Draco meshes in base64, in JSON."""

from __future__ import annotations

import base64
import json
from collections import defaultdict
from collections.abc import Iterable

import numpy as np

from worldsystem_bridge import exchanges
from worldsystem_bridge.bodies import JSON
from worldsystem_bridge.exchanges import Message
from worldsystem_core.errors import MissingDependency
from worldsystem_core.surface import BlockIndex, Mesh, MeshBlock, MeshDelta, join_blocks

_POSITION_BITS = 14


class Regions:
    """The surface as it stands, in cubes of `edge` blocks; a block always replaces its like."""

    def __init__(self, edge: int) -> None:
        self._edge = edge
        self._regions: dict[BlockIndex, dict[BlockIndex, MeshBlock]] = defaultdict(dict)
        self._ever: set[BlockIndex] = set()

    def apply(self, delta: MeshDelta) -> set[BlockIndex]:
        """Take what changed; the regions in which it did."""
        changed = {self.of(index) for index in delta.removed}
        for index in delta.removed:
            self._regions[self.of(index)].pop(index, None)
        for block in delta.blocks:
            region = self.of(block.index)
            self._regions[region][block.index] = block
            changed.add(region)
        for region in changed:
            if not self._regions[region]:
                del self._regions[region]
        self._ever |= changed
        return changed

    def of(self, index: BlockIndex) -> BlockIndex:
        """The region that block `index` lies in."""
        x, y, z = (int(i) // self._edge for i in index)
        return x, y, z

    def blocks(self, region: BlockIndex) -> list[MeshBlock]:
        """The blocks of one region; none where it has no surface (any more)."""
        return list(self._regions.get(region, {}).values())

    def all_blocks(self) -> list[MeshBlock]:
        return [block for region in self._regions.values() for block in region.values()]

    def names(self) -> list[str]:
        return sorted(name_of(region) for region in self._regions)

    def ever(self) -> list[BlockIndex]:
        """Those that ever changed, also where there is no surface any more."""
        return sorted(self._ever)


def name_of(region: BlockIndex) -> str:
    """`x_y_z`, as routing keys end."""
    return "_".join(str(i) for i in region)


def mesh_messages(
    kind: str, blocks: Iterable[MeshBlock], regions: list[str], *, stamp_ns: int, level: int
) -> list[Message]:
    """`mesh.<kind>`, and for a delta the same on the mesh stream."""
    body = _body(blocks, regions, stamp_ns, level)
    message = _update(kind, body)
    return [message, _streamed(body)] if kind == "delta" else [message]


def whole_messages(
    blocks: Iterable[MeshBlock], regions: list[str], *, stamp_ns: int, level: int
) -> list[Message]:
    """`mesh.full`, and the same as a delta on the mesh stream, which has no other kind."""
    body = _body(blocks, regions, stamp_ns, level)
    return [_update("full", body), _streamed(body)]


def _body(
    blocks: Iterable[MeshBlock], regions: list[str], stamp_ns: int, level: int
) -> dict[str, object]:
    mesh = join_blocks([block for block in blocks if len(block.faces)])
    return {
        "timestamp_ns": stamp_ns,
        "format": "ply_compressed",
        "compression": "draco",
        "data": base64.b64encode(draco(mesh, level)).decode(),
        "regions_updated": regions,
        "vertex_count": len(mesh.vertices),
        "face_count": len(mesh.faces),
    }


def _update(kind: str, body: dict[str, object]) -> Message:
    key = f"mesh.{kind}"
    return Message(exchanges.MESH_UPDATES.name, key, _packed(key, body), JSON)


def _streamed(body: dict[str, object]) -> Message:
    return Message(exchanges.MESH_STREAM.name, "", _packed("mesh.delta", body), JSON)


def _packed(kind: str, body: dict[str, object]) -> bytes:
    return json.dumps({"type": kind} | body).encode()


def draco(mesh: Mesh, level: int) -> bytes:
    """`mesh` with its colours as one Draco mesh, 14 bits an axis over its longest edge.

    Empty for a mesh without faces, which Draco cannot express.
    """
    if not len(mesh.faces):
        return b""
    try:
        import DracoPy
    except ImportError as error:
        raise MissingDependency("DracoPy", "mesh.delta", "pip install DracoPy") from error
    packed: bytes = DracoPy.encode(
        mesh.vertices.astype(np.float32),
        mesh.faces.astype(np.uint32),
        quantization_bits=_POSITION_BITS,
        compression_level=level,
        colors=np.ascontiguousarray(mesh.colours),
    )
    return packed
