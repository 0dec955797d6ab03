# SPDX-License-Identifier: Apache-2.0
"""Each access unit comes out of the decoder exactly once, under its own number."""

from __future__ import annotations

import time

import numpy as np
import pytest
from ingest_lab import encode, number_in

from worldsystem_core.byte_stream import nal_units
from worldsystem_ingest.codec.decoder import Decoded, Decoder, Lost
from worldsystem_ingest.codec.h264 import ParameterSets, entry_of, nal_types
from worldsystem_ingest.codec.reordering import has_b_slice, without_reordering


def test_without_b_frames_each_picture_comes_out_with_its_unit():
    decoder = Decoder()
    for unit in encode(25):
        (outcome,) = decoder.feed(unit.shows + 1000, unit.data, unit.is_key)
        assert isinstance(outcome, Decoded)
        assert outcome.index == unit.shows + 1000
        assert number_in(outcome.rgb) == unit.shows
    assert decoder.flush() == []


def test_with_b_frames_pictures_come_as_shown_under_their_units_numbers():
    decoder, outcomes = Decoder(), []
    units = encode(40, b_frames=3)
    for index, unit in enumerate(units):
        outcomes += decoder.feed(index, unit.data, unit.is_key)
    outcomes += decoder.flush()
    assert [number_in(o.rgb) for o in outcomes] == list(range(40))
    assert [units[o.index].shows for o in outcomes] == list(range(40))


def test_it_begins_at_a_key_frame():
    decoder = Decoder()
    units = encode(20)[5:]
    outcomes = [o for u in units for o in decoder.feed(u.shows, u.data, u.is_key)]
    assert outcomes[:5] == [Lost(n, "no_key_frame") for n in range(5, 10)]
    assert [o.index for o in outcomes[5:]] == list(range(10, 20))


def test_empty_data_is_corrupt():
    decoder = Decoder()
    assert decoder.feed(1, b"", True) == [Lost(1, "corrupt")]
    unit = encode(1)[0]
    assert isinstance(decoder.feed(2, unit.data, True)[0], Decoded)


@pytest.mark.parametrize("seed", range(4))
def test_whatever_is_fed_every_unit_is_settled_once(seed):
    rng = np.random.default_rng(seed)
    decoder, outcomes = Decoder(), []
    units = encode(60, b_frames=seed % 2 * 2)
    for index, unit in enumerate(units):
        data = bytearray(unit.data)
        if rng.random() < 0.2:
            for at in rng.integers(5, len(data), 5):
                data[at] = rng.integers(0, 256)
        elif rng.random() < 0.1:
            data = data[: rng.integers(0, len(data))]
        outcomes += decoder.feed(index, bytes(data), unit.is_key)
    outcomes += decoder.flush()
    assert sorted(o.index for o in outcomes) == list(range(60))


def test_parameter_sets_are_found_with_and_without_start_codes():
    key = encode(1)[0].data
    sps = next(nal for nal in nal_units(key) if nal[0] & 31 == 7)
    pps = next(nal for nal in nal_units(key) if nal[0] & 31 == 8)
    for payloads in ([sps, pps], [b"\0\0\1" + sps, b"\0\0\0\1" + pps], [key]):
        sets = ParameterSets()
        assert not sets.complete
        for payload in payloads:
            sets.take(payload)
        assert sets.complete
        assert sets.annexb() == b"\0\0\0\1" + sps + b"\0\0\0\1" + pps


@pytest.mark.parametrize("payload", [b"", b"\0", b"\x67", b"\x68", b"\0\0\1", b"\x67" + b"\0" * 99])
def test_parameter_sets_of_no_sense_are_ignored(payload):
    sets = ParameterSets()
    sets.take(payload)
    assert not sets.complete
    assert nal_types(b"\0\0\1") == set()


HOSTILE = {
    "zeros": bytes(8 * 2**20),
    "many_units": b"\0\0\1\x65" * 2**21,
    "many_messages": b"\0\0\1\x06" + b"\1\0" * 2**22,
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_message_is_read_quickly(kind):
    message = HOSTILE[kind]
    start = time.perf_counter()
    nal_types(message)
    entry_of(message)
    has_b_slice(message)
    without_reordering(message)
    ParameterSets().take(message)
    assert time.perf_counter() - start < 2.0  # 0.1 s when nothing else runs
