# SPDX-License-Identifier: Apache-2.0
"""One WebSocket to the server, which is opened again whenever it broke."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import websockets
from websockets.asyncio.client import ClientConnection, connect

from worldsystem_core.shown_url import without_secrets

_log = logging.getLogger(__name__)
_SEND_TIMEOUT_S = 5.0
_GONE = (OSError, websockets.WebSocketException, TimeoutError)
Receive = Callable[[str], Awaitable[None]]


@dataclass(frozen=True)
class Backoff:
    """How long to wait before the next attempt: doubling from `first_s` to `most_s`, less ≤ 50 %.

    A drone that is back in reach of its server has waited two seconds at most.
    """

    first_s: float = 0.25
    most_s: float = 2.0

    def wait_s(self, attempt: int, rng: random.Random) -> float:
        """Wait before attempt number `attempt` (0 is the first repetition)."""
        return float(min(self.most_s, self.first_s * 2.0 ** min(attempt, 30))) * rng.uniform(
            0.5, 1.0
        )


class Link:
    """A connection that is opened when needed; `receive` gets every text the server says.

    `error` says why it last could not be opened or broke; empty while it never did.
    """

    def __init__(
        self,
        url: str,
        seed: int,
        backoff: Backoff | None = None,
        receive: Receive | None = None,
    ) -> None:
        self._url = url
        self._shown = without_secrets(url)
        self._backoff = backoff or Backoff()
        self._rng = random.Random(seed)
        self._receive = receive
        self._socket: ClientConnection | None = None
        self._listening: asyncio.Task[None] | None = None
        self._attempt = 0
        self._not_before_s = 0.0
        self.error = ""
        self.connections = 0
        self.opened_ns: list[int] = []

    async def open(self, hello: str | None = None) -> bool:
        """Connect unless connected; False while it cannot be reached (tries are spaced out)."""
        if self._socket is not None:
            return True
        if time.monotonic() < self._not_before_s:
            return False
        try:
            self._socket = await connect(
                self._url, open_timeout=3.0, close_timeout=1.0, max_queue=4, proxy=None
            )
            self.connections += 1
            self.opened_ns.append(time.time_ns())
            self._attempt = 0
            if hello is not None:
                await self._socket.send(hello)
        except _GONE as error:
            self._broken(error)
            return False
        if self._receive:
            self._listening = asyncio.create_task(self._listen(self._socket, self._receive))
        return True

    async def send(self, message: bytes | str) -> bool:
        """Send over the open connection; False when there is none or it breaks."""
        if self._socket is None:
            return False
        try:
            async with asyncio.timeout(_SEND_TIMEOUT_S):
                await self._socket.send(message)
        except _GONE as error:
            self._broken(error)
            return False
        return True

    async def close(self) -> None:
        """Close in good order; the next `open` connects at once."""
        socket, self._socket = self._socket, None
        if socket is not None:
            await socket.close()
        await self._end_listening()

    async def _listen(self, socket: ClientConnection, receive: Receive) -> None:
        try:
            async for message in socket:
                if isinstance(message, str):
                    await receive(message)
        except _GONE as error:
            _log.debug("%s: %s", self._shown, error)

    async def _end_listening(self) -> None:
        listening, self._listening = self._listening, None
        if listening:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)

    def _broken(self, error: Exception) -> None:
        self._socket = None
        if self._listening:
            self._listening.cancel()
            self._listening = None
        wait_s = self._backoff.wait_s(self._attempt, self._rng)
        self._attempt += 1
        self.error = str(error).replace(self._url, self._shown) or type(error).__name__
        self._not_before_s = time.monotonic() + wait_s
        _log.warning("%s: %s; trying again in %.1f s", self._shown, self.error, wait_s)
