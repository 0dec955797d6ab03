# SPDX-License-Identifier: Apache-2.0
"""Video over the WHIP endpoint of a running server, with aiortc as the browser."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import aiohttp
import pytest
from ingest_lab import RunningServer, encode, number_in, serving

from worldsystem_ingest.webrtc.page import FILES

pytest.importorskip("aiortc", reason="aiortc is not installed")

from webrtc_lab import (
    UnitsTrack,
    nals,
    offer_of,
    offering,
    take_answer,
    until,
)


@contextlib.asynccontextmanager
async def whip(server: RunningServer, peer, path: str = "/whip") -> AsyncIterator[str]:
    """Offer over HTTP and take the answer; gives the session's URL, which ends at the end."""
    root = f"http://127.0.0.1:{server.port}"
    async with aiohttp.ClientSession() as http:
        offer = await offer_of(peer)
        headers = {"Content-Type": "application/sdp"}
        async with http.post(root + path, data=offer, headers=headers) as response:
            assert response.status == 201, await response.text()
            assert response.content_type == "application/sdp"
            session = root + response.headers["Location"]
            await take_answer(peer, await response.text())
        yield session
        await http.delete(session)


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
