# SPDX-License-Identifier: Apache-2.0
"""One consumer's connection: access units go straight into the socket as long as it takes them.

`WebSocketResponse.send_bytes` needs a task that wakes up for every picture and every consumer,
writes header and payload with a system call each, and a timer to bound the wait. Here a picture is
made a WebSocket message once for all consumers, and the relay writes it to every transport that
has nothing left to send; a task runs only for a consumer that is behind. Messages are written
whole, so what aiohttp itself writes (pong, close) comes between two of them.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from worldsystem_core.frames import EncodedFrame
from worldsystem_ingest.stream.relay import Consumer, Relay

_log = logging.getLogger(__name__)
_BINARY = 0x82  # a whole message, RFC 6455, section 5.2
_SEND_BUFFER_BYTES = 256 * 1024
_LOOKS = 8  # at what has left, in the time in which something must


class Framing:
    """Access units as WebSocket messages; the newest is kept, for it goes to every consumer."""

    def __init__(self) -> None:
        self._unit: EncodedFrame | None = None
        self._message = b""

    def message(self, unit: EncodedFrame) -> bytes:
        """`unit` as a binary message of a server."""
        if unit is not self._unit:
            self._unit, self._message = unit, _header(len(unit.data)) + unit.data
        return self._message


class Outlet:
    """Writes what is queued for one consumer to its connection; for the network thread."""

    def __init__(
        self,
        ws: web.WebSocketResponse,
        transport: asyncio.Transport,
        relay: Relay,
        consumer: Consumer,
        framing: Framing,
    ) -> None:
        self._ws = ws
        self._transport = transport
        self._relay = relay
        self._consumer = consumer
        self._framing = framing
        self._behind = asyncio.Event()
        _keep_backlog_in_our_queue(transport)

    async def run(self, writer: AbstractStreamWriter, timeout_s: float) -> None:
        """Send until the connection closes, and close it when it takes nothing for `timeout_s`."""
        self._consumer.on_queued = self._pump
        self._pump()
        try:
            while not self._ws.closed:
                await self._behind.wait()
                await self._drained(writer, timeout_s)
                self._behind.clear()
                self._pump()
        except ConnectionError:
            _log.debug("consumer %d left", self._consumer.number)
        except TimeoutError:
            _log.warning("consumer %d takes nothing and is let go", self._consumer.number)
            self._transport.abort()

    def close(self) -> None:
        """Write no more."""
        self._behind.set()

    async def _drained(self, writer: AbstractStreamWriter, timeout_s: float) -> None:
        """Wait until all has left; `TimeoutError` when nothing more does for `timeout_s`."""
        draining = asyncio.ensure_future(writer.drain())  # can be cancelled once only
        left_bytes, idle_looks = self._transport.get_write_buffer_size(), 0
        try:
            while idle_looks < _LOOKS:
                done, _ = await asyncio.wait({draining}, timeout=timeout_s / _LOOKS)
                if done:
                    return draining.result()
                before, left_bytes = left_bytes, self._transport.get_write_buffer_size()
                idle_looks = 0 if left_bytes < before else idle_looks + 1
        finally:
            draining.cancel()
        raise TimeoutError

    def _pump(self) -> None:
        while not (self._behind.is_set() or self._ws.closed or self._transport.is_closing()):
            unit = self._consumer.take()
            if unit is None:
                return
            self._transport.write(self._framing.message(unit))
            self._relay.sent(unit)
            if self._transport.get_write_buffer_size():
                self._behind.set()


def _header(size_bytes: int) -> bytes:
    if size_bytes < 126:
        return struct.pack(">BB", _BINARY, size_bytes)
    if size_bytes < 2**16:
        return struct.pack(">BBH", _BINARY, 126, size_bytes)
    return struct.pack(">BBQ", _BINARY, 127, size_bytes)


def _keep_backlog_in_our_queue(transport: asyncio.Transport) -> None:
    """Megabytes in the kernel's buffer would reach a slow consumer seconds late."""
    transport.set_write_buffer_limits(high=0)
    peer = transport.get_extra_info("socket")
    if peer is not None:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
