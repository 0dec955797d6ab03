# SPDX-License-Identifier: Apache-2.0
"""The server's thread, with its event loop."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import threading
import time
from collections.abc import Callable

from aiohttp import web

from worldsystem_core.access import Access, tls_context
from worldsystem_core.errors import PortInUse, SourceError
from worldsystem_core.http_log import http_log
from worldsystem_ingest.config import IngestConfig
from worldsystem_ingest.server.consumers import Consumers
from worldsystem_ingest.server.gate import Gate
from worldsystem_ingest.server.pages import Pages, PushStatusOf
from worldsystem_ingest.server.senders import Senders
from worldsystem_ingest.server.sockets import Sockets
from worldsystem_ingest.sink import Sink
from worldsystem_ingest.stream.registry import StreamRegistry, Surroundings
from worldsystem_ingest.stream.status import ServerStatus

_START_TIMEOUT_S = 10.0
_STOP_TIMEOUT_S = 10.0
_TICK_S = 1.0
_TLS_S = 5.0
_BACKLOG = 256


class Network:
    """The HTTP and WebSocket side; `failure` is what the sink raised, which also sets `stop`.

    `takes_video` says whether others may send here; otherwise the relay, health and metrics serve
    what comes by other means. Raises `ConfigError` for tokens or certificates that cannot be used.
    """

    def __init__(
        self,
        config: IngestConfig,
        sink: Sink,
        stop: threading.Event,
        *,
        push: PushStatusOf,
        takes_video: bool = True,
    ) -> None:
        self._config = config
        self._stop = stop
        self._push = push
        self._takes_video = takes_video
        self._access = Access(config)
        self._tls = tls_context(config)
        self._loop = asyncio.new_event_loop()
        self.streams = StreamRegistry(Surroundings(sink, config, self._failed, self.call_soon))
        from worldsystem_ingest.webrtc.whip import WhipEndpoint  # which needs this package

        self._sockets = Sockets(self.streams, self._access, config)
        self._whip = WhipEndpoint(self.streams, self._access, config, self._failed)
        self._senders = Senders(self._sockets, config, self._failed)
        self._gate = Gate()
        self._listener: asyncio.Server | None = None
        self.port = 0
        self.failure: BaseException | None = None
        self._began_s = time.monotonic()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run_loop, name="ingest-network", daemon=True)

    def start(self) -> None:
        """Listen; raises `PortInUse` or `SourceError` when that is not possible."""
        self._thread.start()
        if not self._ready.wait(_START_TIMEOUT_S):
            raise SourceError(f"the server did not start within {_START_TIMEOUT_S} s")
        if self.failure:
            self._thread.join(_STOP_TIMEOUT_S)
            raise self.failure

    def close(self) -> None:
        """Close every connection, join the threads, and settle every picture."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_STOP_TIMEOUT_S)
        self.streams.close()

    def status(self) -> ServerStatus:
        """The account now; safe from any thread."""
        return ServerStatus.of(self.streams.status(), time.monotonic() - self._began_s)

    def _tick(self) -> None:
        self._loop.call_later(_TICK_S, self._tick)
        try:
            self.streams.tick()
            self._gate.tick()
        except Exception as error:  # the edge of the thread: `run` raises it
            self._failed(error)

    def call_soon(self, function: Callable[[], None]) -> None:
        """Run `function` in the network thread, from any thread, unless that has ended."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function)

    def _failed(self, error: BaseException) -> None:
        self.failure = self.failure or error
        self._stop.set()

    def _run_loop(self) -> None:
        asyncio.set_event_loop(self._loop)
        runner = web.AppRunner(
            self._application(), access_log=None, shutdown_timeout=1.0, logger=http_log(__name__)
        )
        try:
            self._loop.run_until_complete(self._listen(runner))
        except Exception as error:  # the edge of the thread: `start` raises it
            self.failure = error
        finally:
            self._ready.set()
        if not self.failure:
            self._loop.call_later(_TICK_S, self._tick)
            self._loop.run_forever()
        self._loop.run_until_complete(self._shut_down(runner))
        self._loop.close()

    async def _listen(self, runner: web.AppRunner) -> None:
        config = self._config
        await runner.setup()
        assert runner.server is not None
        self._gate.opens(runner.server)
        handshake_s = _TLS_S if self._tls else None
        try:
            self._listener = await self._loop.create_server(
                self._gate,
                config.host,
                config.port,
                backlog=_BACKLOG,
                ssl=self._tls,
                ssl_handshake_timeout=handshake_s,
            )
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise PortInUse("ingest server", config.port, "`port`") from error
            raise SourceError(
                f"cannot listen on {config.host}:{config.port}: {error.strerror}; `host` must be "
                f"an address of this machine (127.0.0.1, or 0.0.0.0 for every network)"
            ) from error
        self.port = self._listener.sockets[0].getsockname()[1]

    async def _shut_down(self, runner: web.AppRunner) -> None:
        if self._listener:
            self._listener.close()
        await asyncio.gather(self._sockets.close(), self._whip.close())
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(runner.cleanup(), _STOP_TIMEOUT_S / 2)

    def _application(self) -> web.Application:
        app = web.Application(middlewares=[self._gate.middleware])
        consumers = Consumers(self._sockets, self._config)
        pages = Pages(self.status, self._access, self._push)
        app.add_routes(
            [
                web.get("/ws/h264_stream", consumers.on_consumer),
                web.get("/ws/video/consume", consumers.on_consumer),
                *pages.routes(),
            ]
        )
        if self._takes_video:
            app.add_routes([*self._senders.routes(), *self._whip.routes()])
        return app
