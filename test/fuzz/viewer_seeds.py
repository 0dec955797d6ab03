# SPDX-License-Identifier: Apache-2.0
"""One message of each kind that a page is sent."""

from __future__ import annotations

import numpy as np

from worldsystem_viewer import protocol as sent


def page_protocol() -> dict[str, bytes]:
    """Small ones, with and without arrays."""
    none = np.zeros((0, 3), np.int32)
    three = np.arange(9, dtype=np.float32).reshape(3, 3)
    octets = np.arange(7, dtype=np.uint8)
    messages = {
        "hello": sent.Hello(session="ab", resumed=False, mesh="raw"),
        "mesh": sent.MeshUpdate(
            change=3,
            total_vertices=3,
            total_faces=1,
            removed=none,
            index=np.zeros((1, 3), np.int32),
            vertex_count=np.array([3], np.uint32),
            face_count=np.array([1], np.uint32),
            vertices=three,
            colours=np.zeros((3, 3), np.uint8),
            faces=np.array([[0, 1, 2]], np.uint32),
        ),
        "code": sent.MeshCode(change=3, total_vertices=0, total_faces=0, removed=none, code=octets),
        "path": sent.PathUpdate(start=0, positions=three),
        "status": sent.StatusUpdate(values={"fps": 29.5, "up": [0, 0, 1]}),
        "timeline": sent.TimelineUpdate(first_ns=1, last_ns=2**40, at_ns=-1),
        "image": sent.ImageUpdate(stamp_ns=1, full_width=4, full_height=3, jpeg=octets),
    }
    return {name: sent.encode(message) for name, message in messages.items()}


SEEDS = {"page_protocol": page_protocol}
