# SPDX-License-Identifier: Apache-2.0
"""The line to one page: messages as WebSocket frames, written without a copy or a task for each."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Iterable

from aiohttp import web

_TIMEOUT_S = 30.0
_FINAL, _CONTINUED, _BINARY = 0x80, 0x00, 0x02
_PIECE_BYTES = 256 * 1024


class PageLine:
    """Writes to a page whose WebSocket is open and not compressed; for the server's loop alone.

    Frames to a page are not masked, so that one made of a message serves all pages.
    """

    def __init__(self, socket: web.WebSocketResponse, request: web.Request) -> None:
        transport = request.transport
        if transport is None:
            raise ConnectionResetError("the page is gone")
        self._socket = socket
        self._writer = request.writer
        self._transport = transport
        self._full_bytes = transport.get_write_buffer_limits()[1]

    def write(self, message: bytes) -> None:
        """Hand over one short message; raises `ConnectionResetError` where the page is gone."""
        self.write_frames(_head(len(message)) + message)

    async def send(self, message: bytes) -> None:
        """Hand over one message of any length as the page takes it.

        What the kernel has no room for would be copied: so a long one goes as fragments (RFC 6455,
        5.4), between which the server's own pings may come.
        """
        whole, kind = memoryview(message), _BINARY
        while len(whole) > _PIECE_BYTES:
            self.write_frames(_head(_PIECE_BYTES, kind))
            self._transport.write(whole[:_PIECE_BYTES])
            whole, kind = whole[_PIECE_BYTES:], _CONTINUED
            await self.room()
        self.write_frames(_head(len(whole), kind | _FINAL))
        self._transport.write(whole)
        await self.room()

    def write_frames(self, frames: bytes) -> None:
        """Hand over messages that were `framed`."""
        if self._socket.closed or self._transport.is_closing():
            raise ConnectionResetError("the page is gone")
        self._transport.write(frames)

    async def room(self) -> None:
        """Wait until the page has taken nearly all; `TimeoutError` when it takes nothing."""
        if self._transport.get_write_buffer_size() > self._full_bytes:
            await asyncio.wait_for(self._writer.drain(), _TIMEOUT_S)


def framed(messages: Iterable[bytes]) -> bytes:
    """Messages as WebSocket frames, one behind the other."""
    return b"".join(part for message in messages for part in (_head(len(message)), message))


def _head(size: int, kind: int = _FINAL | _BINARY) -> bytes:
    if size < 126:
        return struct.pack(">BB", kind, size)
    if size < 65_536:
        return struct.pack(">BBH", kind, 126, size)
    return struct.pack(">BBQ", kind, 127, size)
