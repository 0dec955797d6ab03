# SPDX-License-Identifier: Apache-2.0
"""Surfaces and splats as they travel, and requests to the port of metrics and health."""

from __future__ import annotations

import gzip
import io
import json
import secrets
import tempfile
import zlib
from pathlib import Path

import numpy as np
from memory import at_most

from worldsystem_core.errors import ProtocolError
from worldsystem_core.mesh_code.code import decode, encode
from worldsystem_core.splats.files import read_spz
from worldsystem_core.splats.packed import deflate, inflate, unpack
from worldsystem_core.status_server import Health, StatusServer, StatusSettings

_FOLDER = tempfile.TemporaryDirectory(prefix="worldsystem-fuzz-")
_SPZ = Path(_FOLDER.name) / "splats.spz"
_TOKENS = Path(_FOLDER.name) / "tokens.json"
_SECRET = secrets.token_hex(16)  # not in any input, however long is searched
_TOKENS.write_text(json.dumps({"friend": _SECRET}))
_FIGURES = b"frames_total 7\n"
_HEALTH = Health(True, {"nodes": ["mesher"], "why": "all is well"})
_MESH_MB = 32
_MESH_BYTES_EACH = 45_000  # a block that is all corners takes 350 kB, and 8.5 bytes of code
_HEAD = 1 + 16  # of a mesh code, behind the first byte


def mesh_code(data: bytes) -> None:
    """A code decodes or is damaged; its blocks are sound, and the same when coded again.

    The first byte says whether what follows is the code, or its head and what is to be deflated.
    """
    code = data[1:] if data[:1] < b"\x80" else data[1:_HEAD] + zlib.compress(data[_HEAD:], 1)
    try:
        with at_most(_MESH_MB, code, each=_MESH_BYTES_EACH):
            blocks = decode(code)
    except ProtocolError:
        return
    for block in blocks:
        assert len(block.colours) == len(block.vertices)
        assert block.version >= 0
        if len(block.faces):
            assert 0 <= block.faces.min() <= block.faces.max() < len(block.vertices)
    if all(block.level == 0 for block in blocks):
        _same_again(blocks)


def _same_again(blocks: list) -> None:
    """But for colours: an encoder makes less of them than can be written."""
    if len({block.index for block in blocks}) < len(blocks):
        return  # a block that is there twice is nowhere
    again = decode(encode(blocks, 1.0))
    for one, other in zip(blocks, again, strict=True):
        assert (one.index, one.version) == (other.index, other.version)
        for name in ("faces", "edges", "shares", "cells", "cases"):
            assert np.array_equal(getattr(one, name), getattr(other, name)), name


def splats(data: bytes) -> None:
    """Packed splats and SPZ files are read or refused; what was inflated deflates to the same.

    The first byte says whether what follows is packed already, the next two how many splats.
    """
    plain, count, content = data[:1] > b"\x7f", int.from_bytes(data[1:3], "big"), data[3:]
    _packed_splats(zlib.compress(content, 1) if plain else content, count)
    _SPZ.write_bytes(gzip.compress(content, 1) if plain else content)
    try:
        with at_most(8, content):
            found = read_spz(_SPZ)
    except ProtocolError:
        return
    assert found.means.shape == (len(found), 3)


def _packed_splats(content: bytes, count: int) -> None:
    try:
        with at_most(8, content):
            words = inflate(content, count)
    except ProtocolError:
        return
    assert words.shape == (count, 4)
    assert np.array_equal(inflate(deflate(words), count), words)
    assert len(unpack(words)) == count


def _server(token_file: str) -> StatusServer:
    settings = StatusSettings(token_file=token_file)
    return StatusServer(settings, lambda: _FIGURES, lambda: _HEALTH)


_OPEN, _GUARDED = _server(""), _server(str(_TOKENS))


def status(data: bytes) -> None:
    """No request fails in us; without the token nobody learns more than `ok` or `degraded`."""
    _asked(_OPEN, data)
    told = _asked(_GUARDED, data)
    assert _FIGURES not in told
    assert b"mesher" not in told
    assert b"all is well" not in told


def _asked(server: StatusServer, data: bytes) -> bytes:
    connection = _Connection(data)
    assert server._server is not None
    server._server.finish_request(connection, ("192.0.2.1", 4711))  # type: ignore[arg-type]
    told = connection.told.getvalue()
    assert b" 500 " not in told[:20]
    return told


class _Connection:
    """A socket that has received `data` and whose other side sends no more."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.told = io.BytesIO()

    def settimeout(self, seconds: float) -> None:
        """Nothing here waits."""

    def makefile(self, mode: str, size: int = -1) -> io.BufferedReader:
        return io.BufferedReader(io.BytesIO(self._data))  # type: ignore[arg-type]

    def sendall(self, data: bytes) -> None:
        self.told.write(data)
