# SPDX-License-Identifier: Apache-2.0
"""Live streams over loopback HTTP that break, stall and come back."""

from __future__ import annotations

import contextlib
import io
import socket
import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import av
import pytest
from ingest_lab import MemorySink, encode, number_in, wait_until

from worldsystem_core.errors import SourceError
from worldsystem_ingest.backoff import Backoff
from worldsystem_ingest.config import IngestConfig
from worldsystem_ingest.live_url import LiveUrl
from worldsystem_ingest.sink import Summary


@cache
def transport_stream() -> bytes:
    """Forty pictures in MPEG-TS, as a live sender would write them."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mpegts") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 160, 96, "yuv420p"
        for at, unit in enumerate(encode(40)):
            packet = av.Packet(unit.data)
            packet.pts = packet.dts = at * 3000
            packet.time_base = Fraction(1, 90000)
            packet.stream = stream
            packet.is_keyframe = unit.is_key
            container.mux(packet)
    return buffer.getvalue()


@contextlib.contextmanager
def http_server(answer: Callable[[Callable[[bytes], object], int], None]) -> Iterator[str]:
    """Serves `answer(write, connection number)` as an endless body to each connection."""
    connections: list[int] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            connections.append(len(connections))
            self.send_response(200)
            self.send_header("Content-Type", "video/mp2t")
            self.end_headers()
            with contextlib.suppress(OSError):
                answer(self.wfile.write, connections[-1])

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/live.ts"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextlib.contextmanager
def running(url: str, **settings: object) -> Iterator[tuple[MemorySink, list[object]]]:
    sink, stop, results = MemorySink(), threading.Event(), []
    source = LiveUrl(url, IngestConfig(backoff_first_s=0.05, **settings))

    def run() -> None:
        try:
            results.append(source.run(sink, stop))
        except SourceError as error:
            results.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield sink, results
    finally:
        stop.set()
        thread.join(15.0)
        assert not thread.is_alive()


def test_a_stream_that_breaks_is_opened_again_and_ids_go_on():
    def answer(write, connection: int) -> None:
        write(transport_stream())

    with http_server(answer) as url, running(url) as (sink, _):
        wait_until(lambda: len(sink.frames) >= 100, 20.0)
    assert sink.ids == list(range(len(sink.ids)))
    assert [number_in(f.rgb) for f in sink.frames[:80]] == [*range(40), *range(40)]
    stamps = [f.stamp_ns for f in sink.frames]
    assert stamps == sorted(set(stamps))
    assert abs(stamps[-1] - time.time_ns()) < 60 * 10**9
    assert [u.id for u in sink.units] == sink.ids


def test_a_stream_that_stalls_is_opened_again():
    done = threading.Event()

    def answer(write, connection: int) -> None:
        write(transport_stream())
        if connection == 0:
            done.wait(15.0)

    with http_server(answer) as url, running(url, stall_s=0.5) as (sink, _):
        began_s = time.monotonic()
        wait_until(lambda: len(sink.frames) > 45, 14.0)
        assert time.monotonic() - began_s < 10.0
        done.set()


def test_a_sender_that_is_not_there_is_tried_again_until_the_attempts_are_used_up():
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        url = f"tcp://127.0.0.1:{holder.getsockname()[1]}"
        with running(url, connect_attempts=3) as (_, results):
            wait_until(lambda: bool(results))
    assert isinstance(results[0], SourceError)
    assert "given up after 3 attempts" in str(results[0])


def test_stop_ends_a_source_that_waits_for_its_sender():
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        url = f"tcp://127.0.0.1:{holder.getsockname()[1]}"
        with running(url, backoff_max_s=60.0) as (_, results):
            time.sleep(0.3)
            assert not results
    assert results == [Summary(frames=0, broken=None)]


@pytest.mark.parametrize("jitter", [0.0, 0.5, 1.0])
def test_waits_double_up_to_the_limit_and_begin_anew_after_a_success(jitter):
    backoff = Backoff(0.5, 8.0, lambda: jitter)
    waits = [backoff.next_s() / (1 - 0.5 * jitter) for _ in range(6)]
    assert waits == [0.5, 1.0, 2.0, 4.0, 8.0, 8.0]
    backoff.succeeded()
    assert backoff.next_s() == 0.5 * (1 - 0.5 * jitter)
