# SPDX-License-Identifier: Apache-2.0
"""One page that looks back: the world as it was, sent as differences to what the page shows."""

from __future__ import annotations

import asyncio
import time

import numpy as np

from worldsystem_core.mesh_code.code import encode as encode_blocks
from worldsystem_core.mesh_stream.catalogue import BLOCK_VOXELS
from worldsystem_core.objects import MapObjects, TrackFrame
from worldsystem_core.surface import BlockIndex, MeshBlock
from worldsystem_viewer.history import History, differences
from worldsystem_viewer.line_share import LineShare
from worldsystem_viewer.mesh_message import MeshChange
from worldsystem_viewer.page_messages import objects_message, tracks_message
from worldsystem_viewer.protocol import MeshCode, Message, encode
from worldsystem_viewer.world import World

_BLOCKS_AT_ONCE = 400
_GUESSED_BYTES_PER_VERTEX = 2.5
_NOTHING: dict[str, Message] = {
    "objects": objects_message(MapObjects(stamp_ns=0, objects=())),
    "tracks": tracks_message(
        TrackFrame(frame_id=0, keyframe_id=0, stamp_ns=0, tracks=(), labels=np.zeros((0, 0), "u2"))
    ),
}


class Rewind:
    """Where one page looks and what it shows; used by the server's loop alone.

    The first look sends everything that was there then, since what the page had is not known.
    """

    def __init__(self, world: World, history: History, *, coded: bool, mbps: float) -> None:
        self._world = world
        self._history = history
        self._coded = coded
        self._share = LineShare(mbps if coded else 0.0)
        self._held: dict[BlockIndex, MeshBlock | None] = {}
        self._wanted: dict[BlockIndex, MeshBlock | None] = {}
        self._block_size = 0.0
        self._told = -1, True  # when it was looked at, and whether with the picture
        self._wanted_ns = self._complete_ns = -1
        self.at_ns = -1

    def states(self, *, image: bool = True) -> list[Message]:
        """The states that were the newest then, without the picture unless `image`; none when told
        already. What there was nothing of then is told as empty: the page shows what is of now."""
        if self._told in ((self.at_ns, image), (self.at_ns, True)):
            return []
        self._told = self.at_ns, image
        found = _NOTHING | self._history.states_at(self.at_ns)
        if not image:
            found.pop("image", None)
        return [*found.values(), self._world.path_at(self.at_ns)]

    async def surface(self) -> list[bytes]:
        """A part of what is different on the surface, nearest to the camera first."""
        if self._complete_ns == self.at_ns or not self._share.ready(time.monotonic()):
            return []
        if self._wanted_ns != self.at_ns:
            self._wanted_ns = self.at_ns
            found, self._block_size = await asyncio.to_thread(self._history.surface_at, self.at_ns)
            # a history that was begun anew does not know all that is shown
            self._wanted = dict.fromkeys(self._held) | found
        blocks, removed = differences(self._held, self._wanted.items())
        if not blocks and not removed:
            self._complete_ns = self.at_ns
            return []
        blocks = self._nearest(blocks)
        for index in removed:
            self._held[index] = None
        for block in blocks:
            self._held[block.index] = block
        data = await asyncio.to_thread(self._encoded, blocks, removed)
        self._share.charge(len(data))
        return [data]

    def leave(self) -> bytes:
        """Take away what is not there now; the newest surface is to be sent anew after it."""
        now = self._history.blocks_at(self._history.span_ns[1])
        gone = {index for index, block in self._held.items() if block and not now.get(index)}
        gone |= {index for index, block in now.items() if block is None}  # it may be of before
        self._held.clear()
        self._complete_ns = -1
        return encode(self._message([], sorted(gone)))

    def _nearest(self, blocks: list[MeshBlock]) -> list[MeshBlock]:
        viewpoint, edge = self._world.viewpoint, self._block_size
        if viewpoint is not None and len(blocks) > _BLOCKS_AT_ONCE:
            centres = (np.array([block.index for block in blocks]) + 0.5) * edge
            order = np.argsort(np.linalg.norm(centres - viewpoint, axis=1))
            blocks = [blocks[at] for at in order]
        count, room = 0, self._share.room() / _GUESSED_BYTES_PER_VERTEX
        while count < min(len(blocks), _BLOCKS_AT_ONCE) and (count == 0 or room > 0):
            room -= len(blocks[count].vertices)
            count += 1
        return blocks[:count]

    def _encoded(self, blocks: list[MeshBlock], removed: list[BlockIndex]) -> bytes:
        return encode(self._message(blocks, removed))

    def _message(self, blocks: list[MeshBlock], removed: list[BlockIndex]) -> Message:
        codable = all(block.edges is not None for block in blocks)
        if not (self._coded and codable and blocks):
            return MeshChange(
                since=0, change=0, blocks=tuple(blocks), removed=tuple(removed), totals=(0, 0)
            ).to_message()
        return MeshCode(
            change=0,
            total_vertices=0,
            total_faces=0,
            removed=np.array(removed, np.int32).reshape(-1, 3),
            code=np.frombuffer(encode_blocks(blocks, self._block_size / BLOCK_VOXELS), np.uint8),
        )
