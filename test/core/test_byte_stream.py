# SPDX-License-Identifier: Apache-2.0
"""A byte stream splits into its NAL units, whatever zeros stand between them."""

from __future__ import annotations

import pytest

from worldsystem_core.byte_stream import (
    MOST_UNITS,
    joined,
    nal_spans,
    nal_types,
    nal_units,
    parameter_sets,
)

SPS, PPS, IDR = b"\x67a", b"\x68b", b"\x65c"
HEVC_SETS = (b"\x40\1v", b"\x42\1s", b"\x44\1p")


def test_nal_units_are_found_behind_both_start_codes():
    assert [*nal_units(b"\0\0\0\1\x67a\0\0\1\x68b\0\0\0\1\x65c")] == [SPS, PPS, IDR]


@pytest.mark.parametrize("annexb", [b"", b"\x65c", b"\0\0\1", b"\0\0\0\1\0\0"])
def test_without_a_start_code_or_bytes_behind_it_there_is_no_unit(annexb):
    assert not [*nal_units(annexb)]


@pytest.mark.parametrize("zeros", [0, 1, 2, 3, 7])
def test_trailing_zeros_belong_to_no_unit_be_it_the_last_or_not(zeros):
    padded = b"".join(b"\0\0\1" + unit + bytes(zeros) for unit in (SPS, PPS, IDR))
    assert [*nal_units(padded)] == [SPS, PPS, IDR]
    assert [padded[a:b] for a, b in nal_spans(padded)] == [SPS, PPS, IDR]
    assert [*nal_types(padded, "h264")] == [7, 8, 5]


def test_a_zero_within_a_unit_stays():
    assert [*nal_units(joined([b"\x65\0\0\3\1", b"\x41\0c"]))] == [b"\x65\0\0\3\1", b"\x41\0c"]


def test_of_more_units_than_any_picture_has_the_rest_is_left_out():
    hostile = joined([IDR] * (MOST_UNITS + 10))
    assert len([*nal_units(hostile)]) == len([*nal_types(hostile, "h264")]) == MOST_UNITS


def test_parameter_sets_are_found_in_order_and_each_once():
    other = b"\x68d"
    annexb = joined([SPS, PPS, SPS, other, PPS, IDR])
    assert parameter_sets(annexb, "h264") == (SPS, PPS, other)
    assert parameter_sets(joined([*HEVC_SETS, b"\x26\1k"]), "h265") == HEVC_SETS


@pytest.mark.parametrize("units", [[], [IDR], [SPS, IDR], [PPS, b"\x68d", IDR]])
def test_there_are_none_when_a_kind_is_missing(units):
    assert parameter_sets(joined(units), "h264") == ()
