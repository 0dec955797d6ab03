# SPDX-License-Identifier: Apache-2.0
"""Stamps in text are read to the nanosecond, in whatever form, or refused."""

from __future__ import annotations

import numpy as np
import pytest

from worldsystem_core.stamp_text import nanoseconds_told


@pytest.mark.parametrize(
    ("text", "stamp_ns"),
    [
        ("1305031102.175304", 1_305_031_102_175_304_000),
        ("1305031102", 1_305_031_102_000_000_000),
        ("1403636579763555584", 1_403_636_579_763_555_584),
        ("0000000033333333", 33_333_333),
        ("1.305031526671319962e+09", 1_305_031_526_671_319_962),
        ("1.403636579763555584e+18", 1_403_636_579_763_555_584),
        ("1.037875e-01", 103_787_500),
        ("0.2075749999999999917", 207_575_000),
        ("-0.5", -500_000_000),
        ("9223372036.854775807", 2**63 - 1),
        ("1e-999999", 0),
        (" 0 ", 0),
    ],
)
def test_a_stamp_is_read_to_the_nanosecond(text, stamp_ns):
    assert nanoseconds_told(text) == stamp_ns


@pytest.mark.parametrize(
    "text", ["", "yesterday", "1.5.2", "nan", "inf", "1e300", "1e999999999999", "9223372036.9"]
)
def test_what_is_no_stamp_is_refused(text):
    with pytest.raises(ValueError, match="time stamp"):
        nanoseconds_told(text)


def test_whatever_numpy_writes_of_whole_nanoseconds_or_seconds_comes_back():
    stamps_ns = np.random.default_rng(0).integers(10**18, 2 * 10**18, 50)
    for stamp_ns in stamps_ns.tolist():
        seconds = stamp_ns / 1e9
        assert nanoseconds_told(f"{seconds:.18e}") == int(f"{seconds:.9f}".replace(".", ""))
        assert nanoseconds_told(f"{stamp_ns}") == stamp_ns
        assert nanoseconds_told(f"{stamp_ns // 10**9}.{stamp_ns % 10**9:09d}") == stamp_ns
