# SPDX-License-Identifier: Apache-2.0
"""An aiohttp application given the bytes of one connection, without a socket, thread or wait."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any
from unittest import mock

from aiohttp import web, web_fileresponse

from worldsystem_core.http_log import http_log

_MOST_ROUNDS = 500
_STRANGER = ("192.0.2.7", 4711)


class HttpPort:
    """`told` is what the application answers to a connection that sends `data` and then ends.

    Whatever it would log as an error of its own is raised.
    """

    def __init__(self, application: web.Application) -> None:
        self._loop = asyncio.new_event_loop()
        self._loop.set_default_executor(_AtOnce())
        self._loop.set_exception_handler(lambda loop, context: self._note(context))
        self._errors: list[BaseException] = []
        self._runner = web.AppRunner(
            application, access_log=None, logger=http_log("fuzz"), shutdown_timeout=0.0
        )
        self._loop.run_until_complete(self._runner.setup())

    def told(self, data: bytes) -> bytes:
        """One connection, from its first byte to its end."""
        transport = _Transport(self._loop)
        self._errors.clear()
        log = http_log("fuzz")
        log.handlers, log.propagate = [_Noting(self._errors.append)], False
        # There is no file descriptor to send a file to.
        with mock.patch.object(web_fileresponse, "NOSENDFILE", True):
            self._loop.run_until_complete(self._talk(transport, data))
        if self._errors:
            raise self._errors[0]
        return bytes(transport.told)

    def close(self) -> None:
        self._loop.run_until_complete(self._runner.cleanup())
        self._loop.close()

    async def _talk(self, transport: _Transport, data: bytes) -> None:
        assert self._runner.server is not None
        protocol: Any = self._runner.server()
        protocol.connection_made(transport)
        protocol.data_received(data)
        await self._settled()
        protocol.connection_lost(None)
        await self._settled()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await self._settled()

    async def _settled(self) -> None:
        """Return when nothing can go on but by time."""
        for _ in range(_MOST_ROUNDS):
            await asyncio.sleep(0)
            if not self._loop._ready:  # type: ignore[attr-defined]
                return

    def _note(self, context: dict[str, Any]) -> None:
        self._errors.append(context.get("exception") or RuntimeError(context["message"]))


class _Transport(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__({"peername": _STRANGER, "sockname": ("192.0.2.1", 80)})
        self.told = bytearray()
        self._closing = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.told += data

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        self._closing = True

    abort = close

    def pause_reading(self) -> None:
        """All has been read."""

    resume_reading = pause_reading

    def get_write_buffer_size(self) -> int:
        return 0

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return 0, 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Nothing waits here."""


class _AtOnce(ThreadPoolExecutor):
    """Runs what it is given in the thread that gives it."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


class _Noting(logging.Handler):
    def __init__(self, note: Callable[[BaseException], None]) -> None:
        super().__init__(logging.ERROR)
        self._note_error = note

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        self._note_error(error or RuntimeError(record.getMessage()))
