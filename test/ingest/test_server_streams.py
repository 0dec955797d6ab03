# SPDX-License-Identifier: Apache-2.0
"""Several senders at once, each its own stream."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from functools import cache

import pytest
import websockets
from ingest_lab import (
    AccessUnit,
    MemorySink,
    RunningServer,
    encode,
    number_in,
    packets_of,
    send,
    serving,
)
from test_server import fetch

from worldsystem_ingest.codec import live_decoding
from worldsystem_ingest.config import IngestConfig
from worldsystem_ingest.stream.registry import StreamRegistry, Surroundings


@cache
def video() -> list[AccessUnit]:
    return encode(40)


def test_several_senders_at_once_each_have_their_own_ids_and_pictures():
    names = ["camera", "left", "right"]

    async def all_send(server: RunningServer) -> None:
        now = time.time_ns()
        await asyncio.gather(
            *(
                send(
                    server.url(f"/ws/video?stream={name}"),
                    packets_of(video(), first=100 * at, sender_ns=now),
                    pause_s=0.002,
                )
                for at, name in enumerate(names)
            )
        )

    with serving() as server:
        asyncio.run(all_send(server))
        server.sink.wait_settled(120)
        status = server.source.status()
    for at, name in enumerate(names):
        frames = [f for f in server.sink.frames if f.stream == name]
        assert [f.id for f in frames] == list(range(100 * at, 100 * at + 40))
        assert [number_in(f.rgb) for f in frames] == [u.shows for u in video()]
        assert status.streams[name].decoded_frames == 40
    assert status.decoded_frames == 120
    assert status.restarts == 0


def test_ids_go_on_when_a_sender_of_a_second_stream_comes_again():
    with serving() as server:
        url = server.url("/ws/video?stream=left")
        asyncio.run(send(url, packets_of(video()[:20])))
        server.sink.wait_settled(20)
        asyncio.run(send(server.url("/ws/video?stream=right"), packets_of(video()[:10])))
        asyncio.run(send(url, packets_of(video()[20:], first=20)))
        server.sink.wait_settled(50)
    assert [f.id for f in server.sink.frames if f.stream == "left"] == list(range(40))


def test_a_consumer_gets_its_stream_alone_and_may_come_before_the_sender():
    async def consume(server: RunningServer) -> list[bytes]:
        async with websockets.connect(server.url("/ws/h264_stream?stream=left")) as socket:
            await send(server.url("/ws/video"), packets_of(video()[:10]))
            await send(server.url("/ws/video?stream=left"), packets_of(video()[10:20]))
            return [await asyncio.wait_for(socket.recv(), 5) for _ in range(10)]

    with serving() as server:
        received = asyncio.run(consume(server))
        server.sink.wait_settled(20)
    assert received == [u.data for u in server.sink.units if u.stream == "left"]


def test_telemetry_belongs_to_the_stream_it_was_sent_to():
    imu = {"type": "imu", "acceleration": [0, 0, 9.81], "angular_velocity": [0.1, 0, 0]}
    with serving() as server:
        messages = [json.dumps(imu | {"timestamp_ns": time.time_ns()})]
        asyncio.run(send(server.url("/ws/phone?stream=left"), messages))
        asyncio.run(send(server.url("/ws/phone"), messages))
    assert [stream for _, stream in server.sink.telemetry] == ["left", "camera"]


@pytest.mark.parametrize("name", ["", "Left", "1left", "a" * 33, "a/b", "a%00b", "%C3%A9"])
def test_a_name_that_topics_cannot_have_is_refused(name):
    async def connect(url: str) -> None:
        async with websockets.connect(url):
            pass

    with serving() as server:
        with pytest.raises(websockets.InvalidStatus, match="400") as refused:
            asyncio.run(connect(server.url(f"/ws/video?stream={name}")))
        assert list(server.source.status().streams) == ["camera"]
    assert "a-z" in json.loads(refused.value.response.body)["error"]


def test_forgetting_streams_that_carried_nothing_keeps_nobody_waiting(monkeypatch):
    """It is done in the network thread, in which all video stands meanwhile."""
    monkeypatch.setattr(live_decoding, "_POLL_S", 30.0)
    errors: list[BaseException] = []
    around = Surroundings(MemorySink(), IngestConfig(), errors.append, lambda action: None)
    registry = StreamRegistry(around)
    leases = [registry.stream(f"empty{number}").claim(lambda: None) for number in range(3)]
    for lease in leases:
        lease.release()
    began_s = time.monotonic()
    registry.stream("next")
    assert time.monotonic() - began_s < 5.0
    assert [stream.name for stream in registry] == ["camera", "next"]
    assert not [t for t in threading.enumerate() if t.name.startswith("ingest-decode-empty")]
    assert errors == []


def test_streams_that_carried_nothing_make_room_and_others_stay():
    async def connect(url: str) -> None:
        async with websockets.connect(url):
            pass

    with serving(max_streams=3) as server:
        for number in range(10):
            asyncio.run(connect(server.url(f"/ws/video?stream=empty{number}")))
        for name in ("left", "right"):
            asyncio.run(send(server.url(f"/ws/video?stream={name}"), packets_of(video()[:10])))
        server.sink.wait_settled(20)
        with pytest.raises(websockets.InvalidStatus, match="503") as refused:
            asyncio.run(connect(server.url("/ws/video?stream=third")))
        asyncio.run(send(server.url("/ws/video"), packets_of(video()[:10])))
        server.sink.wait_settled(30)
        health = json.loads(fetch(server, "/health"))
    assert "max_streams" in json.loads(refused.value.response.body)["error"]
    assert sorted(health["streams"]) == ["camera", "left", "right"]
    assert health["streams"]["left"]["decoded_frames"] == 10
