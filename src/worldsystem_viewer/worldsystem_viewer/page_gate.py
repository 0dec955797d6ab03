# SPDX-License-Identifier: Apache-2.0
"""Connections to the page's port that hold no WebSocket: at most so many."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from aiohttp import web

_LEAST = 128
_FOR_EACH_PAGE = 8  # a browser opens six

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class PageGate:
    """Makes the protocol of each new connection; where there are too many, the oldest goes.

    aiohttp waits an hour for a request, and for ever for one who takes no answer. WebSockets have
    limits of their own and do not count.
    """

    def __init__(self, most_pages: int) -> None:
        self._most = max(_LEAST, _FOR_EACH_PAGE * most_pages)
        self._server: Callable[[], asyncio.Protocol] | None = None
        self._open: dict[asyncio.Protocol, None] = {}

    def opens(self, server: Callable[[], asyncio.Protocol]) -> None:
        """From now on `server` makes the protocols."""
        self._server = server

    def __call__(self) -> asyncio.Protocol:
        """The protocol of a connection that begins."""
        while len(self._open) >= self._most:
            self._end(next(iter(self._open)))
        assert self._server is not None
        protocol = self._server()
        self._open[protocol] = None
        return protocol

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Around every request: a connection does not count while it is a WebSocket."""
        if request.headers.get("Upgrade", "").lower() != "websocket":
            return await handler(request)
        counted = request.protocol in self._open
        self._open.pop(request.protocol, None)
        try:
            return await handler(request)
        finally:
            if counted and request.transport and not request.transport.is_closing():
                self._open[request.protocol] = None

    def _end(self, protocol: asyncio.Protocol) -> None:
        del self._open[protocol]
        transport = getattr(protocol, "transport", None)
        if transport:
            transport.abort()
