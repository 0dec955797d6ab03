# SPDX-License-Identifier: Apache-2.0
"""How long what a sender told of its video holds: codec and intrinsics."""

from __future__ import annotations

import asyncio

import pytest
import websockets
from ingest_lab import encode, packets_of, send, serving, wait_until
from link_lab import encode_h265
from test_session import Heard

from worldsystem_core import wire
from worldsystem_core.errors import ProtocolError
from worldsystem_core.wire import PacketType, VideoPacket
from worldsystem_ingest.sender import session as session_module

DESCRIBED = '{"type": "video_config", "codec": "h265", "width": 160, "height": 96, "fx": 140.0}'
UNDESCRIBED = pytest.mark.parametrize(
    "hello", [None, '{"type": "video_config", "width": 160, "height": 96}'], ids=["none", "short"]
)


@UNDESCRIBED
def test_a_sender_without_codec_after_one_of_h265_sends_h264(hello):
    heard = Heard()
    session = heard.session()
    session.take_control(DESCRIBED)
    session.connected()
    if hello:
        session.take_control(hello)
    for packet in packets_of(encode(10)):
        session.take_packet(packet)
    assert [unit.codec for unit, _ in heard.delivered] == ["h264"] * 10
    assert heard.sink.drops == []


@UNDESCRIBED
def test_a_new_senders_pictures_do_not_bear_the_intrinsics_of_the_one_before(hello):
    heard = Heard()
    session = heard.session()
    session.take_control(DESCRIBED)
    assert session.camera is not None
    assert session.camera.fx == 140.0
    session.connected()
    if hello:
        session.take_control(hello)
    session.take_packet(packets_of(encode(1))[0])
    assert session.camera is None
    session.connected()
    session.take_control(DESCRIBED)
    assert [camera.fx for camera, _ in heard.sink.cameras] == [140.0, 140.0]


def test_a_further_description_changes_only_what_it_tells():
    heard = Heard()
    session = heard.session()
    session.take_control(DESCRIBED.replace("h265", "h264"))
    session.take_control('{"type": "video_config", "fps": 60}')
    for packet in packets_of(encode(3)):
        session.take_packet(packet)
    assert heard.ids == [0, 1, 2]
    assert session.camera is not None


def test_a_description_that_is_not_understood_changes_nothing():
    heard = Heard()
    session = heard.session()
    with pytest.raises(ProtocolError, match="fx"):
        session.take_control(DESCRIBED.replace("140.0", "-140.0"))
    for packet in packets_of(encode(3)):
        session.take_packet(packet)
    assert heard.ids == [0, 1, 2]


def test_a_codec_that_is_not_known_is_answered_and_leaves_nothing_of_the_sender_before():
    heard = Heard()
    session = heard.session()
    session.take_control(DESCRIBED)
    session.connected()
    with pytest.raises(ProtocolError, match="unknown codec 'av1'; known: h264, h265"):
        session.take_control(DESCRIBED.replace("h265", "av1"))
    take_all(session, packets_of(encode(10)))
    assert [unit.codec for unit, _ in heard.delivered] == ["h264"] * 10
    assert heard.sink.drops == []
    assert session.camera is None


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("avc1.42E01E", "h264"),
        ("avc3.640028", "h264"),
        ("H.264", "h264"),
        ("hev1.1.6.L93.B0", "h265"),
        ("hvc1.1.6.L93", "h265"),
        ("video/hevc", "h265"),
    ],
)
def test_codecs_may_be_named_as_browsers_do(name, codec):
    heard = Heard()
    session = heard.session()
    other = {"h264": "h265", "h265": "h264"}[codec]
    session.take_control(DESCRIBED.replace("h265", other))
    session.connected()
    session.take_control(DESCRIBED.replace("h265", name))
    take_all(session, h265_packets(10) if codec == "h265" else packets_of(encode(10)))
    assert [unit.codec for unit, _ in heard.delivered] == [codec] * 10
    assert heard.sink.drops == []


def h265_packets(count: int, first: int = 0) -> list[bytes]:
    """The drone app's messages; key frames carry their parameter sets."""
    kinds = {True: PacketType.KEY_FRAME, False: PacketType.FRAME}
    return [
        wire.pack(
            VideoPacket(
                type=kinds[unit.is_key],
                sender_ns=10**18 + (first + at) * 33_000_000,
                payload=unit.data,
                frame_number=first + at,
            )
        )
        for at, unit in enumerate(encode_h265(count))
    ]


def take_all(session, packets: list[bytes]) -> None:
    for packet in packets:
        session.take_packet(packet)


def test_a_sender_that_comes_back_need_not_describe_itself_again():
    heard = Heard()
    session = heard.session()
    session.take_control(DESCRIBED)
    take_all(session, h265_packets(10))
    session.disconnected()
    session.connected()
    take_all(session, h265_packets(10, first=10))
    assert [unit.codec for unit, _ in heard.delivered] == ["h265"] * 20
    assert heard.sink.drops == []
    assert session.camera is not None
    assert len(heard.sink.cameras) == 1


def test_one_whose_old_connection_hangs_is_the_same_after_a_silence(monkeypatch):
    heard = Heard()
    session = heard.session()
    session.take_control(DESCRIBED)
    take_all(session, h265_packets(10))
    monkeypatch.setattr(session_module, "_ALIVE_S", 0.0)
    session.connected()
    take_all(session, h265_packets(10, first=10))
    assert [unit.codec for unit, _ in heard.delivered] == ["h265"] * 20
    assert session.camera is not None


def test_one_that_comes_back_may_describe_itself_anew():
    heard = Heard()
    session = heard.session()
    session.take_control(DESCRIBED)
    session.disconnected()
    session.connected()
    session.take_control('{"type": "video_config", "codec": "h264"}')
    take_all(session, packets_of(encode(10)))
    assert [unit.codec for unit, _ in heard.delivered] == ["h264"] * 10


def test_a_sender_from_another_address_is_another():
    heard = Heard()
    session = heard.session()
    session.connected("10.0.0.1")
    session.take_control(DESCRIBED)
    session.disconnected()
    session.connected("10.0.0.2")
    take_all(session, packets_of(encode(10)))
    assert [unit.codec for unit, _ in heard.delivered] == ["h264"] * 10
    assert session.camera is None


def test_over_sockets_too_only_another_sender_has_to_describe_itself(monkeypatch):
    monkeypatch.setattr(session_module, "_ALIVE_S", 60.0)
    first, again = h265_packets(10), h265_packets(10, first=10)
    h264 = packets_of(encode(10), first=20)

    async def replace_one_that_sends(url: str) -> None:
        async with websockets.connect(url) as sending:
            await sending.send(again[-1])
            await send(url, h264)

    with serving() as server:
        url = server.url("/ws/video")
        for messages in ([DESCRIBED, *first], again):
            asyncio.run(send(url, messages))
            wait_until(lambda: server.source.status().streams["camera"].senders == 0)
        server.sink.wait_settled(20)
        asyncio.run(replace_one_that_sends(url))
        server.sink.wait_settled(30)
    assert [unit.codec for unit in server.sink.units] == ["h265"] * 20 + ["h264"] * 10
    assert [frame.camera is None for frame in server.sink.frames] == [False] * 20 + [True] * 10


def test_a_sender_from_another_address_has_lost_nothing_and_begins_at_its_key_frame():
    heard = Heard()
    session = heard.session()
    session.connected("10.0.0.1")
    take_all(session, packets_of(encode(10)))
    session.disconnected()
    session.connected("10.0.0.2")
    in_a_group = packets_of(encode(30), first=1000)[7:]  # from picture 1005 on
    take_all(session, in_a_group)
    assert heard.sink.drops == [(number, "no_key_frame") for number in range(10, 15)]
    assert heard.ids == [*range(10), *range(15, 35)]
    assert heard.said_of("request_key_frame")
