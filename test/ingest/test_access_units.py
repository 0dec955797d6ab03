# SPDX-License-Identifier: Apache-2.0
"""A byte stream cut into access units, however it was split on its way."""

from __future__ import annotations

import numpy as np
import pytest
from ingest_lab import encode

from worldsystem_core.byte_stream import nal_units
from worldsystem_core.wire import START_CODE
from worldsystem_ingest.codec.access_units import AccessUnitSplitter

MIB = 1 << 20


def units_of(count: int, **options) -> list[bytes]:
    return [unit.data for unit in encode(count, **options)]


def fed(messages: list[bytes], splitter: AccessUnitSplitter | None = None) -> list[bytes]:
    splitter = splitter or AccessUnitSplitter(MIB)
    return [unit for message in messages for unit in splitter.feed(message)]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 64, 1000, 100_000])
@pytest.mark.parametrize("slices", [1, 4])
def test_any_split_of_the_bytes_gives_the_same_units(size, slices):
    units = units_of(12, **{"x264-params": f"keyint=4:bframes=0:slices={slices}"})
    stream = b"".join(units)
    messages = [stream[at : at + size] for at in range(0, len(stream), size)]
    assert fed(messages) == units[:-1]  # the end of the last one cannot be known yet


def test_random_splits_give_the_same_units():
    units = units_of(30)
    stream, rng = b"".join(units), np.random.default_rng(0)
    for _ in range(20):
        cuts = np.sort(rng.integers(0, len(stream), 40))
        pieces = [bytes(piece) for piece in np.split(np.frombuffer(stream, np.uint8), cuts)]
        assert fed([piece for piece in pieces if piece]) == units[:-1]


def test_a_server_that_sends_unit_by_unit_is_soon_trusted_to():
    units, splitter = units_of(20), AccessUnitSplitter(MIB)
    given = [len(splitter.feed(unit)) for unit in units]
    assert given == [0] + [1] * 6 + [2] + [1] * 12
    assert fed(units) == units


def test_a_server_that_sends_nal_by_nal_gives_whole_units():
    units = units_of(25, gop=5)
    messages = [START_CODE + nal for unit in units for nal in nal_units(unit)]
    found = fed(messages)
    assert [list(nal_units(unit)) for unit in found] == [list(nal_units(unit)) for unit in units]


def test_a_server_whose_messages_turn_out_not_to_be_units_is_no_longer_trusted():
    units = units_of(40)
    splitter = AccessUnitSplitter(MIB)
    assert fed(units[:20], splitter) == units[:20]
    rest = b"".join(units[20:])
    found = fed([rest[at : at + 700] for at in range(0, len(rest), 700)], splitter)
    assert found[1:] == units[-1 - len(found[1:]) : -1]
    assert len(found) >= 17


def test_units_of_h265_are_told_apart():
    # VPS SPS PPS, then pictures: IDR_W_RADL (19) and TRAIL_R (1) in two slice segments each
    sets = b"".join(START_CODE + bytes([kind << 1, 1, 0x55]) for kind in (32, 33, 34))
    parts = [
        START_CODE + bytes([kind << 1, 1, 0x80 if first else 0x10, 9, 9])
        for kind in (19, 1, 1)
        for first in (True, False)
    ]
    stream = sets + b"".join(parts) + parts[2]
    splitter = AccessUnitSplitter(MIB)
    found = fed([stream[at : at + 4] for at in range(0, len(stream), 4)], splitter)
    assert splitter.codec == "h265"
    assert found == [sets + parts[0] + parts[1], parts[2] + parts[3], parts[4] + parts[5]]


def test_what_comes_before_the_first_unit_is_let_go():
    units = units_of(4)
    splitter = AccessUnitSplitter(MIB)
    assert fed([b"hello", b"\0\1\2" * 30, *units], splitter) == units[:-1]
    assert splitter.garbage_bytes == 95


def test_endless_garbage_takes_no_memory():
    splitter = AccessUnitSplitter(10_000)
    for _ in range(100):
        assert splitter.feed(bytes(range(4, 250)) * 4) == []
        assert len(splitter._buffer) <= 10_000
    assert splitter.garbage_bytes > 80_000
    units = units_of(4)
    assert fed(units, splitter) == units[:-1]


def test_the_end_of_a_connection_gives_what_was_begun_and_begins_anew():
    units, splitter = units_of(6), AccessUnitSplitter(MIB)
    assert fed([units[0], units[1][:20]], splitter) == units[:1]
    assert splitter.finish() == [units[1][:20]]
    assert fed(units, splitter) == units[:-1]
    assert splitter.finish() == units[-1:]
    assert splitter.finish() == []
