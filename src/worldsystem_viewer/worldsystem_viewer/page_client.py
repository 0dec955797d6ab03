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
from worldsystem_viewer.page_files import same_origin
from worldsystem_viewer.page_mesh import (
    CodeFeed,
    MeshFeed,
    RawFeed,
    mesh_budget_mbps,
    mesh_form,
)
from worldsystem_viewer.protocol import Hello, encode
from worldsystem_viewer.world import Cursor, World

log = logging.getLogger(__name__)
_RESUME_TIMEOUT_S = 5.0
_SEND_TIMEOUT_S = 30.0
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
        self._mesh_cache: OrderedDict[Any, bytes] = OrderedDict()

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
            await self._converse(socket, cursor, request)
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
        self, socket: web.WebSocketResponse, cursor: Cursor, request: web.Request
    ) -> None:
        wish = await _next_wish(socket, _RESUME_TIMEOUT_S)
        form = mesh_form(self._config, wish, request.remote)
        session, change = f"{self._session}-{form}", wish.get("change", 0)
        can_resume = self._world.can_resume if form == "raw" else self._world.can_resume_code
        resumed = wish.get("session") == session and isinstance(change, int) and can_resume(change)
        feed = self._feed(form, wish, cursor, change if resumed else 0)
        await socket.send_bytes(encode(Hello(session=session, resumed=resumed, mesh=form)))
        visible = asyncio.Event()
        visible.set()
        sending = asyncio.create_task(self._send(socket, cursor, feed, visible, request.transport))
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
        feed: MeshFeed,
        visible: asyncio.Event,
        transport: asyncio.Transport | None,
    ) -> None:
        try:
            while not socket.closed:
                await visible.wait()
                for message in self._newer(cursor):
                    await asyncio.wait_for(socket.send_bytes(message), _SEND_TIMEOUT_S)
                for data in await feed.next():
                    await asyncio.wait_for(socket.send_bytes(data), _SEND_TIMEOUT_S)
                await asyncio.sleep(1.0 / self._config.update_hz)
        except (ConnectionError, TimeoutError):
            log.info("a viewer takes no more data; it is disconnected")
            if transport is not None:
                transport.abort()

    def _newer(self, cursor: Cursor) -> list[bytes]:
        """One message of each kind that has news, but for the surface, which has its feed."""
        found = [slot.encoded() for slot in self._world.newer_slots(cursor)]
        if (path := self._world.newer_path(cursor)) is not None:
            found.append(encode(path))
        return found

    def _feed(self, form: str, wish: dict[str, Any], cursor: Cursor, change: int) -> MeshFeed:
        if form == "code":
            return CodeFeed(self._world, mesh_budget_mbps(self._config, wish), change)
        cursor.mesh_change = change
        return RawFeed(self._world, cursor, self._mesh_cache)


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
