# SPDX-License-Identifier: Apache-2.0
"""Coded video as it comes: NAL units, parameter sets, what a relay sends in any pieces."""

from __future__ import annotations

from books import Books

from worldsystem_core.byte_stream import joined, nal_spans, nal_units
from worldsystem_ingest.codec import h264, h265
from worldsystem_ingest.codec.access_units import AccessUnitSplitter
from worldsystem_ingest.codec.reordering import has_b_slice, without_reordering
from worldsystem_ingest.codec.shared_syntax import escaped, unescaped
from worldsystem_ingest.config import IngestConfig
from worldsystem_ingest.url.relayed import RelayedVideo

_CONFIG = IngestConfig()
_MOST_UNIT_BYTES = 1024


def video(data: bytes) -> None:
    """Every law of this file."""
    for law in (splitting, reordering, parameter_sets, access_units, relayed):
        law(data)


def splitting(data: bytes) -> None:
    """Units joined with start codes split into the same units; spans lie in order."""
    units = list(nal_units(data))
    assert list(nal_units(joined(units))) == units
    assert all(unit and unit[-1] != 0 and b"\0\0\1" not in unit for unit in units)
    end = 0
    for begin, span_end in nal_spans(data):
        assert end <= begin < span_end <= len(data)
        end = span_end
    assert b"\0\0\1" not in escaped(data)
    if b"\0\0\3" not in data:
        assert unescaped(escaped(data)) == data


def reordering(data: bytes) -> None:
    """Rewriting is idempotent and changes nothing but sequence parameter sets."""
    once = without_reordering(data)
    assert without_reordering(once) == once
    before, after = list(nal_units(data)), list(nal_units(once))
    assert len(before) == len(after)
    for old, new in zip(before, after, strict=True):
        assert old == new or (old[0] == new[0] and old[0] & 0x1F == h264.SPS)
    if once == data:
        assert once is data
    has_b_slice(data)


def parameter_sets(data: bytes) -> None:
    """Reading never fails; what is kept is bounded and is itself read as the same sets."""
    for syntax in (h264, h265):
        syntax.entry_of(data)
        syntax.leads_key_frame(data)
        syntax.nal_types(data)
        sets, again = syntax.ParameterSets(), syntax.ParameterSets()
        sets.take(data)
        kept = sets.annexb()
        assert len(kept) <= 64 * (4096 + 4)
        again.take(kept)
        assert again.annexb() == kept
        assert again.complete == sets.complete


def access_units(data: bytes) -> None:
    """However the bytes are cut, none is lost, doubled or changed; what is held is bounded."""
    for size in (1 + len(data) // 3, 1 + data[-1] if data else 1):
        splitter, given = AccessUnitSplitter(_MOST_UNIT_BYTES), []
        fed = told = held = 0
        for message in _cut(data, size):
            units = splitter.feed(message)
            given += units
            fed, told = fed + len(message), told + sum(map(len, units))
            held = len(splitter._buffer)
            assert held <= _MOST_UNIT_BYTES
            assert told + splitter.garbage_bytes + held == fed
        rest = splitter.finish()
        assert sum(map(len, rest)) in (0, held)
        given += rest
        assert all(given)
        at = 0
        for unit in given:
            at = data.index(unit, at) + len(unit)


def relayed(data: bytes) -> None:
    """A server's messages are understood or counted; the account of pictures stays exact."""
    books = Books()
    video = RelayedVideo(books, books.deliver, _CONFIG)
    video.connected()
    size = 24 + (data[0] if data else 0)
    for message in _cut(data, size):
        video.take(message)
    video.disconnected()
    video.take(data.decode(errors="ignore"))
    books.check()


def _cut(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]
