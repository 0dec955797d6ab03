# SPDX-License-Identifier: Apache-2.0
"""What a server of weights answers, and what comes over the line to a back-end's own process."""

from __future__ import annotations

import hashlib
import socket
import tempfile
from pathlib import Path

from http_answer import URL, every_server_answers

from worldsystem_core.errors import FetchError
from worldsystem_slam3r.apart.channel import Channel, ChannelClosed
from worldsystem_slam3r.fetch import Wanted, fetch

_FOLDER = tempfile.TemporaryDirectory(prefix="worldsystem-fuzz-")
_TARGET = Path(_FOLDER.name) / "weights"
_PART = _TARGET.with_name("weights.part")
_WHOLE = b"12345678"
_WANTED = Wanted(URL), Wanted(URL, len(_WHOLE), hashlib.sha256(_WHOLE).hexdigest())


def fetched(data: bytes) -> None:
    """What bears the target's name is whole and as wanted; else a `FetchError` says why not.

    The first byte says whether size and checksum are known, and whether a part is there already.
    """
    known, begun = (data[0] >> 7, data[0] >> 6 & 1) if data else (0, 0)
    _TARGET.unlink(missing_ok=True)
    _PART.unlink(missing_ok=True)
    if begun:
        _PART.write_bytes(_WHOLE[:3])
    with every_server_answers(data[1:]):
        try:
            fetch(_WANTED[known], _TARGET)
        except FetchError:
            assert not _TARGET.exists()
            return
    assert not _PART.exists()
    assert not known or _TARGET.read_bytes() == _WHOLE


def apart(data: bytes) -> None:
    """What is no message of ours ends the channel, and nothing else."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(data)
        theirs.shutdown(socket.SHUT_WR)
        channel = Channel(ours)
        try:
            while True:
                kind, _ = channel.receive()
                assert isinstance(kind, str)
        except ChannelClosed:
            return
