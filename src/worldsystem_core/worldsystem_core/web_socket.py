# SPDX-License-Identifier: Apache-2.0
"""The beginning of a WebSocket, whatever a stranger asks it with."""

from __future__ import annotations

import socket as sockets

from aiohttp import web

HEARTBEAT_S = 60.0
"""On a thin line a ping waits behind what was written before; half of this is waited for its
answer, and a page notices by itself that a line is dead."""
_SEND_BUFFER_BYTES = 256 * 1024
"""More in the kernel's buffer would reach a slow page late, and pings behind it."""


async def accept(socket: web.WebSocketResponse, request: web.Request) -> None:
    """Answer the handshake; raises the HTTP error for a request that is none.

    aiohttp fails at header values that are no ASCII, which it would log with the whole traceback.
    """
    try:
        await socket.prepare(request)
    except ValueError as error:
        raise web.HTTPBadRequest(text="this is no handshake of a WebSocket") from error
    if request.transport is not None and (peer := request.transport.get_extra_info("socket")):
        peer.setsockopt(sockets.SOL_SOCKET, sockets.SO_SNDBUF, _SEND_BUFFER_BYTES)
