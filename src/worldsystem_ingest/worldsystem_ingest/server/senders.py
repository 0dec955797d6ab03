# SPDX-License-Identifier: Apache-2.0
"""The sockets of those who send: video on `/ws/video`, telemetry on `/ws/phone`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable

from aiohttp import WSMessage, WSMsgType, web

from worldsystem_core.errors import ProtocolError
from worldsystem_ingest.config import IngestConfig
from worldsystem_ingest.server.pace import Pace
from worldsystem_ingest.server.sockets import Sockets, refusal
from worldsystem_ingest.stream.registry import Failed, VideoStream

_log = logging.getLogger(__name__)
_OUTBOX_MESSAGES = 32
_LARGEST_BYTES = 2**31 - 1  # the configured limit is less
_LARGEST_TEXT_BYTES = 2**18


class Outbox:
    """Messages that wait to be sent to one sender; what does not fit is dropped."""

    def __init__(self, ws: web.WebSocketResponse, timeout_s: float) -> None:
        self._ws = ws
        self._timeout_s = timeout_s
        self._messages: asyncio.Queue[dict[str, object]] = asyncio.Queue(_OUTBOX_MESSAGES)

    def say(self, message: dict[str, object]) -> None:
        """Queue one message; never waits."""
        with contextlib.suppress(asyncio.QueueFull):
            self._messages.put_nowait(message)

    async def run(self) -> None:
        """Send until the socket closes, or until the peer takes nothing for too long."""
        with contextlib.suppress(ConnectionError, TimeoutError, RuntimeError):
            while not self._ws.closed:
                message = await self._messages.get()
                await asyncio.wait_for(self._ws.send_json(message), self._timeout_s)


class Senders:
    """Takes what senders send and gives it to the session of their stream."""

    def __init__(self, sockets: Sockets, config: IngestConfig, failed: Failed) -> None:
        self._sockets = sockets
        self._config = config
        self._failed = failed
        self._phones = 0

    def routes(self) -> list[web.RouteDef]:
        """What the server's application must route here."""
        return [web.get("/ws/video", self._on_video), web.get("/ws/phone", self._on_phone)]

    async def _on_video(self, request: web.Request) -> web.StreamResponse:
        """`/ws/video`: a new sender replaces the one that the stream had."""
        stream = self._sockets.stream_of(request)
        async with self._sockets.opened(request, largest_bytes=_LARGEST_BYTES) as ws:
            outbox = Outbox(ws, self._config.send_timeout_s)
            lease = stream.claim(
                lambda: self._sockets.close_aside(ws, "replaced by a new sender"),
                outbox.say,
                peer=request.remote or "",
            )
            answering = asyncio.ensure_future(outbox.run())
            try:
                pace = Pace(self._config.max_receive_mbps)
                async for message in ws:
                    if not lease.current or message.type is WSMsgType.ERROR:
                        break
                    busy_s = self._take(message, stream, outbox, stream.session.take_packet)
                    await pace.after(len(message.data), busy_s)
            finally:
                lease.release()
                answering.cancel()
        return ws

    async def _on_phone(self, request: web.Request) -> web.StreamResponse:
        """`/ws/phone`: telemetry beside the video of a stream, from any number of phones."""
        stream = self._sockets.stream_of(request)
        if self._phones >= self._config.max_phones:
            raise refusal(
                web.HTTPServiceUnavailable,
                f"{self._phones} phones are connected, which is the most; "
                f"`max_phones` of the server allows more",
            )
        self._phones += 1
        stream.phones += 1
        try:
            async with self._sockets.opened(request, largest_bytes=_LARGEST_TEXT_BYTES) as ws:
                stream.session.phone_connected()
                await self._listen_to_phone(ws, stream)
        finally:
            self._phones -= 1
            stream.phones -= 1
        return ws

    async def _listen_to_phone(self, ws: web.WebSocketResponse, stream: VideoStream) -> None:
        outbox = Outbox(ws, self._config.send_timeout_s)
        answering = asyncio.ensure_future(outbox.run())
        try:
            pace = Pace(self._config.max_receive_mbps)
            async for message in ws:
                if message.type is WSMsgType.ERROR:
                    break
                busy_s = self._take(message, stream, outbox, None)
                await pace.after(len(message.data), busy_s)
        finally:
            answering.cancel()

    def _take(
        self,
        message: WSMessage,
        stream: VideoStream,
        outbox: Outbox,
        binary: Callable[[bytes], None] | None,
    ) -> float:
        """Hand one message to the session; gives what that took of the thread's time [s]."""
        began_s = time.thread_time()
        text = stream.session.take_control if binary else stream.session.take_telemetry
        try:
            if message.type is WSMsgType.TEXT:
                _check_length(message.data)
                text(message.data)
            elif message.type is WSMsgType.BINARY and binary:
                binary(message.data)
            elif message.type is WSMsgType.BINARY:
                raise ProtocolError("binary messages are not understood here; send JSON text")
        except ProtocolError as error:
            stream.bad_messages += 1
            _log.debug("%s: bad message: %s", stream.name, error)
            outbox.say({"type": "error", "message": str(error)})
        except Exception as error:  # the edge of the thread: the sink failed, `run` raises it
            self._failed(error)
        return time.thread_time() - began_s


def _check_length(text: str) -> None:
    """Raise `ProtocolError` for more text than anything that is told here takes."""
    if len(text) > _LARGEST_TEXT_BYTES:
        raise ProtocolError(f"a text of {len(text)} characters; {_LARGEST_TEXT_BYTES} are the most")
