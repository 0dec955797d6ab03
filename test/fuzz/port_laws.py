# SPDX-License-Identifier: Apache-2.0
"""Whatever comes at the two ports that are open to all: requests, and words on their WebSockets."""

from __future__ import annotations

import json
import secrets
import sys
import tempfile
import threading
from pathlib import Path
from unittest import mock

from http_port import HttpPort

sys.path.insert(0, str(Path(__file__).parents[1] / "viewer"))

from world_for_viewers import delta, ground_block

from worldsystem_ingest.config import IngestConfig
from worldsystem_ingest.server.network import Network
from worldsystem_ingest.stream.registry import VideoStream
from worldsystem_viewer.config import ViewerConfig
from worldsystem_viewer.page_server import PageServer

_FOLDER = tempfile.TemporaryDirectory(prefix="worldsystem-fuzz-")
_TOKENS = Path(_FOLDER.name) / "tokens.json"
_TOKENS.write_text(json.dumps({"*": secrets.token_hex(16), "viewer": secrets.token_hex(16)}))
_OPENED, _MADE = b"HTTP/1.1 101 ", b"HTTP/1.1 201 "


class _NoSink:
    """Takes everything and keeps nothing."""

    def __getattr__(self, name: str) -> object:
        return lambda *arguments: None


def _not_decoded(stream: VideoStream) -> None:
    """Pictures wait for the decoder until there are too many, as behind a slow one."""


_SENDERS = tuple(
    IngestConfig(token_file=tokens, max_message_mb=0.1) for tokens in ("", str(_TOKENS))
)


def ingest_port(data: bytes) -> None:
    """Port 5001: nothing fails in us; without the token nothing opens and nothing is told.

    The first byte says whether a token is wanted.
    """
    guarded = data[:1] > b"\x7f"
    network = Network(_SENDERS[guarded], _NoSink(), threading.Event(), push=lambda: None)  # type: ignore[arg-type]
    network._whip._missing = "browsers have a target of their own"
    port = HttpPort(network._application())
    try:
        with mock.patch.object(VideoStream, "_decode", _not_decoded):
            told = port.told(data[1:])
    finally:
        port.close()
        network._loop.close()
    assert network.failure is None, network.failure
    status = network.status()
    assert (status.senders, status.phones, status.consumer_queues) == (0, 0, {})
    assert b"HTTP/1.1 500" not in told
    if guarded:
        assert not any(sign in told for sign in (_OPENED, _MADE, b"ingest_", b"uptime_s"))


def _page(tokens: str) -> PageServer:
    server = PageServer(ViewerConfig(web_port=0, website_mesh=True, token_file=tokens))
    server.mesh(delta([ground_block(i, 0) for i in range(2)], 1))
    server.status({"stage": "mesher"})
    return server


_PAGES = _page(""), _page(str(_TOKENS))
_PAGE_PORTS = tuple(HttpPort(server._application()) for server in _PAGES)


def page_port(data: bytes) -> None:
    """Port 8080: as `ingest_port`, for the page, its wishes, splats and the old website.

    Whoever has gone leaves his place to others.
    """
    guarded = data[:1] > b"\x7f"
    told = _PAGE_PORTS[guarded].told(data[1:])
    assert b"HTTP/1.1 500" not in told
    if guarded:
        assert _OPENED not in told
    assert _PAGES[guarded].client_count == 0
    assert not _PAGES[guarded]._splats._sockets
