# SPDX-License-Identifier: Apache-2.0
"""Browsers that are still connecting, and the streams that they are about to send."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest
from ingest_lab import RunningServer, encode, number_in, serving

pytest.importorskip("aiortc", reason="aiortc is not installed")

from webrtc_lab import PicturesTrack, UnitsTrack, offer_of, offering, take_answer, until


async def post(
    server: RunningServer, stream: str, offer: str | AsyncIterator[bytes]
) -> tuple[int, str, str]:
    """Offer over HTTP; gives the status, the session's URL and the answer."""
    root = f"http://127.0.0.1:{server.port}"
    headers = {"Content-Type": "application/sdp"}
    async with (
        aiohttp.ClientSession() as http,
        http.post(f"{root}/whip/{stream}", data=offer, headers=headers) as response,
    ):
        session = root + response.headers.get("Location", "")
        return response.status, session, await response.text()


async def delete(session: str) -> None:
    async with aiohttp.ClientSession() as http, http.delete(session) as response:
        assert response.status == 200


async def any_offer() -> str:
    """An offer whose browser will not answer."""
    async with offering(PicturesTrack(1, 1)) as peer:
        return await offer_of(peer)


def streams_of(server: RunningServer) -> list[str]:
    return list(server.source.status().streams)


def shown(server: RunningServer, stream: str) -> list[int]:
    frames = list(server.sink.frames)
    return [number_in(frame.rgb) for frame in frames if frame.stream == stream]


def test_two_browsers_that_connect_at_once_each_have_their_stream():
    units = encode(40)

    async def run(server: RunningServer) -> None:
        left, right = UnitsTrack(units, 0.02), UnitsTrack(units, 0.02)
        async with offering(left) as left_peer, offering(right) as right_peer:
            _, _, left_answer = await post(server, "left", await offer_of(left_peer))
            _, _, right_answer = await post(server, "right", await offer_of(right_peer))
            await take_answer(left_peer, left_answer)
            await take_answer(right_peer, right_answer)
            await until(lambda: min(len(shown(server, n)) for n in ("left", "right")) >= 10)

    with serving() as server:
        asyncio.run(run(server))
    for name in ("left", "right"):
        assert shown(server, name)[:10] == list(range(10))


def test_a_browser_that_connects_holds_its_stream_until_its_session_ends():
    async def run(server: RunningServer) -> None:
        offer = await any_offer()
        status, session, _ = await post(server, "left", offer)
        assert status == 201
        assert (await post(server, "right", offer))[0] == 503
        await delete(session)
        assert (await post(server, "right", "v=0\n"))[0] == 400
        assert (await post(server, "left", offer))[0] == 201, "a refused offer holds nothing"
        assert streams_of(server) == ["camera", "left"]

    with serving(max_streams=2) as server:
        asyncio.run(run(server))


def test_a_stream_of_vp8_alone_is_kept_when_another_is_asked_for():
    """Its ids go on with the next sender: who has seen them takes no lower ones."""

    async def run(server: RunningServer) -> None:
        async with offering(PicturesTrack(60, 1 / 30), "VP8") as peer:
            _, session, answer = await post(server, "left", await offer_of(peer))
            await take_answer(peer, answer)
            await until(lambda: len(shown(server, "left")) >= 3)
            await delete(session)
        assert (await post(server, "right", "v=0\n"))[0] == 400
        assert "left" in streams_of(server)

    with serving() as server:
        asyncio.run(run(server))
    assert server.sink.units == []


def test_an_offer_is_answered_with_the_addresses_of_now(monkeypatch):
    """A machine that changes its network needs no restart."""
    now: list[str] = []
    monkeypatch.setattr("worldsystem_ingest.webrtc.whip.addresses_of", lambda host: list(now))

    async def run(server: RunningServer) -> None:
        for address in ("127.0.0.1", "127.0.0.2"):
            now[:] = [address]
            _, session, answer = await post(server, "left", await any_offer())
            lines = [line for line in answer.splitlines() if line.startswith("a=candidate")]
            assert {line.split()[4] for line in lines} == {address}
            await delete(session)

    with serving() as server:
        asyncio.run(run(server))


def test_a_stream_that_was_forgotten_while_its_offer_came_is_made_anew():
    async def run(server: RunningServer) -> None:
        offer = (await any_offer()).encode()
        rest = asyncio.Event()

        async def slowly() -> AsyncIterator[bytes]:
            yield offer[:10]
            await rest.wait()
            yield offer[10:]

        posting = asyncio.ensure_future(post(server, "left", slowly()))
        await until(lambda: "left" in streams_of(server))
        assert (await post(server, "right", "v=0\n"))[0] == 400
        assert "left" not in streams_of(server)
        rest.set()
        assert (await posting)[0] == 201
        assert "left" in streams_of(server)

    with serving() as server:
        asyncio.run(run(server))
