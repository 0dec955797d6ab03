# SPDX-License-Identifier: Apache-2.0
"""The WebSocket server that the drone app sends to, and that consumers get the video from."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from urllib.parse import urlsplit

from aiohttp import WSCloseCode, WSMessage, WSMsgType, web

from worldsystem_core.errors import PortInUse, ProtocolError, SourceError
from worldsystem_core.frames import EncodedFrame
from worldsystem_ingest.config import IngestConfig
from worldsystem_ingest.counters import CountingSink
from worldsystem_ingest.live_decoding import LiveDecoding
from worldsystem_ingest.metrics import ServerStatus, exposition
from worldsystem_ingest.relay import Consumer, Relay, RelayLimits
from worldsystem_ingest.session import SenderSession
from worldsystem_ingest.sink import Sink, Summary

_log = logging.getLogger(__name__)
_MIB = 2**20
_HEARTBEAT_S = 20.0
_START_TIMEOUT_S = 10.0
_STOP_TIMEOUT_S = 10.0
_MAX_PHONES = 16
_SEND_BUFFER_BYTES = 256 * 1024


class ServerSource:
    """Listens for the drone app; `run` decodes in its own thread and owns the network thread."""

    live = True

    def __init__(self, config: IngestConfig) -> None:
        self._config = config
        self._network: Network | None = None
        self._listening = threading.Event()

    def wait_port(self, timeout_s: float) -> int:
        """The port once the server listens; raises `TimeoutError` when it does not by then."""
        if not self._listening.wait(timeout_s) or self._network is None:
            raise TimeoutError(f"the server does not listen after {timeout_s} s")
        return self._network.port

    def status(self) -> ServerStatus | None:
        """The account now; None before the server listens. Safe from any thread."""
        return self._network.status() if self._network else None

    def facts(self) -> dict[str, object]:
        """Nothing beside the ledger."""
        return {}

    def problem(self) -> str:
        """None that would not end the source."""
        return ""

    def run(self, sink: Sink, stop: threading.Event) -> Summary:
        """Serve until `stop`; raises `PortInUse`, or whatever the sink raised."""
        counting = CountingSink(sink)
        network = Network(self._config, counting, stop)
        network.start()
        self._network = network
        self._listening.set()
        try:
            network.decoding.run(stop)
        finally:
            network.close()
            network.decoding.close()
        if network.failure:
            raise network.failure
        return Summary(frames=counting.decoded_frames, broken=None)


class Network:
    """The HTTP and WebSocket side, in its own thread with its own event loop."""

    def __init__(self, config: IngestConfig, sink: CountingSink, stop: threading.Event) -> None:
        self._config = config
        self._sink = sink
        self._stop = stop
        limits = RelayLimits(config.relay_queue_frames, int(config.relay_queue_mb * _MIB))
        self._relay = Relay(limits)
        self._session = SenderSession(sink, self._deliver, config.stream, config.clock_window_s)
        self.decoding = LiveDecoding(sink, config.decode_queue_frames, lambda: self._session.camera)
        self.port = 0
        self.failure: BaseException | None = None
        self._sender: web.WebSocketResponse | None = None
        self._sockets: set[web.WebSocketResponse] = set()
        self._closing: set[asyncio.Future[bool]] = set()
        self._phones = 0
        self._bad_messages = 0
        self._began_s = time.monotonic()
        self._loop = asyncio.new_event_loop()
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
        """Close every connection and join the thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_STOP_TIMEOUT_S)

    def status(self) -> ServerStatus:
        """The account now."""
        session, relay, sink = self._session, self._relay, self._sink
        last_s = session.last_picture_s
        return ServerStatus(
            uptime_s=time.monotonic() - self._began_s,
            senders=int(self._sender is not None),
            phones=self._phones,
            consumer_queues={c.number: len(c) for c in relay.consumers},
            last_picture_age_s=None if last_s is None else time.monotonic() - last_s,
            bandwidth_mbps=session.bandwidth.now_mbps(),
            bandwidth_average_mbps=session.bandwidth.average_mbps(),
            low_bandwidth=session.bandwidth.low,
            received_bytes=session.bandwidth.total_bytes,
            encoded_frames=sink.encoded_frames,
            decoded_frames=sink.decoded_frames,
            drops=sink.drops(),
            relayed_frames=relay.sent_frames,
            relayed_bytes=relay.sent_bytes,
            relay_lost_frames=relay.lost_frames,
            relay_lost_gops=relay.lost_gops,
            decode_queue=len(self.decoding),
            late=session.numbers.late,
            duplicates=session.numbers.duplicates,
            restarts=session.numbers.restarts,
            bad_messages=self._bad_messages,
            implausible_times=session.clock.implausible,
            telemetry_samples=dict(sink.telemetry_samples),
        )

    def _run_loop(self) -> None:
        asyncio.set_event_loop(self._loop)
        runner = web.AppRunner(self._application(), access_log=None, shutdown_timeout=1.0)
        try:
            self._loop.run_until_complete(self._listen(runner))
        except Exception as error:  # the edge of the thread: `start` raises it
            self.failure = error
        finally:
            self._ready.set()
        if not self.failure:
            self._loop.run_forever()
        self._loop.run_until_complete(self._shut_down(runner))
        self._loop.close()

    async def _listen(self, runner: web.AppRunner) -> None:
        config = self._config
        await runner.setup()
        try:
            await web.TCPSite(runner, config.host, config.port).start()
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise PortInUse("ingest server", config.port, "`port`") from error
            raise SourceError(
                f"cannot listen on {config.host}:{config.port}: {error.strerror}; `host` must be "
                f"an address of this machine (127.0.0.1, or 0.0.0.0 for every network)"
            ) from error
        self.port = runner.addresses[0][1]

    async def _shut_down(self, runner: web.AppRunner) -> None:
        closing = [ws.close(code=WSCloseCode.GOING_AWAY) for ws in self._sockets]
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.gather(*closing, return_exceptions=True), 2.0)
        await runner.cleanup()

    def _application(self) -> web.Application:
        app = web.Application()
        app.add_routes(
            [
                web.get("/ws/video", self._on_video),
                web.get("/ws/phone", self._on_phone),
                web.get("/ws/h264_stream", self._on_consumer),
                web.get("/ws/video/consume", self._on_consumer),
                web.get("/health", self._on_health),
                web.get("/health/rtsp", self._on_rtsp),
                web.get("/rtsp/status", self._on_rtsp),
                web.get("/metrics", self._on_metrics),
            ]
        )
        return app

    def _deliver(self, unit: EncodedFrame, after_loss: bool) -> None:
        self._relay.publish(unit)
        self.decoding.put(unit, after_loss)

    async def _open_socket(
        self, request: web.Request, heartbeat_s: float | None = _HEARTBEAT_S
    ) -> web.WebSocketResponse:
        _refuse_foreign_pages(request)
        limit = int(self._config.max_message_mb * _MIB)
        ws = web.WebSocketResponse(max_msg_size=limit, heartbeat=heartbeat_s, compress=False)
        await ws.prepare(request)
        self._sockets.add(ws)
        return ws

    async def _on_video(self, request: web.Request) -> web.WebSocketResponse:
        ws = await self._open_socket(request)
        previous, self._sender = self._sender, ws
        if previous:
            _log.warning("a new sender replaces the one before")
            self._close_aside(previous)
        self._session.connected()
        try:
            async for message in ws:
                if self._sender is ws:
                    await self._take_video(ws, message)
        finally:
            self._sockets.discard(ws)
            if self._sender is ws:
                self._sender = None
        return ws

    def _close_aside(self, ws: web.WebSocketResponse) -> None:
        """Close without waiting for the answer, which a peer that hangs never gives."""
        closing = asyncio.ensure_future(
            ws.close(code=WSCloseCode.POLICY_VIOLATION, message=b"replaced by a new sender")
        )
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    async def _on_phone(self, request: web.Request) -> web.StreamResponse:
        if self._phones >= _MAX_PHONES:
            return web.json_response({"error": "too many phones"}, status=503)
        self._phones += 1
        try:
            ws = await self._open_socket(request)
            async for message in ws:
                await self._take(ws, message, None, self._session.take_telemetry)
        finally:
            self._phones -= 1
        self._sockets.discard(ws)
        return ws

    async def _take_video(self, ws: web.WebSocketResponse, message: WSMessage) -> None:
        await self._take(ws, message, self._session.take_packet, self._session.take_control)

    async def _take(
        self,
        ws: web.WebSocketResponse,
        message: WSMessage,
        binary: Callable[[bytes], None] | None,
        text: Callable[[str], None],
    ) -> None:
        try:
            if message.type is WSMsgType.TEXT:
                text(message.data)
            elif message.type is WSMsgType.BINARY and binary:
                binary(message.data)
            elif message.type is WSMsgType.BINARY:
                raise ProtocolError("binary messages are not understood here; send JSON text")
        except ProtocolError as error:
            self._bad_messages += 1
            _log.debug("bad message: %s", error)
            await ws.send_json({"type": "error", "message": str(error)})
        except Exception as error:  # the edge of the thread: the sink failed, `run` raises it
            self.failure = error
            self._stop.set()

    async def _on_consumer(self, request: web.Request) -> web.StreamResponse:
        if len(self._relay.consumers) >= self._config.max_consumers:
            error = f"{self._config.max_consumers} consumers are connected; that is the most"
            return web.json_response({"error": error}, status=503)
        consumer = self._relay.join()
        try:
            # a heartbeat would wait behind the video and end who is merely slow
            ws = await self._open_socket(request, heartbeat_s=None)
            _keep_backlog_in_our_queue(request)
            sending = asyncio.ensure_future(self._send_to(request, ws, consumer))
            try:
                async for _ in ws:
                    pass
            finally:
                sending.cancel()
                self._sockets.discard(ws)
        finally:
            self._relay.leave(consumer)
        return ws

    async def _send_to(
        self, request: web.Request, ws: web.WebSocketResponse, consumer: Consumer
    ) -> None:
        try:
            while not ws.closed:
                unit = await consumer.next()
                await asyncio.wait_for(ws.send_bytes(unit.data), self._config.send_timeout_s)
                self._relay.sent(unit)
        except (ConnectionError, RuntimeError):
            _log.debug("consumer %d left", consumer.number)
        except TimeoutError:
            _log.warning("consumer %d takes nothing and is let go", consumer.number)
            if request.transport:
                request.transport.abort()

    async def _on_health(self, request: web.Request) -> web.Response:
        status = self.status()
        return web.json_response({"status": "ok", "receiving": status.receiving, **asdict(status)})

    async def _on_rtsp(self, request: web.Request) -> web.Response:
        """The deployed clients ask here; we relay over WebSocket and push to no RTSP server."""
        status = self.status()
        return web.json_response(
            {
                "status": "healthy" if status.receiving else "no_video",
                "rtsp_push": False,
                "receiving": status.receiving,
                "bandwidth_mbps": status.bandwidth_mbps,
                "bandwidth_average_mbps": status.bandwidth_average_mbps,
                "low_bandwidth": status.low_bandwidth,
                "frames": status.encoded_frames,
                "consumers": len(status.consumer_queues),
            }
        )

    async def _on_metrics(self, request: web.Request) -> web.Response:
        return web.Response(
            body=exposition(self.status()), content_type="text/plain", charset="utf-8"
        )


def _refuse_foreign_pages(request: web.Request) -> None:
    """Browsers let every page open sockets to this machine; only pages from here may."""
    origin = request.headers.get("Origin")
    if origin and urlsplit(origin).hostname != urlsplit(f"//{request.host}").hostname:
        raise web.HTTPForbidden(text=f"pages of {origin} may not connect to this server")


def _keep_backlog_in_our_queue(request: web.Request) -> None:
    """Megabytes in the kernel's buffer would reach a slow consumer seconds late."""
    peer = request.transport.get_extra_info("socket") if request.transport else None
    if peer is not None:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
