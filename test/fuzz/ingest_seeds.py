# SPDX-License-Identifier: Apache-2.0
"""Messages of drones, phones, browsers and RTSP servers, as they are when all is well."""

from __future__ import annotations

import json
import struct

from pieces import joined
from targets import CORPUS

from worldsystem_core import wire
from worldsystem_core.byte_stream import nal_units
from worldsystem_core.wire import PacketType, VideoPacket

_VIDEO, _CONTROL, _PHONE, _CONNECT, _TICK, _LEAVE = range(6)
_NOW_NS = 1_764_000_000 * 10**9

CONTROLS = (
    {"type": "video_config", "width": 1280, "height": 720, "fx": 900.5, "codec": "h264"},
    {
        "type": "video_config",
        "config": {"width": 640, "height": 480, "fx": 5e2, "fy": 501, "cx": 320, "cy": 240},
        "distortion": [0.1, -0.02, 0, 0, 1e-3],
        "codec": "video/hevc",
    },
    {"type": "restart"},
    {"type": "ping", "id": 7},
    {"type": "pong", "id": 0, "received_ns": _NOW_NS, "sent_ns": str(_NOW_NS + 5)},
)
PHONES = (
    {
        "type": "imu",
        "timestamp_ns": _NOW_NS,
        "accel": [0, 0, 9.8],
        "gyro": {"x": 0, "y": 1, "z": 2},
    },
    {
        "type": "gps",
        "timestamp": 1764000000.5,
        "lat": 48.1,
        "lon": 11.5,
        "altitude_m": 520,
        "accuracy": 3,
    },
    {"type": "barometer", "timestampMs": 1764000000500, "pressure": 1013.2},
    {"type": "pressure", "pressure": 101.3, "unit": "kPa", "time": "2026-01-02T03:04:05.678+01:00"},
    {"type": "attitude", "quaternion": [0, 0, 0, 1], "timestamp_us": 1764000000500000},
    {"type": "orientation", "roll_deg": 1, "pitch_deg": -2, "heading_deg": 350},
    {"type": "battery", "percent": 77, "voltageMv": 11100, "charging": False},
    {"type": "vio", "position": [1, 2, 3], "quaternion_wxyz": [1, 0, 0, 0], "accuracy": -1},
    {"type": "imu", "samples": [{"acceleration_g": [0, 0, 1], "gyro_dps": [1, 2, 3], "ts": 1}]},
    {"type": "telemetry", "ts": 1764000000, "gps": {"lat": 1, "lng": 2}, "battery": {"level": 0.5}},
    {
        "type": "imu",
        "data": {
            "accel": [1, 2, 3],
            "rotationRate": [0, 0, 0],
            "attitude": {"quaternion": [0, 0, 1, 0]},
        },
    },
)


def sender() -> dict[str, bytes]:
    """One connection with everything, and each message alone."""
    controls = [(_CONTROL, json.dumps(message).encode()) for message in CONTROLS]
    phones = [(_PHONE, json.dumps(message).encode()) for message in PHONES]
    video = [(_VIDEO, packet) for packet in packets()]
    alone = {f"control_{at}": joined([one]) for at, one in enumerate(controls)}
    alone |= {f"phone_{at}": joined([one]) for at, one in enumerate(phones)}
    flow = [*controls, *video, (_TICK, b""), *phones, (_LEAVE, b""), (_CONNECT, b""), *video]
    return {**alone, "video": joined(video), "all": joined(flow)}


def packets() -> list[bytes]:
    """Parameter sets, a key frame and two frames, as a drone sends them."""
    annexb = (CORPUS / "video" / "h264_b_slice").read_bytes()
    units = list(nal_units(annexb))
    sets = {7: PacketType.SPS, 8: PacketType.PPS}
    found = [_packet(sets[u[0] & 31], u) for u in units if u[0] & 31 in sets]
    picture = next((u for u in units if u[0] & 31 in (1, 5)), b"\x65\x88")
    found.append(_packet(PacketType.KEY_FRAME, b"\x65" + picture[1:], 0))
    return [*found, *(_packet(PacketType.FRAME, b"\x41" + picture[1:], n) for n in (1, 3))]


def _packet(kind: PacketType, payload: bytes, number: int = -1) -> bytes:
    stamp_ns = _NOW_NS + 33_000_000 * max(number, 0)
    return wire.pack(
        VideoPacket(type=kind, sender_ns=stamp_ns, payload=payload, frame_number=number)
    )


def offers() -> dict[str, bytes]:
    """What Chromium offers, shortened, and our answer to it."""
    lines = [
        *("v=0", "o=- 1 2 IN IP4 127.0.0.1", "s=-", "t=0 0", "a=group:BUNDLE 0"),
        *("m=video 9 UDP/TLS/RTP/SAVPF 96 97", "c=IN IP4 0.0.0.0", "a=mid:0", "a=sendonly"),
        "a=candidate:1 1 udp 2122 0123-ab.local 51000 typ host",
        "a=candidate:2 1 udp 2122 192.168.1.7 51001 typ host",
        "a=end-of-candidates",
        *("a=rtpmap:96 VP8/90000", "a=rtpmap:97 H264/90000"),
        "a=fmtp:97 packetization-mode=1;profile-level-id=42e01f",
    ]
    audio = [*lines, "m=audio 9 UDP/TLS/RTP/SAVPF 111", "a=mid:1"]
    return {"one": "\r\n".join(lines).encode(), "with_audio": "\n".join(audio).encode()}


def rtp() -> dict[str, bytes]:
    """A key frame in fragments and whole frames, one lost, one late; a report; VP8."""
    payloads = [b"\x67\x42\xe0\x1f", b"\x68\xce", b"\x65\x88" + bytes(range(60))]
    packets = [_rtp(at, 3000, payload, at == 2) for at, payload in enumerate(payloads)]
    packets += [_rtp(at, 3000 * at, b"\x41\x9a" + bytes(30), True) for at in (3, 4, 6, 5)]
    unit = b"\x65\xb8" + bytes(range(80))
    fragments = [b"\x7c\x85" + unit[1:40], b"\x7c\x05" + unit[40:60], b"\x7c\x45" + unit[60:]]
    packets += [_rtp(7 + at, 24000, part, at == 2) for at, part in enumerate(fragments)]
    packets.append(_rtp(10, 27000, b"\x78\x00\x02\x67\x42\x00\x02\x68\xce", False))
    report = struct.pack(
        ">BBHIQIII", 0x80, 200, 6, 5, (_NOW_NS // 10**9 + 2208988800) << 32, 3000, 9, 99
    )
    pictures = [(2, packet) for packet in packets]
    vp8 = [(2, _rtp(20 + at, 3000 * at, b"\x10\x00" + bytes(20), True, 97)) for at in range(3)]
    return {"h264": joined([(0, report), *pictures, (201, b"")]), "vp8": joined([*vp8, (129, b"")])}


def _rtp(sequence: int, timestamp: int, payload: bytes, marker: bool, kind: int = 96) -> bytes:
    return struct.pack(">BBHII", 0x80, kind | marker << 7, sequence, timestamp, 1) + payload


def rtsp() -> dict[str, bytes]:
    """All goes well; a password is asked for in each way; a report between, and a refusal."""
    ok = b"RTSP/1.0 200 OK\r\nCSeq: 1\r\n"
    session, end = b"Session: 47;timeout=60\r\n", b"\r\n"
    digest = b'WWW-Authenticate: Digest realm="cam", nonce="a1b2", algorithm=SHA-256\r\n'
    basic = b"WWW-Authenticate: Basic realm=cam\r\n"
    denied = b"RTSP/1.0 401 Unauthorized\r\n"
    well = ok + end + ok + session + end + ok + b"Content-Length: 3\r\n\r\nabc"
    return {
        "well": well,
        "digest": denied + basic + digest + end + well,
        "basic": denied + basic + end + well + b"$\x01\x00\x04abcd" + ok + end,
        "refused": ok + end + b"RTSP/1.0 454 Session Not Found\r\n\r\n",
        "long_length": ok + b"Content-Length: " + b"9" * 4400 + b"\r\n\r\n",
        "request": b"OPTIONS * RTSP/1.0\r\n\r\n" + well,
    }


SEEDS = {"sender": sender, "offers": offers, "rtp": rtp, "rtsp": rtsp}
