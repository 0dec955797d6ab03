# SPDX-License-Identifier: Apache-2.0
"""Strangers at the ports of the monitor, the mesher and the web page: all go on serving."""

from __future__ import annotations

import contextlib
import random
import socket
import time
import urllib.request
from collections.abc import Iterator

import pytest

from worldsystem.watch.server import WatchServer
from worldsystem.watch.state import SystemState
from worldsystem_core.process_figures import process_figures
from worldsystem_mesh.metrics import MetricsServer
from worldsystem_viewer.config import ViewerConfig
from worldsystem_viewer.page_server import PageServer


@pytest.fixture(params=["monitor", "mesher", "page"])
def address(request: pytest.FixtureRequest) -> Iterator[tuple[int, str]]:
    """Port and a path that must be answered, of each server in turn."""
    if request.param == "monitor":
        watch = WatchServer("127.0.0.1", 0, SystemState())
        yield watch.port, "/metrics"
        watch.close()
    elif request.param == "mesher":
        metrics = MetricsServer("127.0.0.1", 0, dict, str)
        yield metrics.port, "/metrics"
        metrics.close()
    else:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = int(free.getsockname()[1])
        page = PageServer(ViewerConfig(web_port=port))
        page.start()
        yield port, "/"
        page.stop()


def malformed(random_: random.Random) -> bytes:
    forms = (
        random_.randbytes(random_.randrange(1, 400)),
        b"GET " + random_.randbytes(60).replace(b"\n", b"") + b" HTTP/1.1\r\n\r\n",
        b"POST /metrics HTTP/1.1\r\nContent-Length: 1073741824\r\n\r\nx",
        b"GET /../../../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        b"GET / HTTP/9.9\r\n" + b"A: b\r\n" * 300 + b"\r\n",
        b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n",
    )
    return random_.choice(forms)


def send(port: int, count: int) -> None:
    random_ = random.Random(5)
    for _ in range(count):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 2) as link:
            link.sendall(malformed(random_))


def assert_serves(port: int, path: str, limit_s: float = 8.0) -> None:
    end_s = time.monotonic() + limit_s
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=3) as answer:
                assert answer.status == 200
                return
        except OSError:
            assert time.monotonic() < end_s, "does not serve any more"
            time.sleep(0.1)


def memory_mb() -> float:
    return float(str(process_figures()["process.memory_mb"]))


def test_a_port_serves_after_300_malformed_requests(address: tuple[int, str]) -> None:
    send(address[0], 300)
    assert_serves(*address)


@pytest.mark.slow
def test_a_port_serves_after_10000_malformed_requests_in_flat_memory(
    address: tuple[int, str],
) -> None:
    send(address[0], 1000)
    before_mb = memory_mb()
    send(address[0], 10_000)
    assert_serves(*address)
    assert memory_mb() - before_mb < 50


@pytest.mark.slow
def test_a_port_serves_again_while_200_slow_connections_hang(address: tuple[int, str]) -> None:
    links = []
    for _ in range(200):
        with contextlib.suppress(OSError):
            link = socket.create_connection(("127.0.0.1", address[0]), 2)
            link.sendall(b"GET / HTTP/1.1\r\nX: ")
            links.append(link)
    assert_serves(*address)
    for link in links:
        link.close()
