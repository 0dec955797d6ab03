# SPDX-License-Identifier: Apache-2.0
"""Hostile senders: memory stays bounded, and everybody else is served as before."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import resource
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest
import websockets
from ingest_lab import AccessUnit, RunningServer, encode, packets_of, send, serving, wait_until
from test_server import fetch

from worldsystem_ingest.server import gate
from worldsystem_ingest.server.pace import Pace

MIB = 2**20
TEXT, BINARY, CONTINUATION, FIN, COMPRESSED = 1, 2, 0, 0x80, 0x40


@cache
def video() -> list[AccessUnit]:
    return encode(40)


def frame(opcode: int, payload: bytes) -> bytes:
    """A client's WebSocket frame, masked with zeros."""
    return struct.pack(">BBQ4x", opcode, 0xFF, len(payload)) + payload


def rss_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / MIB


@contextmanager
def connected(server: RunningServer, path: str) -> Iterator[socket.socket]:
    """A raw socket after the handshake of a WebSocket."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10.0) as raw:
        key = base64.b64encode(bytes(16)).decode()
        raw.sendall(
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\n"
            f"Sec-WebSocket-Extensions: permessage-deflate\r\n"
            f"Sec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += raw.recv(1)
        assert b" 101 " in answer
        assert b"permessage-deflate" not in answer
        yield raw


def close_code(raw: socket.socket) -> int:
    """The code that the server closes with."""
    received = b""
    while chunk := raw.recv(4096):
        received += chunk
    at = received.rindex(b"\x88")
    return int.from_bytes(received[at + 2 : at + 4], "big")


def works_as_before(server: RunningServer) -> None:
    """A good sender of another stream, and who asks how the server is."""
    before = server.source.status().decoded_frames
    asyncio.run(send(server.url("/ws/video?stream=good"), packets_of(video())))
    wait_until(lambda: server.source.status().decoded_frames >= before + 40)
    asked_s = time.monotonic()
    assert json.loads(fetch(server, "/health"))["status"] == "ok"
    assert time.monotonic() - asked_s < 2.0
    assert not server.errors


def test_a_flood_of_the_largest_garbage_takes_no_memory():
    garbage = frame(FIN | BINARY, b"\x09" * (8 * MIB - 1))
    with serving(max_receive_mbps=1e6) as server:
        with connected(server, "/ws/video") as raw:
            for _ in range(4):
                raw.sendall(garbage)
            before_mb = rss_mb()
            for _ in range(40):
                raw.sendall(garbage)
            wait_until(lambda: server.source.status().bad_messages >= 40)  # few are on their way
            grown_mb = rss_mb() - before_mb
            works_as_before(server)
        assert server.source.status().bad_messages >= 40
    assert grown_mb < 40


def test_a_sender_that_is_too_fast_is_slowed_and_loses_nothing():
    heavy = b"\0\0\0\1\x0c" + b"\xff" * 100_000
    packets = [p + heavy if p[4] in (3, 4) else p for p in packets_of(video())]
    with serving(max_receive_mbps=16.0) as server:
        began_s = time.monotonic()
        asyncio.run(send(server.url("/ws/video"), packets))
        server.sink.wait_settled(40)
        took_s = time.monotonic() - began_s
    assert server.sink.ids == list(range(40))
    assert took_s > (sum(map(len, packets)) * 8e-6 / 16.0 - 0.5) * 0.9  # half a second at once


def test_what_a_message_costs_in_time_counts_too():
    async def cost(pace: Pace, messages: int, busy_s: float) -> float:
        began_s = time.monotonic()
        for _ in range(messages):
            await pace.after(21, busy_s)
        return time.monotonic() - began_s

    assert asyncio.run(cost(Pace(200.0), 20, 0.05)) > 1.2  # 2 s at half of the thread, 0.5 at once
    assert asyncio.run(cost(Pace(200.0), 1000, 0.0)) < 0.5


@pytest.mark.parametrize("path", ["/ws/video", "/ws/phone", "/ws/h264_stream"])
def test_an_endless_message_is_ended_at_the_limit(path):
    part = frame(CONTINUATION, b" " * (MIB // 4))
    with serving(max_receive_mbps=1e6) as server:
        before_mb, taken = rss_mb(), 0
        with connected(server, path) as raw:
            raw.sendall(frame(TEXT, b'{"type": "'))
            with contextlib.suppress(ConnectionError):
                while taken < 400:
                    raw.sendall(part)
                    taken += 1
        grown_mb = rss_mb() - before_mb
        works_as_before(server)
    assert taken < 400  # 100 MiB; the limit is 8 MiB, and sockets hold some
    assert grown_mb < 40


@pytest.mark.parametrize("path", ["/ws/video", "/ws/phone", "/ws/h264_stream"])
def test_a_message_over_the_limit_is_refused_by_its_code(path, caplog):
    with serving(max_message_mb=0.1) as server:
        with connected(server, path) as raw:
            raw.sendall(frame(FIN | BINARY, bytes(110_000))[:5000])
            assert close_code(raw) == 1009
        works_as_before(server)
    assert not caplog.records


def test_a_text_beyond_its_bound_is_answered_unread_and_the_connection_goes_on():
    def ping(name: int, padding: int) -> str:
        return json.dumps({"type": "ping", "id": name, "padding": "x" * padding})

    with serving() as server:
        messages = [ping(1, 2**18), ping(2, 2**17)]
        told = asyncio.run(send(server.url("/ws/video"), messages, answers_wait_s=0.5))
        bad_messages = server.source.status().streams["camera"].bad_messages
    said = [json.loads(text) for text in told]
    assert [message["id"] for message in said if message["type"] == "pong"] == [2]
    (error,) = [message["message"] for message in said if message["type"] == "error"]
    assert "262144 are the most" in error
    assert bad_messages == 1


def test_compressed_messages_are_not_taken():
    with serving() as server:
        with connected(server, "/ws/video") as raw:
            raw.sendall(frame(FIN | COMPRESSED | BINARY, b"\x4a\xcd\x05\x00"))
            assert close_code(raw) == 1002
        works_as_before(server)


def test_numbers_with_huge_gaps_keep_nobody_waiting():
    rest = packets_of(video())[3:]
    began_s = time.monotonic()
    with serving() as server:
        with connected(server, "/ws/video") as raw:
            for at in range(400):
                number = struct.pack(">Q", 2990 * at if at % 7 else 2**62 + at)
                packet = rest[at % 8]
                raw.sendall(frame(FIN | BINARY, packet[:13] + number + packet[21:]))
            works_as_before(server)
        drops = [reason for _, reason in server.sink.drops]
    took_s = time.monotonic() - began_s
    # 3000 numbers at once and 300 a second; and each of the pictures itself
    lost = drops.count("lost_on_link")
    assert 2989 <= lost <= 3000 + 300 * took_s + 400
    assert len(drops) - lost <= 400


def test_thousands_of_connections_that_ask_for_nothing_shut_nobody_out():
    begun = [b"", b"GET /health HTTP/1.1\r\nHost: x\r\nX-Slow: ", b"\x16\x03\x01"]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with serving() as server:
        before_mb = rss_mb()
        held: list[socket.socket] = []
        for number in range(3000):
            raw = socket.create_connection(("127.0.0.1", server.port), timeout=10.0)
            raw.sendall(begun[number % 3])
            held.append(raw)
            if len(held) > 400:
                held.pop(0).close()
            if number % 1000 == 999:
                works_as_before(server)
        grown_mb = rss_mb() - before_mb
        for raw in held:
            raw.close()
    assert (soft, hard) == resource.getrlimit(resource.RLIMIT_NOFILE)
    assert grown_mb < 40


def test_a_request_that_never_ends_is_cut_off(monkeypatch):
    monkeypatch.setattr(gate, "_PATIENCE_S", 0.5)
    with (
        serving() as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=10.0) as raw,
    ):
        raw.sendall(b"GET /health HTTP/1.1\r\n")
        assert raw.recv(1) == b""


def test_an_idle_connection_is_kept_for_the_next_request_and_then_ended(monkeypatch):
    monkeypatch.setattr(gate, "_PATIENCE_S", 0.7)
    with (
        serving() as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=10.0) as raw,
    ):
        for _ in range(2):
            raw.sendall(b"GET /rtsp/status HTTP/1.1\r\nHost: x\r\n\r\n")
            assert raw.recv(65536).startswith(b"HTTP/1.1 200")
            time.sleep(0.1)
        assert raw.recv(65536) == b""


def test_endless_headers_are_refused_and_not_logged(caplog):
    with (
        serving() as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=10.0) as raw,
    ):
        raw.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\nX-Long: " + b"a" * 100_000)
        assert raw.recv(65536).split(b"\r\n")[0].endswith(b"400 Bad Request")
    assert not caplog.records


def test_there_are_at_most_max_phones_and_the_error_names_the_parameter():
    async def two(server: RunningServer) -> str:
        url = server.url("/ws/phone")
        async with websockets.connect(url):
            with pytest.raises(websockets.InvalidStatus, match="503") as refused:
                await websockets.connect(url)
        return json.loads(refused.value.response.body)["error"]

    with serving(max_phones=1) as server:
        assert "max_phones" in asyncio.run(two(server))
        wait_until(lambda: server.source.status().phones == 0)


def still_open(sockets: list[websockets.ClientConnection]) -> list[websockets.ClientConnection]:
    return [each for each in sockets if each.state.name == "OPEN"]


def test_senders_that_replace_each_other_at_once_leave_one():
    async def crowd(server: RunningServer) -> None:
        sockets = await asyncio.gather(
            *(websockets.connect(server.url("/ws/video")) for _ in range(12)),
            return_exceptions=True,
        )
        opened = [s for s in sockets if not isinstance(s, BaseException)]
        async with asyncio.timeout(10.0):
            while server.source.status().senders > 1 or len(still_open(opened)) > 1:
                await asyncio.sleep(0.01)
            (left,) = still_open(opened)
            await (await left.ping())
        assert server.source.status().senders == 1
        assert still_open(opened) == [left]
        for each in opened:
            await each.close()

    with serving(max_streams=2, max_phones=0, max_consumers=0) as server:
        asyncio.run(crowd(server))
        wait_until(lambda: server.source.status().senders == 0)
        works_as_before(server)
