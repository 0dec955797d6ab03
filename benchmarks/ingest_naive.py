# SPDX-License-Identifier: Apache-2.0
"""Two plain aiohttp servers that relay `/ws/video`, to compare with. Neither decodes anything."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from aiohttp import web

from worldsystem_core import wire

_QUEUE = 300


class Broadcast:
    """Sends each picture to one consumer after the other."""

    def __init__(self) -> None:
        self._consumers: set[web.WebSocketResponse] = set()

    async def publish(self, data: bytes) -> None:
        """Return when every consumer's socket took the picture."""
        for ws in list(self._consumers):
            try:
                await ws.send_bytes(data)
            except ConnectionError:
                self._consumers.discard(ws)

    async def serve(self, ws: web.WebSocketResponse) -> None:
        """One consumer, until it leaves."""
        self._consumers.add(ws)
        async for _ in ws:
            pass


class Queues:
    """A queue and a task for each consumer; a full queue loses the newest picture."""

    def __init__(self) -> None:
        self._queues: set[asyncio.Queue[bytes]] = set()

    async def publish(self, data: bytes) -> None:
        """Never wait."""
        for queue in self._queues:
            if not queue.full():
                queue.put_nowait(data)

    async def serve(self, ws: web.WebSocketResponse) -> None:
        """One consumer, until it leaves."""
        queue: asyncio.Queue[bytes] = asyncio.Queue(_QUEUE)
        self._queues.add(queue)
        with contextlib.suppress(ConnectionError):
            while not ws.closed:
                await ws.send_bytes(await queue.get())


def serve(relay: Broadcast | Queues, listening: Callable[[int], None]) -> None:
    """Serve for ever; `listening` is called with the port."""
    asyncio.run(_serve(relay, listening))


async def _serve(relay: Broadcast | Queues, listening: Callable[[int], None]) -> None:
    app = web.Application()
    app.add_routes(
        [
            web.get("/ws/video", lambda request: _take(request, relay)),
            web.get("/ws/h264_stream", lambda request: _with_socket(request, relay.serve)),
        ]
    )
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    listening(runner.addresses[0][1])
    await asyncio.Event().wait()


async def _take(request: web.Request, relay: Broadcast | Queues) -> web.WebSocketResponse:
    ws = web.WebSocketResponse(max_msg_size=2**24)
    await ws.prepare(request)
    async for message in ws:
        await relay.publish(bytes(wire.unpack(message.data).payload))
    return ws


async def _with_socket(
    request: web.Request, serve_one: Callable[[web.WebSocketResponse], Awaitable[None]]
) -> web.WebSocketResponse:
    ws = web.WebSocketResponse()
    await ws.prepare(request)
    await serve_one(ws)
    return ws
