# SPDX-License-Identifier: Apache-2.0
"""Connections to the page's port that hold no WebSocket: at most so many."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web

_LEAST = 128
_FOR_EACH_PAGE = 8  # a browser opens six

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class PageGate:
    """Makes the protocol of each new connection; where there are too many, the oldest go.

    aiohttp waits an hour for a request, and for ever for one who takes no answer. WebSockets have
    limits of their own and do not count. One that has just come, or has yet to shake hands (TLS),
    cannot be ended: it counts as soon as it can.
    """

    def __init__(self, most_pages: int) -> None:
        self._most = max(_LEAST, _FOR_EACH_PAGE * most_pages)
        self._server: web.Server | None = None
        self._sockets: set[web.RequestHandler] = set()

    def opens(self, server: web.Server) -> None:
        """From now on `server` makes the protocols."""
        self._server = server

    def __call__(self) -> web.RequestHandler:
        """The protocol of a connection that begins."""
        assert self._server is not None
        self.thin_out(coming=1)
        return self._server()

    def thin_out(self, coming: int = 0) -> None:
        """End the oldest where there are too many, with those that are `coming`; to be called now
        and then, too, since many may come at once."""
        assert self._server is not None
        transports = [
            protocol.transport
            for protocol in self._server.connections
            if protocol not in self._sockets
        ]
        held = [each for each in transports if each is not None and not each.is_closing()]
        for transport in held[: max(0, len(held) + coming - self._most)]:
            transport.abort()

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Around every request: a connection does not count while it is a WebSocket."""
        if request.headers.get("Upgrade", "").lower() != "websocket":
            return await handler(request)
        protocol = request.protocol
        self._sockets.add(protocol)
        try:
            return await handler(request)
        finally:
            self._sockets.discard(protocol)
