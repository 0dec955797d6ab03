# SPDX-License-Identifier: Apache-2.0
"""The beginning of a WebSocket, whatever a stranger asks it with."""

from __future__ import annotations

from aiohttp import web


async def accept(socket: web.WebSocketResponse, request: web.Request) -> None:
    """Answer the handshake; raises the HTTP error for a request that is none.

    aiohttp fails at header values that are no ASCII, which it would log with the whole traceback.
    """
    try:
        await socket.prepare(request)
    except ValueError as error:
        raise web.HTTPBadRequest(text="this is no handshake of a WebSocket") from error
