# SPDX-License-Identifier: Apache-2.0
"""Video over the WHIP endpoint of a running server, with aiortc as the browser."""

import asyncio
import contextlib
import importlib
import itertools
import json
import os
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import AsyncIterator
from dataclasses import dataclass

import aiohttp
import numpy as np
import pytest
from ingest_lab import (
    MemorySink,
    RunningServer,
    encode,
    number_in,
    numbered_picture,
    serving,
)

from worldsystem_ingest.webrtc.page import FILES

pytest.importorskip("aiortc", reason="aiortc is not installed")

from webrtc_lab import (
    Link,
    PicturesTrack,
    UnitsTrack,
    nals,
    offer_of,
    offering,
    take_answer,
    until,
)


async def connect(server: RunningServer, peer, path: str = "/whip") -> str:
    """Offer over HTTP and take the answer; gives the session's URL."""
    root = f"http://127.0.0.1:{server.port}"
    headers = {"Content-Type": "application/sdp"}
    offer = await offer_of(peer)
    async with (
        aiohttp.ClientSession() as http,
        http.post(root + path, data=offer, headers=headers) as response,
    ):
        assert response.status == 201, await response.text()
        assert response.content_type == "application/sdp"
        await take_answer(peer, await response.text())
        return root + response.headers["Location"]


@contextlib.asynccontextmanager
async def whip(server: RunningServer, peer, path: str = "/whip") -> AsyncIterator[str]:
    """A session that is deleted at the end."""
    session = await connect(server, peer, path)
    yield session
    await request(session, "DELETE")


def test_units_reach_the_sink_as_they_were_sent():
    units = encode(40)

    async def run(server: RunningServer) -> None:
        track = UnitsTrack(units, 0.02)
        async with offering(track) as peer, whip(server, peer):
            await until(lambda: len(server.sink.frames) == len(units))

    with serving() as server:
        asyncio.run(run(server))
        sink = server.sink
    assert [number_in(frame.rgb) for frame in sink.frames] == [unit.shows for unit in units]
    assert [nals(unit.data) for unit in sink.units] == [nals(unit.data) for unit in units]
    assert sink.ids == list(range(40))
    assert sink.drops == []


def test_the_page_is_served_with_a_policy_that_lets_nothing_in():
    async def run(port: int) -> None:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http:
            for path in ("/camera", *(f"/camera/{name}" for name in FILES)):
                async with http.get(path) as response:
                    assert response.status == 200, path
                    policy = response.headers["Content-Security-Policy"]
                    assert "default-src 'none'" in policy
                    assert "unsafe" not in policy
                    assert response.headers["X-Content-Type-Options"] == "nosniff"
            async with http.get("/camera/../page.py") as response:
                assert response.status == 404

    with serving() as server:
        asyncio.run(run(server.port))


def test_vp8_is_decoded_but_neither_relayed_nor_recorded(caplog):
    async def run(server: RunningServer) -> None:
        track = PicturesTrack(40, 1 / 30)
        async with offering(track, "VP8") as peer, whip(server, peer, "/whip/phone"):
            await until(lambda: len(server.sink.frames) >= 38)

    with serving() as server:
        asyncio.run(run(server))
        sink, relayed = server.sink, server.source.status().relayed_frames
    assert [number_in(frame.rgb) for frame in sink.frames] == sink.ids
    assert {frame.stream for frame in sink.frames} == {"phone"}
    assert sink.units == []
    assert relayed == 0
    assert "neither relayed nor pushed" in caplog.text


@pytest.mark.parametrize("codec", ["H264", "VP8"])
def test_after_loss_the_pictures_shown_are_right_and_all_are_accounted_for(codec):
    link = Link(loss=0.03, for_good=True, seed=1)

    async def run(server: RunningServer) -> None:
        track = PicturesTrack(1800, 1 / 30, picture=numbered_over_noise)
        async with offering(track, codec, link) as peer, whip(server, peer):
            await until(lambda: times_back(server.sink.ids) >= 3, 50.0)
            await until(lambda: len(server.sink.ids) > 30)

    with serving() as server:
        asyncio.run(run(server))
        facts = server.source.facts()
        text = urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics").read().decode()
    sink = server.sink
    assert facts["camera.packets_lost"] >= sum(why == "lost_on_link" for _, why in sink.drops)
    assert 'ingest_stream_packets_lost_total{stream="camera"}' in text
    assert sink.settled == list(range(len(sink.settled)))
    reasons = {reason for _, reason in sink.drops}
    assert "lost_on_link" in reasons
    assert reasons <= {"lost_on_link", "no_key_frame"}
    shown = [number_in(frame.rgb) for frame in sink.frames]
    assert shown == sorted(set(shown))
    assert abs(shown[-1] - sink.ids[-1]) <= 2, "ids count what was lost, to a picture or two"


def times_back(ids: list[int]) -> int:
    """How often pictures were shown again after some that were not."""
    return sum(after > before + 1 for before, after in itertools.pairwise(ids))


def numbered_over_noise(number: int) -> np.ndarray:
    """The number in bars, and enough noise below them for several packets."""
    picture = numbered_picture(number)
    picture[-20:] = np.random.default_rng(number).integers(0, 255, (20, *picture.shape[1:]))
    return picture


def test_a_new_browser_replaces_the_one_before_and_that_one_can_learn_why():
    async def run(server: RunningServer) -> None:
        first, second = (PicturesTrack(300, 1 / 30) for _ in range(2))
        async with offering(first) as peer, whip(server, peer) as session:
            await until(lambda: len(server.sink.frames) > 5)
            async with offering(second) as other, whip(server, other):
                before = len(server.sink.frames)
                await until(lambda: peer.connectionState == "closed")
                await until(lambda: len(server.sink.frames) > before + 10)
                state = await get_json(session.replace("/whip/", "/camera/"))
                assert state["state"] == "ended"
                assert state["reason"] == "another sender took the stream"

    with serving() as server:
        asyncio.run(run(server))
    assert server.sink.ids == sorted(set(server.sink.ids))
    assert server.sink.settled == list(range(len(server.sink.settled)))


def test_an_offer_that_comes_to_nothing_takes_the_stream_from_nobody():
    async def run(server: RunningServer) -> None:
        async with offering(PicturesTrack(300, 1 / 30)) as peer, whip(server, peer):
            await until(lambda: len(server.sink.frames) > 5)
            async with offering(PicturesTrack(1, 1)) as other:
                assert (await post(server, "/whip", await offer_of(other))).status == 201
            await asyncio.sleep(0.5)
            before = len(server.sink.frames)
            await until(lambda: len(server.sink.frames) > before + 5)

    with serving() as server:
        asyncio.run(run(server))


def test_delete_ends_the_session():
    async def run(server: RunningServer) -> None:
        async with offering(PicturesTrack(300, 1 / 30)) as peer:
            async with whip(server, peer) as session:
                await until(lambda: len(server.sink.frames) > 5)
                assert (await request(session, "PATCH")).status == 405
                assert (await request(session, "OPTIONS")).status == 204
                assert server.source.status().senders == 1
                assert (await request(session, "DELETE")).status == 200
                assert (await request(session, "DELETE")).status == 200
                assert server.source.status().senders == 0
            await until(lambda: peer.connectionState == "closed")

    with serving() as server:
        asyncio.run(run(server))


def test_what_is_no_offer_is_refused_and_the_server_goes_on():
    async def run(server: RunningServer) -> None:
        cases = [
            ("/whip", "v=0\n", "application/sdp", 400),
            ("/whip", "v=0\n", "text/plain", 415),
            ("/whip", "v=0" + 70_000 * "\n", "application/sdp", 413),
            ("/whip", b"v=0\xff", "application/sdp", 400),
            ("/whip/Bad-Name", "v=0\n", "application/sdp", 400),
        ]
        for path, body, content_type, status in cases:
            answer = await post(server, path, body, content_type)
            assert answer.status == status, (path, answer)
            assert len(answer.text) > 10
        root = f"http://127.0.0.1:{server.port}"
        assert (await request(f"{root}/whip/session/none", "DELETE")).status == 404
        assert (await request(f"{root}/whip", "GET")).status == 405
        assert (await request(f"{root}/whip", "OPTIONS")).status == 204
        foreign = await post(server, "/whip", "v=0\n", origin="http://other.example")
        assert foreign.status == 403
        async with offering(PicturesTrack(60, 1 / 30)) as peer, whip(server, peer):
            await until(lambda: len(server.sink.frames) > 5)

    with serving() as server:
        asyncio.run(run(server))


def test_only_so_many_browsers_may_be_connecting():
    async def run(server: RunningServer) -> None:
        async with offering(PicturesTrack(1, 1)) as peer:
            offer = await offer_of(peer)
        answers = [await post(server, "/whip", offer) for _ in range(8)]
        assert [answer.status for answer in answers] == 5 * [201] + 3 * [503]
        assert "max_streams" in answers[-1].text
        assert (await post(server, "/whip/another", offer)).status == 503

    with serving(max_streams=1) as server:
        asyncio.run(run(server))


def test_connecting_often_leaves_nothing_behind():
    units = encode(3)

    async def once(server: RunningServer) -> None:
        before = len(server.sink.frames)
        async with offering(UnitsTrack(units, 0.01)) as peer, whip(server, peer):
            await until(lambda: len(server.sink.frames) == before + 3)

    async def run(server: RunningServer) -> list[tuple[int, int]]:
        counts = []
        for _ in range(20):
            await once(server)
            await asyncio.sleep(0.05)
            counts.append((len(os.listdir("/proc/self/fd")), threading.active_count()))
        return counts

    with serving() as server:
        counts = asyncio.run(run(server))
        tasks = tasks_of(server)
    descriptors, threads = zip(*counts, strict=True)
    assert max(descriptors[10:]) <= max(descriptors[:5]) + 3
    assert max(threads[10:]) <= max(threads[:5]) + 1
    assert tasks <= 6
    assert len(server.sink.frames) == 60


def tasks_of(server: RunningServer) -> int:
    """Tasks in the server's loop."""
    return len(asyncio.all_tasks(server.source._network._loop))


def test_the_server_ends_with_browsers_connected():
    async def run() -> None:
        async with offering(PicturesTrack(300, 1 / 30)) as peer:
            with serving() as server:
                await connect(server, peer)
                await until(lambda: len(server.sink.frames) > 5)
            began_s = time.monotonic()
            await until(lambda: peer.connectionState == "closed")
            assert time.monotonic() - began_s < 3.0

    asyncio.run(run())


def test_a_sink_that_fails_ends_the_server_with_its_error():
    class Failing(MemorySink):
        def encoded(self, unit) -> None:
            raise RuntimeError("the disk is full")

    async def run(server: RunningServer) -> None:
        async with offering(PicturesTrack(300, 1 / 30)) as peer, whip(server, peer):
            await until(lambda: server.stop.is_set())

    with serving(Failing()) as server, contextlib.suppress(aiohttp.ClientError):
        asyncio.run(run(server))
    assert [str(error) for error in server.errors] == ["the disk is full"]


def test_without_aiortc_everything_else_is_served_and_the_page_says_why(monkeypatch):
    import_module = importlib.import_module

    def missing(name: str, *rest):
        if name.endswith("webrtc.receiver"):
            raise ImportError("No module named 'aiortc'")
        return import_module(name, *rest)

    monkeypatch.setattr("worldsystem_ingest.webrtc.whip.importlib.import_module", missing)

    async def run(server: RunningServer) -> None:
        root = f"http://127.0.0.1:{server.port}"
        page = await request(f"{root}/camera", "GET")
        assert page.status == 503
        assert "pip install aiortc" in page.text
        offer = await post(server, "/whip", "v=0\n")
        assert offer.status == 503
        assert "aiortc" in offer.text
        assert (await request(f"{root}/health", "GET")).status == 200

    with serving() as server:
        asyncio.run(run(server))


def test_the_server_starts_without_importing_aiortc():
    code = (
        "import sys, worldsystem_ingest.server, worldsystem_ingest.webrtc.whip\n"
        "sys.exit('aiortc' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", code], env=environment).returncode == 0


@dataclass
class Answer:
    status: int
    text: str


async def request(url: str, method: str, **options) -> Answer:
    async with aiohttp.ClientSession() as http, http.request(method, url, **options) as response:
        return Answer(response.status, await response.text())


async def post(
    server: RunningServer,
    path: str,
    body: str | bytes,
    content_type: str = "application/sdp",
    origin: str = "",
) -> Answer:
    headers = {"Content-Type": content_type} | ({"Origin": origin} if origin else {})
    url = f"http://127.0.0.1:{server.port}{path}"
    return await request(url, "POST", data=body, headers=headers)


async def get_json(url: str) -> dict:
    return json.loads((await request(url, "GET")).text)
