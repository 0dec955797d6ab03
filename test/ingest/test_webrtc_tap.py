# SPDX-License-Identifier: Apache-2.0
"""What we take from aiortc's inside is still there; a new version that changes it fails here."""

import asyncio
import inspect

import pytest

aiortc = pytest.importorskip("aiortc", reason="aiortc is not installed")

from aiortc.jitterbuffer import JitterBuffer  # noqa: E402
from aiortc.rtcrtpreceiver import RTCRtpReceiver  # noqa: E402

from worldsystem_ingest.webrtc import tap  # noqa: E402


def in_loop(check) -> None:
    async def run() -> None:
        connection = aiortc.RTCPeerConnection(aiortc.RTCConfiguration(iceServers=[]))
        try:
            await check(connection)
        finally:
            await connection.close()

    asyncio.run(run())


def tap_of(connection) -> tap.Tap:
    receiver = connection.addTransceiver("video", direction="recvonly").receiver
    return tap.Tap(receiver, lambda packet: None, lambda ntp, timestamp: None)


def test_the_receiver_has_the_parts_that_we_take():
    async def check(connection) -> None:
        tap_of(connection)
        tap.gather_on(connection, ["127.0.0.1"])

    in_loop(check)


def test_the_receiver_feeds_its_jitter_buffer_as_we_expect():
    source = inspect.getsource(RTCRtpReceiver._handle_rtp_packet)
    assert "self.__jitter_buffer.add(packet)" in source
    assert "packet._data = depayload(codec, packet.payload)" in source
    assert "if self.__remote_bitrate_estimator is not None" in source
    assert list(inspect.signature(JitterBuffer.add).parameters) == ["self", "packet"]
    assert list(inspect.signature(RTCRtpReceiver._send_rtcp_pli).parameters)[1:] == ["media_ssrc"]
    nack = inspect.signature(RTCRtpReceiver._send_rtcp_nack)
    assert list(nack.parameters)[1:] == ["media_ssrc", "lost"]


def test_a_version_without_one_of_them_is_named(monkeypatch):
    async def check(connection) -> None:
        monkeypatch.delattr(RTCRtpReceiver, "_send_rtcp_pli")
        with pytest.raises(tap.Untappable, match=rf"aiortc {aiortc.__version__} .*_send_rtcp_pli"):
            tap_of(connection)
        monkeypatch.setattr(tap, "_BUFFER", "_gone")
        with pytest.raises(tap.Untappable, match="_gone"):
            tap_of(connection)

    in_loop(check)


def test_only_the_given_addresses_are_offered():
    async def check(connection) -> None:
        connection.addTransceiver("video", direction="recvonly")
        tap.gather_on(connection, ["127.0.0.1"])
        await connection.setLocalDescription(await connection.createOffer())
        text = connection.localDescription.sdp
        candidates = [line for line in text.splitlines() if line.startswith("a=candidate")]
        assert [line.split()[4] for line in candidates] == ["127.0.0.1"]

    in_loop(check)
