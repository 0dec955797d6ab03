# SPDX-License-Identifier: Apache-2.0
"""The sockets of those who take the video: `/ws/h264_stream`."""

from __future__ import annotations

import asyncio

from aiohttp import web

from worldsystem_ingest.config import IngestConfig
from worldsystem_ingest.server.sockets import Sockets, refusal
from worldsystem_ingest.sink import NO_KEY_FRAME
from worldsystem_ingest.stream.outlet import Outlet
from worldsystem_ingest.stream.registry import VideoStream
from worldsystem_ingest.stream.relay import Consumer

_LARGEST_BYTES = 4096  # consumers have nothing to say


class Consumers:
    """Sends each consumer the access units of its stream."""

    def __init__(self, sockets: Sockets, config: IngestConfig) -> None:
        self._sockets = sockets
        self._config = config
        self._connected = 0

    async def on_consumer(self, request: web.Request) -> web.StreamResponse:
        """`/ws/h264_stream`: the stream's video from the GOP under way; `keys=1`: key frames."""
        stream = self._sockets.stream_of(request)
        if self._connected >= self._config.max_consumers:
            raise refusal(
                web.HTTPServiceUnavailable,
                f"{self._connected} consumers are connected, which is the most; "
                f"`max_consumers` of the server allows more",
            )
        consumer = stream.relay.join(keys_only=request.query.get("keys") == "1")
        self._connected += 1
        try:
            # a heartbeat would wait behind the video and end who is merely slow
            async with self._sockets.opened(
                request, largest_bytes=_LARGEST_BYTES, heartbeat=False
            ) as ws:
                await self._serve(request, ws, stream, consumer)
        finally:
            self._connected -= 1
            stream.relay.leave(consumer)
        return ws

    async def _serve(
        self,
        request: web.Request,
        ws: web.WebSocketResponse,
        stream: VideoStream,
        consumer: Consumer,
    ) -> None:
        transport = request.transport
        if transport is None:
            return
        if not len(consumer):  # the GOP under way was too long to keep, and may never end
            stream.session.key_frame_needed(NO_KEY_FRAME)
        outlet = Outlet(ws, transport, stream.relay, consumer, stream.framing)
        writer = await ws.prepare(request)
        sending = asyncio.ensure_future(outlet.run(writer, self._config.send_timeout_s))
        try:
            async for _ in ws:
                pass
        finally:
            outlet.close()
            sending.cancel()
