# SPDX-License-Identifier: Apache-2.0
"""What every WebSocket has in common: the checks before it opens, its limits, its end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Awaitable

from aiohttp import WSCloseCode, web

from worldsystem_core.access import Access, from_foreign_page
from worldsystem_core.web_socket import accept
from worldsystem_ingest.config import IngestConfig
from worldsystem_ingest.stream.registry import (
    BadStreamName,
    StreamRegistry,
    TooManyStreams,
    VideoStream,
)

_log = logging.getLogger(__name__)
_MIB = 2**20
_HEARTBEAT_S = 20.0
_CLOSE_S = 2.0


class Sockets:
    """The open WebSockets of a server; for the network thread."""

    def __init__(self, streams: StreamRegistry, access: Access, config: IngestConfig) -> None:
        self._streams = streams
        self._access = access
        self._config = config
        self._most = config.max_streams * 2 + config.max_phones + config.max_consumers
        self._open: set[web.WebSocketResponse] = set()
        self._closing: set[asyncio.Future[bool]] = set()

    def stream_of(self, request: web.Request) -> VideoStream:
        """The stream that `request` asks for; raises the HTTP error that tells why it may not."""
        name = request.query.get("stream", self._config.stream)
        if from_foreign_page(request) or self._access.is_misled(request):
            raise refusal(web.HTTPForbidden, "pages of other sites may not connect to this server")
        if not self._access.allows(request, name):
            raise refusal(web.HTTPUnauthorized, f"stream {name!r:.50} needs its token")
        if len(self._open) + len(self._closing) >= self._most:
            raise refusal(
                web.HTTPServiceUnavailable,
                f"{self._most} sockets are open, which is the most; `max_streams`, `max_phones` "
                f"and `max_consumers` of the server together allow more",
            )
        try:
            return self._streams.stream(name)
        except BadStreamName as error:
            raise refusal(web.HTTPBadRequest, str(error)) from error
        except TooManyStreams as error:
            raise refusal(web.HTTPServiceUnavailable, str(error)) from error

    @contextlib.asynccontextmanager
    async def opened(
        self, request: web.Request, *, largest_bytes: int, heartbeat: bool = True
    ) -> AsyncIterator[web.WebSocketResponse]:
        """A WebSocket that takes messages up to `largest_bytes`, forgotten at the end."""
        ws = web.WebSocketResponse(
            max_msg_size=min(largest_bytes, int(self._config.max_message_mb * _MIB)),
            heartbeat=_HEARTBEAT_S if heartbeat else None,
            timeout=_CLOSE_S,
            compress=False,
        )
        await accept(ws, request)
        self._open.add(ws)
        try:
            yield ws
        finally:
            self._open.discard(ws)

    def close_aside(self, ws: web.WebSocketResponse, reason: str) -> None:
        """Close without waiting for the answer, which a peer that hangs never gives."""
        closing = asyncio.ensure_future(
            ws.close(code=WSCloseCode.POLICY_VIOLATION, message=reason.encode())
        )
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        """Close every socket; those that do not answer soon are left to their transport."""
        closing: list[Awaitable[bool]] = [
            ws.close(code=WSCloseCode.GOING_AWAY) for ws in self._open
        ]
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.gather(*closing, return_exceptions=True), _CLOSE_S)


def refusal(kind: type[web.HTTPError], message: str) -> web.HTTPError:
    """An HTTP error whose body is JSON, as clients of the wire protocol expect."""
    headers = {"WWW-Authenticate": "Bearer"} if kind is web.HTTPUnauthorized else None
    text = json.dumps({"error": message})
    return kind(text=text, content_type="application/json", headers=headers)
