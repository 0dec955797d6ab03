# SPDX-License-Identifier: Apache-2.0
"""Laws that hold for every sequence of bytes; the fuzzer looks for one that breaks them."""

from __future__ import annotations

from collections.abc import Callable

from worldsystem_core import wire
from worldsystem_core.errors import ProtocolError
from worldsystem_ingest.codec import h264, h265
from worldsystem_ingest.codec.annexb import escaped, joined, nal_spans, nal_units, unescaped
from worldsystem_ingest.codec.reordering import has_b_slice, without_reordering


def packets(data: bytes) -> None:
    """What unpacks packs again, but for the four bytes that are not interpreted."""
    try:
        packet = wire.unpack(data)
    except ProtocolError:
        return
    packed = wire.pack(packet)
    assert packed[4:] == data[4:]
    assert wire.unpack(packed) == packet


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


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target for target in (packets, splitting, reordering, parameter_sets)
}
