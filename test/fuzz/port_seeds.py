# SPDX-License-Identifier: Apache-2.0
"""Connections to ports 5001 and 8080 as browsers, drones and phones make them, and some others."""

from __future__ import annotations

import json

import ingest_seeds

_OPEN, _GUARDED = b"\x00", b"\xff"
_UPGRADE = (
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
_TEXT, _BINARY = 0x81, 0x82


def ingest_port() -> dict[str, bytes]:
    """Each path, both ways, and odd origins."""
    video = [(_BINARY, packet) for packet in ingest_seeds.packets()]
    texts = [(_TEXT, json.dumps(m).encode()) for m in ingest_seeds.CONTROLS]
    phone = [(_TEXT, json.dumps(m).encode()) for m in ingest_seeds.PHONES[:3]]
    plain = {
        name: _request(line)
        for name, line in {
            "health": "GET /health",
            "rtsp": "GET /rtsp/status?token=x",
            "metrics": "GET /metrics",
            "camera": "GET /camera/camera.js",
            "options": "OPTIONS /whip/drone_2",
            "patch": "PATCH /whip/session/1",
            "nowhere": "GET //[",
        }.items()
    }
    offer = "Content-Type: application/sdp\r\nContent-Length: 5\r\n"
    plain["offer"] = _request("POST /whip/drone", offer) + b"v=0\r\n"
    plain["page"] = _request("GET /ws/video", _UPGRADE + "Origin: http://[\r\n")
    plain["sender"] = _socket("/ws/video?stream=drone_2", [*texts, *video])
    plain["phone"] = _socket("/ws/phone", phone)
    plain["consumer"] = _socket("/ws/h264_stream?keys=1", [(0x88, b"\x03\xe8bye")])
    return _both(plain)


def page_port() -> dict[str, bytes]:
    """The page's files and each of its wishes."""
    wishes = (
        {"session": "x", "change": 3, "mesh": "code", "mbps": 0.5, "layers": ["points", "image"]},
        {"find": "red box", "object": 7, "seek": 12.5, "visible": False},
        {"mesh": "raw", "seek": None, "visible": True},
    )
    plain = {f"wish_{at}": _socket("/ws", [_wish(w)]) for at, w in enumerate(wishes)}
    plain["huge_budget"] = _socket("/ws", [(_TEXT, b'{"mbps": 1' + b"0" * 400 + b"}")])
    plain["half_a_pair"] = _socket("/ws", [_wish({"find": "\ud800"})])
    plain["website"] = _socket("/ws/mesh?format=ply&parts=1", [])
    plain["splats"] = _socket("/ws/splats?splats=deflated", [])
    for name, line in {
        "index": "GET /",
        "file": "GET /web/protocol.js",
        "above": "GET /web/../page_files.py",
        "access": "GET /access?token=x",
    }.items():
        plain[name] = _request(line, "Origin: http://page.example\r\n")
    return _both(plain)


def _wish(wish: dict[str, object]) -> tuple[int, bytes]:
    return _TEXT, json.dumps(wish).encode()


def _both(plain: dict[str, bytes]) -> dict[str, bytes]:
    """Where no token is wanted; and the first few where one is."""
    guarded = {f"{name}_guarded": _GUARDED + data for name, data in list(plain.items())[::4]}
    return {name: _OPEN + data for name, data in plain.items()} | guarded


def _request(line: str, headers: str = "") -> bytes:
    return f"{line} HTTP/1.1\r\nHost: 192.0.2.1\r\n{headers}\r\n".encode()


def _socket(path: str, messages: list[tuple[int, bytes]]) -> bytes:
    """A handshake, then messages whose mask is zero, so that they can be read here."""
    frames = [
        bytes([head, 0x80 | 126]) + len(data).to_bytes(2, "big") + bytes(4) + data
        if len(data) > 125
        else bytes([head, 0x80 | len(data)]) + bytes(4) + data
        for head, data in messages
    ]
    return _request(f"GET {path}", _UPGRADE) + b"".join(frames)


SEEDS = {"ingest_port": ingest_port, "page_port": page_port}
