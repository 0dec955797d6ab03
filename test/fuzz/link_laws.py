# SPDX-License-Identifier: Apache-2.0
"""What browsers and RTSP servers say: offers, RTP and RTCP packets, answers."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator

from aiortc.codecs import depayload
from aiortc.rtcrtpparameters import RTCRtpCodecParameters
from aiortc.rtp import RtcpPacket, RtcpSrPacket, RtpPacket
from pieces import pieces

from worldsystem_ingest.rtsp_push.rtsp_record import RtspRecording
from worldsystem_ingest.url.link import LinkError
from worldsystem_ingest.webrtc.jitter_buffer import JitterBuffer, Packet
from worldsystem_ingest.webrtc.offer import BadOffer, checked_offer, completed_answer
from worldsystem_ingest.webrtc.receiver import H264, VP8, _begins_picture, _is_key
from worldsystem_ingest.webrtc.rtp_clock import RtpClock

_MOST_BYTES = 2000
_NOW_NS = 1_764_000_000 * 10**9
_CODECS = {96: H264, 97: VP8}
_PARAMETERS = {
    name: RTCRtpCodecParameters(mimeType=f"video/{name.upper()}", clockRate=90000)
    for name in (H264, VP8)
}
_OUR_HEADER = re.compile(
    r"(CSeq|User-Agent|Session|Authorization|Content-Type|Content-Length|Transport|Range): "
)


def offers(data: bytes) -> None:
    """An offer is refused or loses lines only, and what is left is an offer with one video."""
    text = data.decode(errors="ignore")
    answer = completed_answer(text)
    assert len(answer.splitlines()) >= len(text.splitlines())
    try:
        offer = checked_offer(text)
    except BadOffer:
        return
    assert checked_offer(offer) == offer
    lines = offer.split("\r\n")
    assert sum(line.startswith("m=video ") for line in lines) == 1
    assert "a=end-of-candidates" not in lines


def rtp(data: bytes) -> None:
    """Packets in any order give whole pictures whose numbers only grow; what waits is bounded."""
    now_s, clock, number = [0.0], RtpClock(), -1
    buffer = JitterBuffer(0.1, _MOST_BYTES, lambda: now_s[0])
    given = 0
    for kind, part in pieces(data):
        now_s[0] += (kind >> 2) / 256
        arrival_ns = _NOW_NS + round(1e9 * now_s[0])
        pictures = []
        if kind & 3 == 0:
            _take_reports(clock, part, arrival_ns)
        elif kind & 3 == 1:
            pictures = buffer.tick()
            assert len(buffer.missing()) <= 64
        elif (packet := _packet(part)) is not None:
            given += len(packet.data)
            pictures = buffer.add(packet)
        for picture in pictures:
            assert picture.lost >= 0
            assert 0 < len(picture.data) <= _MOST_BYTES
            given -= len(picture.data)
            number += 1 + picture.lost
            assert isinstance(clock.sender_ns(picture.timestamp, arrival_ns), int)
            _is_key(_CODECS[picture.payload_type], picture.data)
        assert given >= 0, "no byte is given twice"
        held = sum(len(packet.data) for packet, _ in buffer._waiting.values())
        assert held == buffer._waiting_bytes <= _MOST_BYTES + 2**16
    assert number < 2**16 * len(data)


def _take_reports(clock: RtpClock, part: bytes, arrival_ns: int) -> None:
    try:
        reports = RtcpPacket.parse(part)
    except ValueError:  # what aiortc says of packets that are none
        return
    for report in reports:
        if isinstance(report, RtcpSrPacket):
            info = report.sender_info
            clock.report(info.ntp_timestamp, info.rtp_timestamp, arrival_ns)


def _packet(part: bytes) -> Packet | None:
    try:
        found = RtpPacket.parse(part)
        codec = _CODECS[found.payload_type]
        data = depayload(_PARAMETERS[codec], found.payload) if found.payload else b""
    except (ValueError, KeyError):
        return None
    return Packet(
        sequence=found.sequence_number,
        timestamp=found.timestamp,
        marker=bool(found.marker),
        payload_type=found.payload_type,
        data=data,
        begins=_begins_picture(codec, data, found.payload),
        source=found.ssrc,
    )


class _Recording(RtspRecording):
    """Connected to a server that has said all that it will say."""

    def __init__(self, answers: bytes) -> None:
        url = "rtsp://user:word@camera.example/live"
        super().__init__(url, "v=0\r\n", 0.2, threading.Event())
        self.end, server = socket.socketpair()
        self.end.setblocking(False)
        server.sendall(answers)
        server.shutdown(socket.SHUT_WR)
        self.server = server

    def _connected(self) -> socket.socket:
        return self.end


def rtsp(data: bytes) -> None:
    """Whatever a server answers ends in a `LinkError`, and never puts words in our mouth."""
    recording = _Recording(data)
    try:
        with recording:
            recording.send([b"packet"])
            while True:
                recording.hear()
    except LinkError:
        pass
    finally:
        recording.end.close()
    with recording.server:
        for line in _said(recording.server):
            assert _OUR_HEADER.match(line), line


def _said(server: socket.socket) -> Iterator[str]:
    """The header lines of what we asked."""
    received = b""
    while part := _next_part(server):
        received += part
    for request in received.split(b"RTSP/1.0\r\n")[1:]:
        head = request.partition(b"\r\n\r\n")[0].decode()
        yield from (line for line in re.split(r"[\r\n]+", head) if line)


def _next_part(server: socket.socket) -> bytes:
    try:
        return server.recv(65_536)
    except ConnectionResetError:  # told once, where not all was read over there
        return server.recv(65_536)
