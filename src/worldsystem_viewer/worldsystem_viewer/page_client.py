# SPDX-License-Identifier: Apache-2.0
"""The pages that are connected: each gets what is newer than its cursor, at its own pace."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections import OrderedDict
from typing import Any

from aiohttp import WSCloseCode, WSMsgType, web

from worldsystem_viewer.config import ViewerConfig
from worldsystem_viewer.mesh_message import MeshChange
from worldsystem_viewer.page_files import same_origin
from worldsystem_viewer.protocol import Hello, encode
from worldsystem_viewer.world import Cursor, World

log = logging.getLogger(__name__)
_RESUME_TIMEOUT_S = 5.0
_SEND_TIMEOUT_S = 30.0
_MESSAGE_VERTICES = 60_000
_CACHED_MESSAGES = 8
_WRITE_BUFFER_BYTES = 256 * 1024


class PageClients:
    """Accepts pages up to `max_clients` and runs one sending task for each."""

    def __init__(self, config: ViewerConfig, world: World, session: str) -> None:
        self._config = config
        self._world = world
        self._session = session
        self._sockets: set[web.WebSocketResponse] = set()
        self._skipped_before = 0
        self._live: dict[int, Cursor] = {}
        self._mesh_cache: OrderedDict[tuple[int, int], bytes] = OrderedDict()

    @property
    def count(self) -> int:
        return len(self._sockets)

    @property
    def skipped(self) -> int:
        """States that pages never saw because newer ones were there when they were ready."""
        return self._skipped_before + sum(cursor.skipped for cursor in list(self._live.values()))

    async def connect(self, request: web.Request) -> web.StreamResponse:
        """One page, from handshake to its end."""
        if not same_origin(request):
            raise web.HTTPForbidden(text="another site's page may not connect")
        if len(self._sockets) >= self._config.max_clients:
            raise web.HTTPServiceUnavailable(
                text=f"{self._config.max_clients} viewers are connected, no more are served"
            )
        socket = web.WebSocketResponse(
            compress=False, heartbeat=15.0, writer_limit=_WRITE_BUFFER_BYTES, max_msg_size=4096
        )
        self._sockets.add(socket)
        cursor = Cursor()
        self._live[id(cursor)] = cursor
        try:
            await socket.prepare(request)
            await self._converse(socket, cursor, request.transport)
        except (ConnectionError, TimeoutError) as error:
            log.info("a viewer went away: %s", error or type(error).__name__)
        finally:
            self._sockets.discard(socket)
            self._skipped_before += self._live.pop(id(cursor)).skipped
        return socket

    async def close(self) -> None:
        """Say goodbye to every page."""
        goodbyes = [
            socket.close(code=WSCloseCode.GOING_AWAY, message=b"server stops")
            for socket in list(self._sockets)
        ]
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.gather(*goodbyes, return_exceptions=True), 1.0)

    async def _converse(
        self, socket: web.WebSocketResponse, cursor: Cursor, transport: asyncio.Transport | None
    ) -> None:
        wish = await _next_wish(socket, _RESUME_TIMEOUT_S)
        change = wish.get("change", 0)
        resumed = (
            wish.get("session") == self._session
            and isinstance(change, int)
            and self._world.can_resume(change)
        )
        cursor.mesh_change = change if resumed else 0
        await socket.send_bytes(encode(Hello(session=self._session, resumed=resumed)))
        visible = asyncio.Event()
        visible.set()
        sending = asyncio.create_task(self._send(socket, cursor, visible, transport))
        try:
            await _listen(socket, visible)
        finally:
            sending.cancel()
            with contextlib.suppress(asyncio.CancelledError, ConnectionError, TimeoutError):
                await sending

    async def _send(
        self,
        socket: web.WebSocketResponse,
        cursor: Cursor,
        visible: asyncio.Event,
        transport: asyncio.Transport | None,
    ) -> None:
        try:
            while not socket.closed:
                await visible.wait()
                for data in self._newer(cursor):
                    await asyncio.wait_for(socket.send_bytes(data), _SEND_TIMEOUT_S)
                await asyncio.sleep(1.0 / self._config.update_hz)
        except (ConnectionError, TimeoutError):
            log.info("a viewer takes no more data; it is disconnected")
            if transport is not None:
                transport.abort()

    def _newer(self, cursor: Cursor) -> list[bytes]:
        """One message of each kind that has news; a large mesh comes over several rounds."""
        found = [slot.encoded() for slot in self._world.newer_slots(cursor)]
        if (path := self._world.newer_path(cursor)) is not None:
            found.append(encode(path))
        if (mesh := self._world.newer_mesh(cursor, _MESSAGE_VERTICES)) is not None:
            found.append(self._encoded_mesh(mesh))
        return found

    def _encoded_mesh(self, mesh: MeshChange) -> bytes:
        """Pages that keep pace ask for the same change: it is encoded once."""
        key = (mesh.since, mesh.change)
        if key not in self._mesh_cache:
            self._mesh_cache[key] = encode(mesh.to_message())
            while len(self._mesh_cache) > _CACHED_MESSAGES:
                self._mesh_cache.popitem(last=False)
        return self._mesh_cache[key]


async def _next_wish(socket: web.WebSocketResponse, timeout_s: float) -> dict[str, Any]:
    """The page's next JSON text; an empty dict when it is anything else."""
    message = await asyncio.wait_for(socket.receive(), timeout_s)
    if message.type is not WSMsgType.TEXT:
        return {}
    return _parsed(message.data)


def _parsed(text: str) -> dict[str, Any]:
    try:
        wish = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return wish if isinstance(wish, dict) else {}


async def _listen(socket: web.WebSocketResponse, visible: asyncio.Event) -> None:
    """A hidden page asks for silence, a shown one for what it missed."""
    async for message in socket:
        if message.type is not WSMsgType.TEXT:
            continue
        wish = _parsed(message.data)
        if wish.get("visible") is False:
            visible.clear()
        elif wish.get("visible") is True:
            visible.set()
