# SPDX-License-Identifier: Apache-2.0
"""The relay: whole GOPs, bytes unchanged, nobody slowed by a neighbour."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from dataclasses import dataclass
from functools import cache

import pytest
import websockets
from ingest_lab import AccessUnit, encode, packets_of, send, serving, wait_until

from worldsystem_core.frames import EncodedFrame
from worldsystem_ingest.stream.outlet import Framing, Outlet
from worldsystem_ingest.stream.relay import Consumer, Relay, RelayLimits


def unit(number: int, gop: int = 10, size: int = 100) -> EncodedFrame:
    return EncodedFrame(
        id=number, stamp_ns=number, arrival_ns=number, data=bytes(size), is_key=number % gop == 0
    )


def taken(consumer: Consumer) -> list[int]:
    return [consumer.take().id for _ in range(len(consumer))]


def whole_gops(ids: list[int], gop: int = 10) -> bool:
    return all(
        i % gop == 0 or (at > 0 and ids[at - 1] == i - 1) for at, i in enumerate(ids)
    ) and all(i + 1 in ids or (i + 1) % gop == 0 for i in ids[:-1])


def test_a_consumer_that_joins_gets_the_gop_under_way_from_its_key_frame():
    relay = Relay(RelayLimits(100, 10**6))
    for number in range(14):
        relay.publish(unit(number))
    consumer = relay.join()
    relay.publish(unit(14))
    assert taken(consumer) == [10, 11, 12, 13, 14]
    assert relay.lost_frames == 0


def test_a_consumer_waits_for_a_key_frame_when_the_gop_is_too_long_to_keep():
    relay = Relay(RelayLimits(8, 10**6))
    for number in range(9):
        relay.publish(unit(number))
    consumer = relay.join()
    for number in range(9, 12):
        relay.publish(unit(number))
    assert taken(consumer) == [10, 11]
    assert relay.lost_frames == 0


def test_a_full_queue_loses_the_oldest_whole_gops():
    consumer = Consumer(0, RelayLimits(25, 10**6))
    for number in range(58):
        consumer.offer(unit(number))
    ids = taken(consumer)
    assert whole_gops(ids)
    assert ids[-1] == 57
    assert consumer.lost_frames + len(ids) == 58
    assert consumer.lost_gops * 10 == consumer.lost_frames


def test_a_gop_under_way_is_not_cut_while_another_can_go():
    consumer = Consumer(0, RelayLimits(25, 10**6))
    for number in range(20):
        consumer.offer(unit(number))
    ids = [consumer.take().id for _ in range(4)]
    for number in range(20, 40):
        consumer.offer(unit(number))
    ids += taken(consumer)
    assert ids[:10] == list(range(10))
    assert whole_gops(ids)


def test_the_byte_limit_holds():
    consumer = Consumer(0, RelayLimits(1000, 2500))
    for number in range(100):
        consumer.offer(unit(number, size=100))
        assert len(consumer) <= 25
    assert whole_gops(taken(consumer))


def test_a_gop_longer_than_the_queue_loses_what_does_not_fit_until_the_next_key_frame():
    consumer = Consumer(0, RelayLimits(5, 10**6))
    for number in range(10):
        consumer.offer(unit(number))
    consumer.offer(unit(10))
    assert taken(consumer) == [10]
    assert consumer.lost_frames == 10


@cache
def video() -> list[AccessUnit]:
    return encode(40)


@pytest.mark.parametrize("path", ["/ws/h264_stream", "/ws/video/consume"])
def test_a_consumer_gets_exactly_the_bytes_that_were_sent(path):
    async def consume(server) -> list[bytes]:
        async with websockets.connect(server.url(path), max_size=None) as socket:
            await send(server.url("/ws/video"), packets_of(video()))
            return [await asyncio.wait_for(socket.recv(), 5) for _ in video()]

    with serving() as server:
        received = asyncio.run(consume(server))
        server.sink.wait_settled(40)
        status = server.source.status()
    assert received == [u.data for u in server.sink.units]
    assert received[0][4] & 31 == 7
    assert status.relayed_frames == 40
    assert status.relayed_bytes == sum(map(len, received))


def test_a_consumer_that_comes_late_into_an_endless_gop_has_a_key_frame_asked_for():
    packets = packets_of([*encode(200, gop=400), *encode(1)])
    endless, key_frame = packets[:-3], packets[-3:]

    async def join(server) -> bytes:
        asked = asyncio.Event()

        async def listen(sender) -> None:
            async for message in sender:
                if json.loads(message)["type"] == "request_key_frame":
                    asked.set()

        async with websockets.connect(server.url("/ws/video"), compression=None) as sender:
            listening = asyncio.ensure_future(listen(sender))
            for packet in endless:
                await sender.send(packet)
            await asyncio.to_thread(server.sink.wait_settled, 200)
            assert not asked.is_set()
            async with websockets.connect(server.url("/ws/h264_stream")) as consumer:
                await asyncio.wait_for(asked.wait(), 5)
                for packet in key_frame:
                    await sender.send(packet)
                received = await asyncio.wait_for(consumer.recv(), 5)
            listening.cancel()
        return received

    with serving() as server:
        received = asyncio.run(join(server))
        server.sink.wait_settled(201)
    assert received == server.sink.units[200].data
    assert received[4] & 31 == 7


def heavy(messages: list[bytes]) -> list[bytes]:
    """The same pictures made heavy with filler NAL units, to fill the sockets' buffers."""
    filler = b"\0\0\0\1\x0c" + b"\xff" * 60_000 + b"\x80"
    return [m + filler if m[4] in (3, 4) else m for m in messages]


def test_a_slow_consumer_loses_whole_gops_and_a_healthy_one_nothing():
    gops = 30
    long_video = [AccessUnit(u.data, u.is_key, 0) for _ in range(gops) for u in video()[:10]]
    packets = heavy(packets_of(long_video))

    async def both(server) -> tuple[list[bytes], list[bytes]]:
        healthy: list[bytes] = []
        url = server.url("/ws/h264_stream")
        slow_socket = await websockets.connect(url, max_size=None, max_queue=1, compression=None)
        async with websockets.connect(url, max_size=None, compression=None) as socket:

            async def read() -> None:
                while len(healthy) < len(long_video):
                    healthy.append(await socket.recv())

            reading = asyncio.ensure_future(read())
            await send(server.url("/ws/video"), packets, pause_s=0.001)
            await asyncio.wait_for(reading, 20)
        slow: list[bytes] = []
        try:
            while True:
                slow.append(await asyncio.wait_for(slow_socket.recv(), 0.5))
        except TimeoutError:
            await slow_socket.close()
        return healthy, slow

    with serving(relay_queue_frames=25, decode_queue_frames=1000) as server:
        healthy, slow = asyncio.run(both(server))
        status = server.source.status()
    sent = [u.data for u in server.sink.units]
    assert healthy == sent
    assert 10 <= len(slow) < len(sent)
    assert status.relay_lost_frames == len(sent) - len(slow)
    assert is_made_of_whole_gops(slow)
    assert status.relay_lost_gops * 10 == status.relay_lost_frames


def is_made_of_whole_gops(received: list[bytes]) -> bool:
    keys = [at for at, data in enumerate(received) if data[4] & 31 == 7]
    return keys[0] == 0 and all(b - a == 10 for a, b in itertools.pairwise(keys))


def test_a_consumer_that_takes_nothing_is_let_go():
    packets = heavy(packets_of(video() * 4))

    async def stuck(server) -> None:
        url = server.url("/ws/h264_stream")
        socket = await websockets.connect(url, max_size=None, max_queue=1, compression=None)
        await send(server.url("/ws/video"), packets)
        deadline = time.monotonic() + 10
        while server.source.status().consumer_queues and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        assert not server.source.status().consumer_queues, "still there after 10 s"
        socket.transport.abort()

    with serving(send_timeout_s=0.5, relay_queue_frames=500) as server:
        asyncio.run(stuck(server))
        assert not server.source.status().consumer_queues


class SlowTransport:
    """Sends 100 bytes whenever somebody looks how much is left, down to what it keeps for ever."""

    def __init__(self, keeps_bytes: int = 0) -> None:
        self.left_bytes, self.keeps_bytes, self.sent = 0, keeps_bytes, asyncio.Event()
        self.aborted = False

    def write(self, message: bytes) -> None:
        self.left_bytes += len(message)

    def get_write_buffer_size(self) -> int:
        self.left_bytes = max(self.keeps_bytes, self.left_bytes - 100)
        if not self.left_bytes:
            self.sent.set()
        return self.left_bytes

    async def drain(self) -> None:
        await self.sent.wait()

    def abort(self) -> None:
        self.aborted = True

    def is_closing(self) -> bool:
        return False

    def set_write_buffer_limits(self, high: int) -> None:
        assert high == 0

    def get_extra_info(self, name: str) -> None:
        return None


@dataclass
class OpenSocket:
    closed: bool = False


@pytest.mark.parametrize("keeps_bytes", [0, 1500])
def test_a_consumer_stays_as_long_as_it_takes_something_of_a_large_picture(keeps_bytes):
    async def sent() -> SlowTransport:
        relay, transport = Relay(RelayLimits(100, 10**6)), SlowTransport(keeps_bytes)
        consumer = relay.join()
        outlet = Outlet(OpenSocket(), transport, relay, consumer, Framing())
        running = asyncio.ensure_future(outlet.run(transport, 0.05))
        relay.publish(unit(0, size=3000))
        await asyncio.wait({running, asyncio.ensure_future(transport.sent.wait())},
                           return_when=asyncio.FIRST_COMPLETED)  # fmt: skip
        running.cancel()
        return transport

    transport = asyncio.run(asyncio.wait_for(sent(), 20.0))
    assert transport.left_bytes == keeps_bytes
    assert transport.aborted == bool(keeps_bytes)


def test_there_are_at_most_max_consumers():
    async def three(server) -> None:
        url = server.url("/ws/h264_stream")
        async with websockets.connect(url), websockets.connect(url):
            with pytest.raises(websockets.InvalidStatus, match="503"):
                await websockets.connect(url)

    with serving(max_consumers=2) as server:
        asyncio.run(three(server))
        wait_until(lambda: not server.source.status().consumer_queues)


def test_a_consumer_of_key_frames_gets_each_of_them_and_nothing_else():
    async def consume(server) -> list[bytes]:
        url = server.url("/ws/h264_stream?keys=1")
        async with websockets.connect(url, max_size=None) as socket:
            await send(server.url("/ws/video"), packets_of(video()))
            return [await asyncio.wait_for(socket.recv(), 5) for _ in range(4)]

    with serving() as server:
        received = asyncio.run(consume(server))
        server.sink.wait_settled(40)
        status = server.source.status()
    assert received == [u.data for u in server.sink.units if u.is_key]
    assert (status.relayed_frames, status.relay_lost_frames) == (4, 0)


@pytest.mark.parametrize("size", [1, 125, 126, 65535, 65536, 200_000])
def test_messages_of_every_size_arrive_whole(size):
    async def consume(server) -> bytes:
        async with websockets.connect(server.url("/ws/h264_stream"), max_size=None) as socket:
            await asyncio.sleep(0.05)
            stream = server.source._network.streams.stream("camera")
            server.source._network.call_soon(lambda: stream.relay.publish(unit(0, size=size)))
            return await asyncio.wait_for(socket.recv(), 5)

    with serving() as server:
        assert asyncio.run(consume(server)) == bytes(size)
