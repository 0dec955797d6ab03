# SPDX-License-Identifier: Apache-2.0
"""aiortc sends to our receiver: units byte for byte, loss, key frames, clocks, ends."""

import asyncio
import contextlib
import struct
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from ingest_lab import encode

pytest.importorskip("aiortc", reason="aiortc is not installed")

from aiortc import RTCConfiguration, RTCPeerConnection
from aiortc.rtp import RTCP_PSFB_APP, RtcpPsfbPacket, unpack_remb_fci
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

from worldsystem_ingest.webrtc.offer import BadOffer, checked_offer
from worldsystem_ingest.webrtc.receiver import ReceivedPicture, Receiver, ReceiverSettings

SETTINGS = ReceiverSettings(
    addresses=["127.0.0.1"],
    stun_servers=[],
    wait_s=0.2,
    silence_s=10.0,
    max_picture_bytes=4_000_000,
)


@dataclass
class Listening:
    receiver: Receiver
    pictures: list[ReceivedPicture]
    ends: list[str]
    connected: list[float] = field(default_factory=list)


@contextlib.asynccontextmanager
async def listening(settings: ReceiverSettings = SETTINGS) -> AsyncIterator[Listening]:
    pictures, ends, connected = [], [], []
    receiver = Receiver(
        settings,
        take=pictures.append,
        connected=lambda: connected.append(time.monotonic()),
        ended=ends.append,
    )
    try:
        yield Listening(receiver, pictures, ends, connected)
    finally:
        await receiver.close()


async def connect(peer, receiver: Receiver) -> None:
    await take_answer(peer, await receiver.answer(await offer_of(peer)))


def test_units_arrive_byte_for_byte():
    units = encode(30)

    async def run() -> list[ReceivedPicture]:
        track = UnitsTrack(units, 0.01)
        async with listening() as heard, offering(track) as peer:
            await connect(peer, heard.receiver)
            await until(lambda: len(heard.pictures) == len(units))
            assert heard.receiver.codec == "h264"
            return heard.pictures

    pictures = asyncio.run(run())
    assert [nals(p.data) for p in pictures] == [nals(unit.data) for unit in units]
    assert [p.is_key for p in pictures] == [unit.is_key for unit in units]
    assert [p.number for p in pictures] == list(range(30))
    gaps_ms = np.diff([p.sender_ns for p in pictures]) / 1e6
    assert np.median(gaps_ms) == pytest.approx(10.0, abs=0.1)


@pytest.mark.parametrize("codec", ["H264", "VP8"])
def test_a_lossy_link_is_mended_by_retransmission(codec):
    link = Link(loss=0.05)

    async def run() -> list[ReceivedPicture]:
        track = PicturesTrack(90, 1 / 60, picture=noisy)
        patient = replace(SETTINGS, wait_s=3.0)  # a busy machine may take long to send again
        async with listening(patient) as heard, offering(track, codec, link) as peer:
            await connect(peer, heard.receiver)
            await until(lambda: bool(heard.pictures) and heard.pictures[-1].number >= 88)
            return heard.pictures

    pictures = asyncio.run(run())
    assert link.lost > 10
    assert {p.codec for p in pictures} == {codec.lower()}
    assert [p.number for p in pictures] == list(range(len(pictures)))


def test_what_is_lost_for_good_is_counted_and_a_key_frame_follows():
    link = Link(loss=0.04, for_good=True, seed=3)

    async def run() -> list[ReceivedPicture]:
        track = PicturesTrack(150, 1 / 60, picture=noisy)
        async with listening() as heard, offering(track, "H264", link) as peer:
            await connect(peer, heard.receiver)
            await asyncio.wait_for(track.done.wait(), 15.0)
            await asyncio.sleep(0.5)
            return heard.pictures

    pictures = asyncio.run(run())
    numbers = [p.number for p in pictures]
    assert numbers == sorted(set(numbers))
    assert numbers[-1] - len(numbers) + 1 > 3, "some were lost"
    assert 130 < numbers[-1] < 155, "and counted"
    assert sum(p.is_key for p in pictures[1:]) >= 1, "aiortc's encoder makes one only when asked"


def test_the_sender_is_told_its_bit_rate_and_freed_again():
    async def run() -> list[int]:
        async with listening() as heard, offering(PicturesTrack(600, 1 / 60, noisy)) as peer:
            told = remb_heard_by(peer)
            await connect(peer, heard.receiver)
            await until(lambda: len(heard.pictures) > 5)
            assert told == [], "no limit without a reason"
            heard.receiver.limit_bitrate(700)
            await until(lambda: len(told) >= 2)
            heard.receiver.limit_bitrate(None)
            await until(lambda: told[-1] > 50_000_000)
            return told

    told = asyncio.run(run())
    assert told[0] == pytest.approx(700_000, rel=0.01)


def remb_heard_by(peer) -> list[int]:
    """The bit rates [bit/s] that the peer is told from now on."""
    told, sender = [], peer.getSenders()[0]
    handle = sender._handle_rtcp_packet

    async def listen(packet) -> None:
        if isinstance(packet, RtcpPsfbPacket) and packet.fmt == RTCP_PSFB_APP:
            bitrate, sources = unpack_remb_fci(packet.fci)
            assert sources == [sender._ssrc]
            told.append(bitrate)
        await handle(packet)

    sender._handle_rtcp_packet = listen
    return told


def noisy(number: int) -> np.ndarray:
    """A picture that takes many packets."""
    return np.random.default_rng(number).integers(0, 255, (240, 320, 3), np.uint8)


def sent_by(peer) -> list[bytes]:
    """The RTP and RTCP packets that the peer sends from now on."""
    sent, transport = [], peer.getSenders()[0].transport
    send = transport._send_rtp

    async def note(packet: bytes) -> None:
        sent.append(packet)
        await send(packet)

    transport._send_rtp = note
    return sent


def told_ns(sent: list[bytes], number: int) -> list[int]:
    """When picture `number` of a 50 Hz stream was taken, by each sender report (RFC 3550)."""
    first = next(packet for packet in sent if not 192 <= packet[1] <= 223)
    ticks = int.from_bytes(first[4:8], "big") + number * 1800
    told = []
    for packet in sent:
        if packet[1] == 200:
            second, share, stamp = struct.unpack_from(">III", packet, 8)
            at_ns = (second - 2_208_988_800) * 10**9 + (share * 10**9 >> 32)
            since = (ticks - stamp + 2**31) % 2**32 - 2**31
            told.append(at_ns + since * 10**9 // 90_000)
    return told


def test_capture_times_are_those_of_the_sender_once_it_reports():
    async def run() -> tuple[list[ReceivedPicture], list[bytes]]:
        track = UnitsTrack(encode(150), 0.02)
        async with listening() as heard, offering(track) as peer:
            sent = sent_by(peer)
            await connect(peer, heard.receiver)
            await until(lambda: len(heard.pictures) == 150)
            return heard.pictures, sent

    pictures, sent = asyncio.run(run())
    (jump,) = [at for at, picture in enumerate(pictures) if picture.clock_jumped]
    assert jump < 149
    report = 0
    for picture in pictures[jump:]:
        wrong_ns = np.abs(np.array(told_ns(sent, picture.number)) - picture.sender_ns)
        fits = np.flatnonzero(wrong_ns <= 1)  # of rounding; two reports may tell the same
        # by one report each picture is 20 ms after the last; a sender that is held up may tell less
        assert len(fits[fits >= report]), f"picture {picture.number} is told by none, or an old one"
        report = int(fits[fits >= report][0])


def test_a_browser_that_sends_nothing_is_given_up():
    async def run() -> list[str]:
        settings = replace(SETTINGS, silence_s=0.5)
        async with listening(settings) as heard, offering(UnitsTrack([], 0.1)) as peer:
            await connect(peer, heard.receiver)
            await until(lambda: bool(heard.ends))
            return heard.ends

    assert asyncio.run(run()) == ["no video came for 0.5 s"]


def test_a_browser_that_never_comes_is_given_up():
    async def run() -> list[str]:
        settings = replace(SETTINGS, silence_s=0.3)
        async with listening(settings) as heard, offering(UnitsTrack([], 0.1)) as peer:
            await heard.receiver.answer(await offer_of(peer))
            await until(lambda: bool(heard.ends))
            assert heard.connected == []
            return heard.ends

    assert asyncio.run(run()) == ["no video came for 0.3 s"]


def test_a_browser_that_leaves_is_noticed_at_once():
    async def run() -> None:
        async with listening() as heard:
            async with offering(UnitsTrack(encode(5), 0.02)) as peer:
                await connect(peer, heard.receiver)
                await until(lambda: len(heard.pictures) == 5)
            await until(lambda: bool(heard.ends), 2.0)
            assert heard.ends == ["the browser ended the connection"]

    asyncio.run(run())


def test_sound_beside_the_video_is_refused_and_the_video_taken():
    async def run() -> None:
        track = UnitsTrack(encode(10), 0.02)
        async with listening() as heard:
            peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
            peer.addTransceiver("audio", direction="sendonly")  # first, as OBS has it
            peer.addTransceiver(track, direction="sendonly")
            answer = await heard.receiver.answer(await offer_of(peer))
            await take_answer(peer, answer)
            await until(lambda: len(heard.pictures) == 10)
            await peer.close()
            assert "a=inactive" in answer

    asyncio.run(run())


def test_the_answer_takes_video_only_where_the_server_listens_and_up_to_4k():
    async def run() -> str:
        async with listening() as heard, offering(UnitsTrack([], 0.1)) as peer:
            return await heard.receiver.answer(await offer_of(peer))

    answer = asyncio.run(run())
    candidates = [line for line in answer.splitlines() if line.startswith("a=candidate")]
    assert [line.split()[4] for line in candidates] == ["127.0.0.1"]
    assert "profile-level-id=42e034" in answer
    assert "a=recvonly" in answer
    assert "x-google-start-bitrate=3000" in answer


OFFER = """v=0
o=- 1 1 IN IP4 127.0.0.1
s=-
t=0 0
m=video 9 UDP/TLS/RTP/SAVPF 96
c=IN IP4 0.0.0.0
a=rtpmap:96 H264/90000
"""


@pytest.mark.parametrize(
    "offer",
    [
        "",
        "hello",
        "v=0",
        "v=0\n" * 1000,
        OFFER,
        OFFER.replace("video", "audio"),
        OFFER + OFFER[OFFER.index("m=") :],
        OFFER + "m=audio 9 UDP/TLS/RTP/SAVPF 0\n" * 20,
        OFFER.replace("96 H264", "x H264"),
        OFFER.replace("m=video 9", "m=video x"),
        OFFER + "a=ice-ufrag:a\na=ice-pwd:b\na=setup:actpass\na=rtcp-mux\n",
        OFFER + "a=fingerprint:sha-256 00\na=candidate:1 1 udp\n",
        "v=0\nm=video \x00\n",
    ],
)
def test_an_offer_that_is_none_is_refused_with_a_reason(offer):
    async def run() -> None:
        async with listening() as heard:
            with pytest.raises(BadOffer) as refusal:
                await heard.receiver.answer(offer)
            assert len(str(refusal.value)) > 20

    asyncio.run(run())


def test_an_offer_cut_anywhere_never_raises_anything_else():
    async def run() -> None:
        async with offering(UnitsTrack([], 0.1)) as peer:
            offer = await offer_of(peer)
        for at in range(0, len(offer), 97):
            for text in (offer[:at], offer[:at] + "�" + offer[at + 1 :], offer[at:]):
                async with listening() as heard:
                    with contextlib.suppress(BadOffer):
                        await heard.receiver.answer(text)

    asyncio.run(run())


def test_names_that_only_multicast_could_find_are_left_out():
    named = "a=candidate:1 1 udp 2113937151 3a1b-77.local 50000 typ host generation 0"
    plain = "a=candidate:1 1 udp 2113937151 192.168.1.7 50000 typ host"
    kept = checked_offer(f"{OFFER}{named}\n{plain}\na=end-of-candidates\n")
    assert plain in kept
    assert ".local" not in kept
    assert "end-of-candidates" not in kept
