# SPDX-License-Identifier: Apache-2.0
"""Splats for web pages: a WebSocket of their own, which a page opens when it wants to see them.

So splats cost no byte of a line on which nobody looks at them, and never hold up the surface.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from aiohttp import WSMsgType, web
from jaxtyping import Float32

from worldsystem_core.geometry.sim3 import Sim3
from worldsystem_core.splats.delta import SplatDelta, SplatOperation
from worldsystem_core.splats.packed import deflate
from worldsystem_core.web_socket import HEARTBEAT_S, accept
from worldsystem_viewer.page_files import asked_from
from worldsystem_viewer.protocol import SplatsUpdate, encode

log = logging.getLogger(__name__)
_LOOPBACK = ("127.0.0.1", "::1")
_PERIOD_S = 0.05
_SEND_TIMEOUT_S = 30.0
_BURST_S = 1.0
_CACHED_MESSAGES = 256
_WRITE_BUFFER_BYTES = 256 * 1024
_NOTHING = np.zeros(0, np.uint8)


@dataclass(frozen=True, eq=False)
class Shelved:
    """The newest of one chunk; versions of what it holds and of where it lies."""

    delta: SplatDelta
    world_from_chunk: Sim3
    splats_version: int
    place_version: int


class SplatShelf:
    """The newest chunks, written by the pipeline's thread and read by the server's."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._chunks: dict[int, Shelved] = {}
        self._version = 0
        self._void_version = 0
        self._sequence = 0
        self._stale: set[int] = set()
        self._lacks_something = True
        self.total = 0

    def take_lack(self) -> bool:
        """Whether there may be chunks that were never told here; said once."""
        with self._lock:
            lacks, self._lacks_something = self._lacks_something, False
            return lacks

    def apply(self, delta: SplatDelta) -> None:
        """Take a change; number 1 voids what was told before, which stays in sight until as many
        splats are there as the world has."""
        with self._lock:
            if delta.sequence == 1:
                self._stale = set(self._chunks)
                self._lacks_something = False
            elif delta.sequence != self._sequence + 1:
                self._lacks_something = True
            self._sequence = delta.sequence
            self._version += 1
            self.total = delta.total
            known = self._chunks.pop(delta.chunk, None)
            if delta.operation is SplatOperation.PUT:
                self._chunks[delta.chunk] = Shelved(
                    delta, delta.world_from_chunk, self._version, self._version
                )
            elif delta.operation is SplatOperation.POSE and known is not None:
                self._chunks[delta.chunk] = Shelved(
                    known.delta, delta.world_from_chunk, known.splats_version, self._version
                )
            self._stale.discard(delta.chunk)
            if self._stale:
                self._let_go_of_stale()
            if not self._chunks:
                self._void_version = self._version

    @property
    def void_version(self) -> int:
        """Of the newest change after which there was no chunk at all, as after a map's reset:
        what was told up to then is part of no world any more."""
        with self._lock:
            return self._void_version

    def newest(self) -> dict[int, Shelved]:
        """All chunks, those last changed at the end."""
        with self._lock:
            return dict(self._chunks)

    def _let_go_of_stale(self) -> None:
        told = (s.delta.words for chunk, s in self._chunks.items() if chunk not in self._stale)
        if sum(map(len, told)) >= self.total:
            for chunk in self._stale:
                self._chunks.pop(chunk, None)
            self._stale = set()


@dataclass
class PageCursor:
    """What one page has: versions by chunk, and the credit that its budget leaves [bytes]."""

    splats: dict[int, int] = field(default_factory=dict)
    places: dict[int, int] = field(default_factory=dict)
    credit: float = 0.0
    filled_s: float | None = None

    def fill(self, bytes_per_s: float, now_s: float) -> None:
        """Let the budget accrue."""
        passed = now_s - self.filled_s if self.filled_s is not None else _BURST_S
        self.filled_s = now_s
        self.credit = min(bytes_per_s * _BURST_S, self.credit + passed * bytes_per_s)


class SplatPages:
    """Serves the shelf to pages, each at its own pace: a late or slow one gets the newest.

    `admit` raises an HTTP error for those who may not connect. Pages of other machines get
    deflated chunks, `mbps` at most (0: no limit). `most` are served at once.
    """

    def __init__(
        self, admit: Callable[[web.Request], None], mbps: float, *, most: int = 20
    ) -> None:
        self.shelf = SplatShelf()
        self._admit = admit
        self._most = most
        self._bytes_per_s = 1e6 * mbps / 8
        self._cache: OrderedDict[tuple[int, int, bool], bytes] = OrderedDict()
        self._sockets: set[web.WebSocketResponse] = set()

    async def connect(self, request: web.Request) -> web.StreamResponse:
        """One page, from handshake to its end."""
        self._admit(request)
        if len(self._sockets) >= self._most:
            raise web.HTTPServiceUnavailable(
                text=f"{self._most} pages are shown splats, no more are served"
            )
        socket = web.WebSocketResponse(
            compress=False,
            heartbeat=HEARTBEAT_S,
            writer_limit=_WRITE_BUFFER_BYTES,
            max_msg_size=4096,
        )
        self._sockets.add(socket)
        try:
            await accept(socket, request)
            await self._talk(socket, request)
        finally:
            self._sockets.discard(socket)
        return socket

    async def _talk(self, socket: web.WebSocketResponse, request: web.Request) -> None:
        near = asked_from(request) in _LOOPBACK and request.query.get("splats") != "deflated"
        sending = asyncio.create_task(self._send(socket, deflated=not near))
        try:
            async for message in socket:
                if message.type is WSMsgType.ERROR:
                    break
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)

    async def close(self) -> None:
        """End every connection."""
        goodbyes = [socket.close(message=b"server stops") for socket in list(self._sockets)]
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.gather(*goodbyes, return_exceptions=True), 1.0)

    async def _send(self, socket: web.WebSocketResponse, *, deflated: bool) -> None:
        cursor = PageCursor()
        try:
            while not socket.closed:
                for data in await self.next(cursor, time.monotonic(), deflated=deflated):
                    await asyncio.wait_for(socket.send_bytes(data), _SEND_TIMEOUT_S)
                await asyncio.sleep(_PERIOD_S)
        except (ConnectionError, TimeoutError):
            log.info("a page takes no more splats; it is disconnected")
            await socket.close()

    async def next(self, cursor: PageCursor, now_s: float, *, deflated: bool) -> list[bytes]:
        """What a page behind `cursor` is to be sent now: places, then splats from the newest chunk
        on, as the budget allows, then removals.

        Removals wait for all splats, some of which may be those of a chunk that went into another;
        but what a reset of the map voids goes first.
        """
        cursor.fill(self._bytes_per_s, now_s)
        void_version = self.shelf.void_version
        chunks = self.shelf.newest()
        void = [chunk for chunk, version in cursor.splats.items() if version <= void_version]
        found = self._places(cursor, chunks, void)
        due = [c for c, item in chunks.items() if cursor.splats.get(c) != item.splats_version]
        for chunk in reversed(due):
            if deflated and self._bytes_per_s and cursor.credit <= 0:
                return found
            found.append(await self._splats(chunk, chunks[chunk], deflated))
            cursor.credit -= len(found[-1])
            cursor.splats[chunk] = chunks[chunk].splats_version
            cursor.places[chunk] = chunks[chunk].place_version
        gone = [chunk for chunk in cursor.splats if chunk not in chunks]
        return found + self._places(cursor, chunks, gone)

    def _places(
        self, cursor: PageCursor, chunks: dict[int, Shelved], gone: list[int]
    ) -> list[bytes]:
        for chunk in gone:
            del cursor.splats[chunk], cursor.places[chunk]
        moved = [
            chunk
            for chunk, version in cursor.places.items()
            if chunk in chunks and chunks[chunk].place_version != version
        ]
        if not gone and not moved:
            return []
        cursor.places |= {chunk: chunks[chunk].place_version for chunk in moved}
        data = encode(
            SplatsUpdate(
                total=self.shelf.total,
                deflated=False,
                removed=np.array(gone, np.uint32),
                chunk=np.array(moved, np.uint32),
                world_from_chunk=_matrices([chunks[c].world_from_chunk for c in moved]),
                count=np.full(len(moved), -1, np.int32),
                words=_NOTHING,
            )
        )
        cursor.credit -= len(data)
        return [data]

    async def _splats(self, chunk: int, item: Shelved, deflated: bool) -> bytes:
        """A chunk's message, made once for all pages and in another thread where it is deflated."""
        key = (chunk, item.place_version, deflated)
        if key not in self._cache:
            make = asyncio.to_thread(_chunk_message, chunk, item, self.shelf.total, deflated)
            self._cache[key] = await make
            while len(self._cache) > _CACHED_MESSAGES:
                self._cache.popitem(last=False)
        return self._cache[key]


def _chunk_message(chunk: int, item: Shelved, total: int, deflated: bool) -> bytes:
    words = item.delta.words
    data = deflate(words) if deflated else words.tobytes()
    return encode(
        SplatsUpdate(
            total=total,
            deflated=deflated,
            removed=np.zeros(0, np.uint32),
            chunk=np.array([chunk], np.uint32),
            world_from_chunk=_matrices([item.world_from_chunk]),
            count=np.array([len(words)], np.int32),
            words=np.frombuffer(data, np.uint8),
        )
    )


def _matrices(places: list[Sim3]) -> Float32[np.ndarray, "k 4 4"]:
    matrices = np.zeros((len(places), 4, 4), np.float32)
    for matrix, place in zip(matrices, places, strict=True):
        matrix[:] = place.pose
        matrix[:3, :3] *= np.float32(place.scale)
    return matrices
