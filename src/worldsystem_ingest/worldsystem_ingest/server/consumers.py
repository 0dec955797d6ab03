# SPDX-License-Identifier: Apache-2.0
"""The sockets of those who take the video: `/ws/h264_stream`."""

from __future__ import annotations

import asyncio
import logging
import socket

from aiohttp import web

from worldsystem_ingest.config import IngestConfig
from worldsystem_ingest.relay import Consumer, Relay
from worldsystem_ingest.server.sockets import Sockets, refusal

_log = logging.getLogger(__name__)
_SEND_BUFFER_BYTES = 256 * 1024


class Consumers:
    """Sends each consumer the access units of its stream."""

    def __init__(self, sockets: Sockets, config: IngestConfig) -> None:
        self._sockets = sockets
        self._config = config
        self._connected = 0

    async def on_consumer(self, request: web.Request) -> web.StreamResponse:
        """`/ws/h264_stream`: the stream's video from the GOP under way."""
        stream = self._sockets.stream_of(request)
        if self._connected >= self._config.max_consumers:
            raise refusal(
                web.HTTPServiceUnavailable,
                f"{self._connected} consumers are connected, which is the most; "
                f"`max_consumers` of the server allows more",
            )
        consumer = stream.relay.join()
        self._connected += 1
        try:
            return await self._serve(request, stream.relay, consumer)
        finally:
            self._connected -= 1
            stream.relay.leave(consumer)

    async def _serve(
        self, request: web.Request, relay: Relay, consumer: Consumer
    ) -> web.StreamResponse:
        # a heartbeat would wait behind the video and end who is merely slow
        async with self._sockets.opened(request, heartbeat=False) as ws:
            _keep_backlog_in_our_queue(request)
            sending = asyncio.ensure_future(self._send(request, ws, relay, consumer))
            try:
                async for _ in ws:
                    pass
            finally:
                sending.cancel()
        return ws

    async def _send(
        self, request: web.Request, ws: web.WebSocketResponse, relay: Relay, consumer: Consumer
    ) -> None:
        try:
            while not ws.closed:
                unit = await consumer.next()
                await asyncio.wait_for(ws.send_bytes(unit.data), self._config.send_timeout_s)
                relay.sent(unit)
        except (ConnectionError, RuntimeError):
            _log.debug("consumer %d left", consumer.number)
        except TimeoutError:
            _log.warning("consumer %d takes nothing and is let go", consumer.number)
            if request.transport:
                request.transport.abort()


def _keep_backlog_in_our_queue(request: web.Request) -> None:
    """Megabytes in the kernel's buffer would reach a slow consumer seconds late."""
    peer = request.transport.get_extra_info("socket") if request.transport else None
    if peer is not None:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
