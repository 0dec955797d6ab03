# SPDX-License-Identifier: Apache-2.0
"""Connections that have not asked for anything: at most so many, and not for long."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from aiohttp import web

_log = logging.getLogger(__name__)
_WAITING = 128
_PATIENCE_S = 10.0
_ANSWER_S = 30.0

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Gate:
    """Makes the protocol of each new connection, and ends those that send no whole request.

    aiohttp waits for ever for the first request, and an hour for the next. Where too many wait, the
    one that waits longest goes: whoever means it sends a request at once.
    """

    def __init__(self) -> None:
        self._server: Callable[[], asyncio.Protocol] | None = None
        self._waiting: dict[asyncio.Protocol, float] = {}

    def opens(self, server: Callable[[], asyncio.Protocol]) -> None:
        """From now on `server` makes the protocols."""
        self._server = server

    def __call__(self) -> asyncio.Protocol:
        """The protocol of a connection that begins."""
        while len(self._waiting) >= _WAITING:
            self._end(next(iter(self._waiting)))
        assert self._server is not None
        protocol = self._server()
        self._waiting[protocol] = time.monotonic()
        return protocol

    def tick(self) -> None:
        """End who has waited too long; call about once a second."""
        latest_s = time.monotonic() - _PATIENCE_S
        for protocol in [p for p, since_s in self._waiting.items() if since_s < latest_s]:
            self._end(protocol)

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Around every request: its connection does not wait, and pages must be answered soon."""
        self._waiting.pop(request.protocol, None)
        try:
            if _opens_socket(request):
                return await handler(request)
            async with asyncio.timeout(_ANSWER_S):
                return await handler(request)
        except TimeoutError:
            raise web.HTTPRequestTimeout(text="the request was not complete in time") from None
        finally:
            if request.transport and not request.transport.is_closing():
                self._waiting[request.protocol] = time.monotonic()

    def _end(self, protocol: asyncio.Protocol) -> None:
        del self._waiting[protocol]
        transport = getattr(protocol, "transport", None)
        if transport:
            transport.abort()


def _opens_socket(request: web.Request) -> bool:
    return request.headers.get("Upgrade", "").lower() == "websocket"
