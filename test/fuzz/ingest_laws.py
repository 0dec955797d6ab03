# SPDX-License-Identifier: Apache-2.0
"""What senders say: pictures, control and telemetry, over any number of connections."""

from __future__ import annotations

import json

from books import Books
from pieces import pieces

from worldsystem_core import wire
from worldsystem_core.errors import ProtocolError
from worldsystem_ingest.config import IngestConfig
from worldsystem_ingest.sender.session import SenderSession

_VIDEO, _CONTROL, _PHONE, _CONNECT, _TICK, _LEAVE = range(6)
_CONFIG = IngestConfig()
_LONGEST_SAID = 2**19  # what a sender says may come back to it, and nothing more


def sender(data: bytes) -> None:
    """A message raises `ProtocolError` or is taken; the account of pictures stays exact."""
    books = Books()
    session = SenderSession(books, books.deliver, "camera", _CONFIG, _said)
    session.connected()
    for kind, message in pieces(data):
        _one(session, kind % 6, message)
    session.tick()
    books.check()
    assert session.numbers.lost <= len(books.lost)


def _one(session: SenderSession, kind: int, message: bytes) -> None:
    try:
        if kind == _VIDEO:
            _packet(message)
            session.take_packet(message)
        elif kind == _CONTROL:
            session.take_control(message.decode(errors="ignore"))
        elif kind == _PHONE:
            session.take_telemetry(message.decode(errors="ignore"))
        elif kind == _CONNECT:
            session.connected()
        elif kind == _TICK:
            session.tick()
        else:
            session.disconnected()
    except ProtocolError as error:
        _said({"type": "error", "message": str(error)})


def _packet(message: bytes) -> None:
    """What unpacks packs again, but for the four bytes that are not interpreted."""
    packet = wire.unpack(message)
    packed = wire.pack(packet)
    assert packed[4:] == message[4:]
    assert wire.unpack(packed) == packet


def _said(message: dict[str, object]) -> None:
    assert len(json.dumps(message)) < _LONGEST_SAID
