# SPDX-License-Identifier: Apache-2.0
"""RTP packets for H.264 (RFC 6184) and H.265 (RFC 7798), and the sender reports beside them."""

from __future__ import annotations

import base64
import secrets
import struct
from collections.abc import Callable, Iterator, Sequence

from worldsystem_core.byte_stream import nal_type, nal_units

CLOCK_HZ = 90_000
PAYLOAD_TYPE = 96
_MOST_BYTES = 1400  # with all headers below the 1500 of Ethernet, should a server pass it on as UDP
_HEADER = struct.Struct(">BBHII")
_REPORT = struct.Struct(">BBHIQIII")
_VERSION = 0x80
_MARKER = 0x80
_SENDER_REPORT = 200
_NTP_EPOCH_S = 2_208_988_800  # 1970 in the era of 1900
_FU_A, _FU_H265 = 28, 49
_START, _END = 0x80, 0x40

_SPS, _PPS = 7, 8  # of H.264
_H265_SETS = {32: "sprop-vps", 33: "sprop-sps", 34: "sprop-pps"}


class RtpStream:
    """Numbers, stamps and counts the packets of one video stream."""

    def __init__(self, codec: str) -> None:
        self._fragments: Callable[[bytes], Iterator[bytes]]
        self._fragments = h265_payloads if codec == "h265" else h264_payloads
        self._source = secrets.randbits(32)
        self._sequence = secrets.randbits(16)
        self._offset = secrets.randbits(32)
        self._sent_packets = 0
        self._sent_bytes = 0

    def packets(self, annexb: bytes, stamp_ns: int) -> list[bytes]:
        """One access unit as packets; the last one bears the marker."""
        payloads = [part for unit in nal_units(annexb) for part in self._fragments(unit)]
        time = self._rtp_time(stamp_ns)
        return [
            self._packet(payload, time, last=at == len(payloads) - 1)
            for at, payload in enumerate(payloads)
        ]

    def report(self, stamp_ns: int) -> bytes:
        """The sender report (RFC 3550, 6.4.1) that ties `stamp_ns` [since 1970] to RTP time."""
        seconds, rest_ns = divmod(stamp_ns, 10**9)
        ntp = ((seconds + _NTP_EPOCH_S) << 32 | (rest_ns << 32) // 10**9) % 2**64
        return _REPORT.pack(
            _VERSION,
            _SENDER_REPORT,
            _REPORT.size // 4 - 1,
            self._source,
            ntp,
            self._rtp_time(stamp_ns),
            self._sent_packets % 2**32,
            self._sent_bytes % 2**32,
        )

    def _rtp_time(self, stamp_ns: int) -> int:
        return (self._offset + stamp_ns * CLOCK_HZ // 10**9) % 2**32

    def _packet(self, payload: bytes, time: int, *, last: bool) -> bytes:
        kind = PAYLOAD_TYPE | (_MARKER if last else 0)
        head = _HEADER.pack(_VERSION, kind, self._sequence, time, self._source)
        self._sequence = (self._sequence + 1) % 2**16
        self._sent_packets += 1
        self._sent_bytes += len(payload)
        return head + payload


def h264_payloads(unit: bytes) -> Iterator[bytes]:
    """One NAL unit whole, or in fragments (FU-A)."""
    if len(unit) <= _MOST_BYTES:
        yield unit
        return
    indicator = bytes([unit[0] & 0xE0 | _FU_A])
    yield from _fragments(indicator, unit[0] & 0x1F, unit[1:])


def h265_payloads(unit: bytes) -> Iterator[bytes]:
    """One NAL unit whole, or in fragments (FU)."""
    if len(unit) <= _MOST_BYTES:
        yield unit
        return
    head = bytes([unit[0] & 0x81 | _FU_H265 << 1, unit[1]])
    yield from _fragments(head, unit[0] >> 1 & 0x3F, unit[2:])


def session_description(sets: Sequence[bytes], codec: str) -> str:
    """What is announced (RFC 8866) before a stream with these parameter sets: of each kind the
    newest."""
    newest = {nal_type(unit, codec): unit for unit in sets}
    coded = {kind: base64.b64encode(unit).decode() for kind, unit in newest.items()}
    if codec == "h265":
        name = "H265"
        details = "; ".join(f"{told_as}={coded[kind]}" for kind, told_as in _H265_SETS.items())
    else:
        profile = newest[_SPS][1:4].hex().upper()
        name = "H264"
        details = (
            f"packetization-mode=1; profile-level-id={profile}; "
            f"sprop-parameter-sets={coded[_SPS]},{coded[_PPS]}"
        )
    lines = (
        "v=0",
        f"o=- {secrets.randbits(31)} 1 IN IP4 127.0.0.1",
        "s=WorldSystem",
        "c=IN IP4 0.0.0.0",
        "t=0 0",
        f"m=video 0 RTP/AVP {PAYLOAD_TYPE}",
        f"a=rtpmap:{PAYLOAD_TYPE} {name}/{CLOCK_HZ}",
        f"a=fmtp:{PAYLOAD_TYPE} {details}",
        "a=control:trackID=0",
    )
    return "\r\n".join(lines) + "\r\n"


def _fragments(head: bytes, kind: int, rest: bytes) -> Iterator[bytes]:
    """Always two at least, because one that is both first and last is forbidden."""
    most = _MOST_BYTES - len(head) - 1
    for at in range(0, len(rest), most):
        mark = (_START if at == 0 else 0) | (_END if at + most >= len(rest) else 0)
        yield head + bytes([mark | kind]) + rest[at : at + most]
