# SPDX-License-Identifier: Apache-2.0
"""The surface for the website of the system before: JSON with PLY or Draco, on `/ws/mesh`.

The first message is `full`; then come `delta`s, each with the whole surface of the regions that
changed, which it names in `regions_updated`: a client drops what it has there and takes `data`
instead. A region is a cube of 4 × 4 × 4 blocks. `?format=ply` sends PLY instead of Draco,
`?parts=1` one `region` message for each region instead of a `delta`.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import time
from collections import defaultdict
from typing import Any

import numpy as np
from aiohttp import web

from worldsystem_core.errors import MissingDependency
from worldsystem_core.surface import BlockIndex, Mesh, MeshBlock, join_blocks
from worldsystem_viewer.chunks import ChunkIndex, chunk_of
from worldsystem_viewer.line_share import LineShare
from worldsystem_viewer.world import World

log = logging.getLogger(__name__)
_PERIOD_S = 0.5
_SEND_TIMEOUT_S, _SLOWEST_MBPS = 30.0, 0.25
_BATCH_VERTICES = 200_000
_QUANTISATION_BITS = 14
_LEVEL = 7


class WebsiteMesh:
    """One client of the old website; `mbps` is kept on average (0: no limit)."""

    def __init__(self, world: World, mbps: float, query: Any) -> None:
        self._world = world
        self._share = LineShare(mbps)
        self._ply = query.get("format") == "ply"
        self._parts = query.get("parts") == "1"
        self._change = 0
        self._regions: dict[ChunkIndex, dict[BlockIndex, MeshBlock]] = defaultdict(dict)
        self._told_full = False

    async def run(self, socket: web.WebSocketResponse) -> None:
        """Send until the client goes."""
        while not socket.closed:
            if self._share.ready(time.monotonic()) and (changed := self._follow()):
                for text in await asyncio.to_thread(self._messages, changed):
                    self._share.charge(len(text))
                    patience_s = _SEND_TIMEOUT_S + 8e-6 * len(text) / _SLOWEST_MBPS
                    await asyncio.wait_for(socket.send_str(text), patience_s)
            await asyncio.sleep(_PERIOD_S)

    def _follow(self) -> list[ChunkIndex]:
        """Take in what is new, and name the regions it is in."""
        changed: dict[ChunkIndex, None] = {}
        until = self._world.change
        while self._change < until:
            change = self._world.newer_mesh(self._change, _BATCH_VERTICES, until)
            self._change = change.change
            for index in change.removed:
                region = chunk_of(index)
                if self._regions.get(region, {}).pop(index, None) is not None:
                    changed[region] = None
            for block in change.blocks:
                region = chunk_of(block.index)
                self._regions[region][block.index] = block
                changed[region] = None
        return list(changed)

    def _messages(self, changed: list[ChunkIndex]) -> list[str]:
        if not self._told_full:
            self._told_full = True
            whole = [block for blocks in self._regions.values() for block in blocks.values()]
            return [self._message("full", list(self._regions), join_blocks(whole))]
        if self._parts:
            return [
                self._message("region", [region], self._surface([region])) for region in changed
            ]
        return [self._message("delta", changed, self._surface(changed))]

    def _surface(self, regions: list[ChunkIndex]) -> Mesh:
        blocks = [block for region in regions for block in self._regions[region].values()]
        for region in regions:
            if not self._regions[region]:
                del self._regions[region]
        return join_blocks(blocks)

    def _message(self, kind: str, regions: list[ChunkIndex], mesh: Mesh) -> str:
        data = b"" if not len(mesh.faces) else _ply(mesh) if self._ply else _draco(mesh)
        return json.dumps(
            {
                "type": kind,
                "timestamp_ns": time.time_ns(),
                "format": "ply" if self._ply else "ply_compressed",
                "compression": "none" if self._ply else "draco",
                "data": base64.b64encode(data).decode(),
                "regions_updated": [list(region) for region in regions],
                "vertex_count": len(mesh.vertices),
                "face_count": len(mesh.faces),
            }
        )


def _ply(mesh: Mesh) -> bytes:
    """Binary PLY, double vertices left as they are."""
    import trimesh  # a second; a viewer that is begun anew must not wait for it

    made = trimesh.Trimesh(mesh.vertices, mesh.faces, vertex_colors=mesh.colours, process=False)
    return bytes(made.export(file_type="ply"))


def _draco(mesh: Mesh) -> bytes:
    try:
        import DracoPy
    except ImportError as error:
        raise MissingDependency("DracoPy", "Draco messages", "pip install DracoPy") from error
    return bytes(
        DracoPy.encode(
            mesh.vertices.astype(np.float32),
            faces=mesh.faces.astype(np.uint32),
            colors=mesh.colours,
            quantization_bits=_QUANTISATION_BITS,
            compression_level=_LEVEL,
        )
    )
