# SPDX-License-Identifier: Apache-2.0
"""A client of relays under test, and servers for it that are not ours."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import itertools
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator

from ingest_lab import MemorySink, number_in
from websockets.asyncio import server as asyncio_server
from websockets.sync.server import ServerConnection, serve

from worldsystem_core.errors import SourceError
from worldsystem_ingest.config import IngestConfig
from worldsystem_ingest.url.ws_client import WsClient

Handler = Callable[[ServerConnection], None]


@contextlib.contextmanager
def other_server(handler: Handler, port: int = 0, **options) -> Iterator[str]:
    """A server that is not ours, on another library."""
    with serve(handler, "127.0.0.1", port, compression=None, **options) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}/ws/h264_stream"
        finally:
            server.shutdown()
            thread.join(5.0)


@contextlib.contextmanager
def other_tls_server(tls: ssl.SSLContext, messages: list[bytes]) -> Iterator[str]:
    """Sends `messages` to each client over TLS and waits until it goes; in one thread, as must."""

    async def handler(connection: asyncio_server.ServerConnection) -> None:
        for message in messages:
            await connection.send(message)
        await connection.wait_closed()

    async def run() -> None:
        async with asyncio_server.serve(handler, "127.0.0.1", 0, ssl=tls) as server:
            ports.append(server.sockets[0].getsockname()[1])
            listening.set()
            while not ended.is_set():
                await asyncio.sleep(0.02)

    ports: list[int] = []
    listening, ended = threading.Event(), threading.Event()
    thread = threading.Thread(target=asyncio.run, args=(run(),))
    thread.start()
    try:
        assert listening.wait(5.0)
        yield f"wss://127.0.0.1:{ports[0]}/ws/h264_stream"
    finally:
        ended.set()
        thread.join(5.0)


class Client:
    """A client in a thread of its own."""

    def __init__(self, url: str, **settings: object) -> None:
        self.sink, self.stop = MemorySink(), threading.Event()
        self.results: list[object] = []
        config = IngestConfig(**{"backoff_first_s": 0.05, "backoff_max_s": 0.3, **settings})
        self.source = WsClient(url, config)
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            self.results.append(self.source.run(self.sink, self.stop))
        except SourceError as error:
            self.results.append(error)

    def __enter__(self) -> Client:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        began_s = time.monotonic()
        self.stop.set()
        self._thread.join(10.0)
        assert not self._thread.is_alive()
        assert time.monotonic() - began_s < 2.0

    def numbers(self) -> list[int]:
        return [number_in(frame.rgb) for frame in self.sink.frames]

    def assert_settled_once(self) -> None:
        assert self.sink.settled == list(range(len(self.sink.settled)))
        stamps = [frame.stamp_ns for frame in self.sink.frames]
        assert all(later > earlier for earlier, later in itertools.pairwise(stamps))


def sending(messages: list[bytes | str], then: Handler | None = None, pause_s=0.0) -> Handler:
    """Sends `messages` to each client, then `then`, else waits until it goes."""

    def handler(connection: ServerConnection) -> None:
        for message in messages:
            connection.send(message)
            time.sleep(pause_s)
        if then:
            then(connection)
        else:
            for _ in connection:
                pass

    return handler


@contextlib.contextmanager
def hanging_server(connections: list[float]) -> Iterator[str]:
    """Answers the handshake by hand and then nothing at all."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0.1)
    ended, held = threading.Event(), []

    def run() -> None:
        while not ended.is_set():
            with contextlib.suppress(TimeoutError):
                peer, _ = listener.accept()
                held.append(peer)
                request = peer.recv(4096).decode()
                key = next(
                    line.split(": ")[1]
                    for line in request.split("\r\n")
                    if line.lower().startswith("sec-websocket-key")
                )
                guid = key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
                accept = base64.b64encode(hashlib.sha1(guid.encode()).digest()).decode()
                connections.append(time.monotonic())
                peer.sendall(
                    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                    b"Connection: Upgrade\r\nSec-WebSocket-Accept: " + accept.encode() + b"\r\n\r\n"
                )

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield f"ws://127.0.0.1:{listener.getsockname()[1]}/ws/h264_stream"
    finally:
        ended.set()
        thread.join()
        for peer in held:
            peer.close()
        listener.close()
