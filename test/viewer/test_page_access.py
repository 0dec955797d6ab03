# SPDX-License-Identifier: Apache-2.0
"""Who may look: tokens and TLS; and what a page on a thin line is sent beside the surface."""

from __future__ import annotations

import asyncio
import http.client
import json
import ssl
import subprocess
import threading
import time
import urllib.error
import urllib.request

import numpy as np
import pytest
from page_reader import PageReader
from websockets.asyncio.client import connect as asyncio_connect
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from world_for_viewers import keyframe, map_objects, picture, pose_event

from worldsystem_core.errors import ConfigError
from worldsystem_core.geometry.sim3 import Sim3
from worldsystem_core.splats.delta import SplatDelta, SplatOperation
from worldsystem_viewer.config import ViewerConfig
from worldsystem_viewer.page_server import PageServer
from worldsystem_viewer.protocol import (
    FoundUpdate,
    ImageUpdate,
    PointsUpdate,
    PoseUpdate,
    decode,
)


@pytest.fixture
def started():
    servers = []

    def start(**settings) -> PageServer:
        server = PageServer(ViewerConfig(web_port=0, **settings))
        server.start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.stop()


def status_of(url: str) -> int:
    try:
        return int(urllib.request.urlopen(url, timeout=5).status)
    except urllib.error.HTTPError as error:
        return error.code


def test_without_its_token_nobody_sees_the_world(started, tmp_path):
    tokens = tmp_path / "tokens.json"
    tokens.write_text(json.dumps({"viewer": "secret"}))
    server = started(token_file=str(tokens))
    base = f"127.0.0.1:{server.port}"
    with pytest.raises(InvalidStatus, match="401"):
        PageReader(server.port)
    with pytest.raises(InvalidStatus, match="401"):
        connect(f"ws://{base}/ws?token=guess", proxy=None).__enter__()
    with connect(f"ws://{base}/ws?token=secret", proxy=None, close_timeout=0.2) as socket:
        socket.send("{}")
        assert socket.recv(5)[:2] == b"WS"
    assert status_of(f"http://{base}/access?token=secret") == 204
    assert status_of(f"http://{base}/access") == 401
    assert status_of(f"http://{base}/") == 200  # the page itself asks for the token


def test_with_a_certificate_the_page_is_encrypted(started, tmp_path):
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost"
    subprocess.run(
        [*command.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True
    )
    server = started(tls_certificate=str(certificate), tls_key=str(key))
    context = ssl.create_default_context(cafile=certificate)
    context.check_hostname = False
    url = f"wss://127.0.0.1:{server.port}/ws"
    assert asyncio.run(first_answer(url, context))[:2] == b"WS"


async def first_answer(url: str, context: ssl.SSLContext) -> bytes:
    """In one thread: two at once on one TLS connection may wait for each other for ever."""
    async with asyncio_connect(url, ssl=context, proxy=None, close_timeout=0.2) as socket:
        await socket.send("{}")
        return await asyncio.wait_for(socket.recv(), 5.0)


def test_half_of_tls_is_refused():
    with pytest.raises(ConfigError, match="tls_key"):
        PageServer(ViewerConfig(tls_certificate="certificate.pem"))


def test_a_thin_line_gets_every_pose_and_pictures_as_they_fit(started):
    server = started(rest_mbps=0.1, image_fps=20.0)
    page = PageReader(server.port, mesh="code", layers=["image", "points"])
    page.read_one()
    rgb, stopping = picture(0.5), threading.Event()

    def show() -> None:
        while not stopping.wait(0.04):
            server.image(rgb, time.monotonic_ns())
            server.pose(pose_event(1, 0.5))
            server.objects(map_objects())

    feeding = threading.Thread(target=show)
    feeding.start()
    begun, received = time.monotonic(), 0
    while time.monotonic() - begun < 1.5:
        message = page.read_one()
        received += len(message.jpeg) if isinstance(message, ImageUpdate) else 0
    spent_s = time.monotonic() - begun
    stopping.set()
    feeding.join()
    assert page.counts[PoseUpdate] > page.counts[ImageUpdate] >= 1
    one = len(page.newest[ImageUpdate].jpeg)
    assert 8 * received < 1e5 * (spent_s + 0.5) + 8 * one  # the last one may be on credit
    page.close()


def test_what_a_page_does_not_show_it_is_not_sent(started):
    server = started()
    page = PageReader(server.port, layers=[])
    page.read_one()
    for n in range(10):
        server.keyframe(keyframe(n, n / 10))
        server.image(picture(0.5), n)
        server.pose(pose_event(n, n / 10))
        time.sleep(0.05)
    page.read_until(lambda p: PoseUpdate in p.newest and p.newest[PoseUpdate].frame_id == 9)
    assert not {ImageUpdate, PointsUpdate} & page.counts.keys()
    page.tell(layers=["points"])
    page.read_until(lambda p: p.counts.get(PointsUpdate) == 10)
    page.close()


def assert_two_see_splats(server) -> None:
    """Two are served, the third is not."""
    url = f"ws://127.0.0.1:{server.port}/ws/splats"
    with (
        connect(url, proxy=None, close_timeout=0.2),
        connect(url, proxy=None, close_timeout=0.2),
        pytest.raises(InvalidStatus, match="503"),
    ):
        connect(url, proxy=None).__enter__()


def test_no_more_look_at_splats_than_may_look_at_the_page(started):
    server = started(max_clients=2)
    assert_two_see_splats(server)


def test_as_many_see_splats_as_see_the_page(started):
    server = started(max_clients=2)
    pages = [PageReader(server.port) for _ in range(2)]
    for page in pages:
        page.read_one()
    assert_two_see_splats(server)
    for page in pages:
        page.close()


UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


@pytest.mark.parametrize("path", ["/ws", "/ws/mesh", "/ws/splats"])
def test_requests_that_are_no_handshake_are_refused_and_take_no_place(started, path, caplog):
    server = started(max_clients=2, website_mesh=True)
    url = f"http://127.0.0.1:{server.port}{path}"
    odd = {**UPGRADE, "Sec-WebSocket-Key": "\xe9" * 24}
    for headers in ({}, odd, {}, odd):
        with pytest.raises(urllib.error.HTTPError, match="400"):
            urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=5)
    with connect(f"ws{url[4:]}", proxy=None, close_timeout=0.2):
        pass
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_half_a_character_that_is_looked_for_comes_back_as_a_question_mark(started):
    page = PageReader(started().port)
    page.tell(find="\ud800 box")
    page.read_until(lambda p: FoundUpdate in p.newest)
    assert page.newest[FoundUpdate].text == "? box"
    page.close()


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded"])
def test_a_page_for_which_a_proxy_here_asks_is_on_a_line_to_another_machine(started, header):
    server = started()
    server.splats(
        SplatDelta(
            stamp_ns=1,
            sequence=1,
            chunk=1,
            operation=SplatOperation.PUT,
            world_from_chunk=Sim3.identity(),
            words=np.ones((3, 4), np.uint32),
            total=3,
        )
    )
    url, told = f"ws://127.0.0.1:{server.port}/ws", []
    for headers in ({}, {header: "for=203.0.113.7"}):
        given = {"proxy": None, "close_timeout": 0.2, "additional_headers": headers}
        with connect(url, **given) as page, connect(f"{url}/splats", **given) as splats:
            page.send("{}")
            told.append((decode(page.recv(5)).mesh, decode(splats.recv(5)).deflated))
    assert told == [("raw", False), ("code", True)]


def test_points_take_turns_with_pictures_that_would_fill_the_whole_share(started):
    server = started(rest_mbps=4.0)
    jpeg = np.zeros(1_000_000, np.uint8)  # four times what may come at once

    def has_points_beside_a_newer_picture(page: PageReader | None) -> bool:
        stamp_ns = time.monotonic_ns()
        server._put_picture(ImageUpdate(stamp_ns=stamp_ns, full_width=2, full_height=2, jpeg=jpeg))
        return page is not None and PointsUpdate in page.newest

    server.keyframe(keyframe(1, 0.1))
    has_points_beside_a_newer_picture(None)  # so that a picture goes first
    page = PageReader(server.port, mesh="code", layers=["image", "points"])
    page.read_until(has_points_beside_a_newer_picture)
    assert page.counts[ImageUpdate] >= 1
    page.close()


def answer_to(port: int, path: str, **headers: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path, headers={**UPGRADE, **headers})
        return connection.getresponse().status
    finally:
        connection.close()


@pytest.mark.parametrize("path", ["/ws", "/ws/splats"])
def test_a_site_that_leads_its_own_name_to_this_machine_sees_nothing(started, tmp_path, path):
    tokens = tmp_path / "tokens.json"
    tokens.write_text(json.dumps({"viewer": "secret"}))
    port, guarded = started().port, started(token_file=str(tokens)).port

    def asked(to: int, name: str, what: str = path, **headers: str) -> int:
        return answer_to(to, what, Host=f"{name}:80", Origin=f"http://{name}:80", **headers)

    assert asked(port, "page.example") == 403
    assert answer_to(port, "/access", Host="page.example:80") == 403, "why, asks the page itself"
    assert answer_to(port, "/access", Host="drone-box:80") == 204
    assert asked(port, "127.0.0.1.page.example") == 403
    assert asked(port, "page.example", **{"X-Forwarded-For": "203.0.113.7"}) == 101
    assert asked(guarded, "page.example", f"{path}?token=secret") == 101
    for name in ("127.0.0.1", "[::1]", "localhost", "drone-box", "drone-box.local"):
        assert asked(port, name) == 101, name
