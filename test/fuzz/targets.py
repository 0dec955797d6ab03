# SPDX-License-Identifier: Apache-2.0
"""Every parser that is given bytes from a network, by the module that holds its law."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"
Law = Callable[[bytes], None]


@dataclass(frozen=True)
class Target:
    """`module` (beside this file) holds the function of the target's name, which is its law.

    The branches of the packages `guided_by` guide the search; they are imported when the law is
    asked for.
    """

    module: str
    guided_by: tuple[str, ...]
    longest_bytes: int = 4096
    needs_ros: bool = False

    def law(self, name: str) -> Law:
        """The function that raises for bytes which break the law."""
        law: Law = getattr(importlib.import_module(self.module), name)
        return law


_CODEC = ("worldsystem_core.wire", "worldsystem_ingest.codec")
_INGEST = (*_CODEC, "worldsystem_ingest.sender")

TARGETS: dict[str, Target] = {
    "video": Target("video_laws", (*_INGEST, "worldsystem_ingest.url.relayed")),
    "sender": Target("ingest_laws", _INGEST),
    "offers": Target("link_laws", ("worldsystem_ingest.webrtc",)),
    "rtp": Target(
        "link_laws",
        ("worldsystem_ingest.webrtc", "aiortc.rtp", "aiortc.codecs.h264", "aiortc.codecs.vpx"),
    ),
    "rtsp": Target("link_laws", ("worldsystem_ingest.rtsp_push",), longest_bytes=8192),
    "ingest_port": Target(
        "port_laws",
        (
            *_INGEST,
            "worldsystem_ingest.server",
            "worldsystem_ingest.webrtc.whip",
            "worldsystem_core.access",
            "aiohttp.web_request",
            "aiohttp.http_websocket",
        ),
    ),
    "page_port": Target("port_laws", ("worldsystem_viewer", "worldsystem_core.access")),
    "page_protocol": Target("viewer_laws", ("worldsystem_viewer.protocol",)),
    "identify": Target(
        "segment_laws", ("worldsystem_segment.identify", "http.client"), longest_bytes=8192
    ),
    "prompts": Target(
        "segment_laws",
        ("worldsystem_segment.prompt", "worldsystem_segment.query"),
        longest_bytes=8192,
    ),
    "fetched": Target("slam3r_laws", ("worldsystem_slam3r.fetch", "http.client")),
    "apart": Target("slam3r_laws", ("worldsystem_slam3r.apart",), longest_bytes=8192),
    "messages": Target(
        "message_laws",
        ("worldsystem_core.ros.adapters", "worldsystem_core.mesh_code", "worldsystem_core.splats"),
        needs_ros=True,
    ),
    "mesh_code": Target("core_laws", ("worldsystem_core.mesh_code",)),
    "splats": Target("core_laws", ("worldsystem_core.splats",)),
    "status": Target(
        "core_laws", ("worldsystem_core.status_server", "worldsystem_core.access", "http.server")
    ),
}
