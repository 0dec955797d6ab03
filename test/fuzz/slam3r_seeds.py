# SPDX-License-Identifier: Apache-2.0
"""Downloads as they go, and what a stage and its back-end say to each other."""

from __future__ import annotations

import socket

import numpy as np

from worldsystem_core.errors import BackendError
from worldsystem_core.frames import Camera, Frame
from worldsystem_core.reconstruction import MovedKeyframes, Pose, TrackingState
from worldsystem_slam3r.apart.channel import Channel
from worldsystem_slam3r.config import Slam3rConfig

_SIZE_KNOWN, _BEGUN = 0x80, 0x40


def fetched() -> dict[str, bytes]:
    """Whole, the rest of a part, too long, without a length, cut while chunked, and no HTTP."""
    found = {
        "whole": (_SIZE_KNOWN, b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n12345678"),
        "rest": (_SIZE_KNOWN | _BEGUN, b"HTTP/1.1 206 Partial\r\nContent-Length: 5\r\n\r\n45678"),
        "beyond": (_SIZE_KNOWN | _BEGUN, b"HTTP/1.1 416 Range\r\n\r\n"),
        "any": (0, b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"),
        "no_length": (0, b"HTTP/1.1 200 OK\r\n\r\nabc"),
        "odd_length": (0, b"HTTP/1.1 200 OK\r\nContent-Length: \xb2\r\n\r\nabc"),
        "chunked": (
            _SIZE_KNOWN,
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n1234\r\n4\r\n56",
        ),
        "no_http": (0, b"SSH-2.0-OpenSSH_9.6\r\n"),
    }
    return {name: bytes([how]) + data for name, (how, data) in found.items()}


def apart() -> dict[str, bytes]:
    """One message of each kind."""
    camera = Camera(width=4, height=2, fx=3.0, fy=3.0, cx=1.5, cy=0.5)
    frame = Frame(id=1, stamp_ns=2, rgb=np.zeros((2, 4, 3), np.uint8), camera=camera)
    large = Frame(id=1, stamp_ns=2, rgb=np.zeros((20, 70, 3), np.uint8))
    pose = Pose(
        frame_id=1,
        stamp_ns=2,
        world_from_cam=np.eye(4),
        confidence=0.5,
        state=TrackingState.TRACKED,
    )
    found = {
        "frame": frame,
        "large_frame": large,
        "moved": MovedKeyframes({3: np.eye(4)}, {3: 1.5}, None),
        "pose": [pose, (1, "two", None)],
        "config": Slam3rConfig(),
        "error": BackendError("no device"),
    }
    return {name: _sent(name, item) for name, item in found.items()}


def _sent(kind: str, item: object) -> bytes:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        Channel(ours).send(kind, item)
        return theirs.recv(2**16)


SEEDS = {"fetched": fetched, "apart": apart}
