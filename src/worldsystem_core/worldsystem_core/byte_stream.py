# SPDX-License-Identifier: Apache-2.0
"""Byte streams of NAL units, as H.264 and H.265 share them (annex B of both, 7.3.1 and 7.4.1)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from worldsystem_core.wire import START_CODE

SHORT_START_CODE = START_CODE[1:]
MOST_UNITS = 2048  # a picture has at most 600 slices (H.265, A.4.1), and few others
PARAMETER_SETS = {"h264": (7, 8), "h265": (32, 33, 34)}
"""The types of NAL unit that a decoder needs before a key frame, in the order in which it does."""


def nal_units(annexb: bytes) -> Iterator[bytes]:
    """The NAL units of `annexb` without start codes; nothing when there is no start code."""
    for begin, end in nal_spans(annexb):
        yield annexb[begin:end]


def nal_spans(annexb: bytes) -> Iterator[tuple[int, int]]:
    """Where each NAL unit begins and ends, without start codes and trailing zero bytes: those
    belong to no unit, whose last byte is never zero (`trailing_zero_8bits`).

    Of a hostile message with more units than any picture has, the rest is left out.
    """
    at = annexb.find(SHORT_START_CODE)
    for _ in range(MOST_UNITS):
        if at < 0:
            return
        begin = at + 3
        at = annexb.find(SHORT_START_CODE, begin)
        end = begin + len(annexb[begin : len(annexb) if at < 0 else at].rstrip(b"\0"))
        if end > begin:
            yield begin, end


def joined(units: Iterable[bytes]) -> bytes:
    """`units` as one byte stream."""
    return b"".join(START_CODE + unit for unit in units)


def nal_type(unit: bytes, codec: str) -> int:
    """What kind of unit it is, by its first byte."""
    return unit[0] >> 1 & 0x3F if codec == "h265" else unit[0] & 0x1F


def nal_types(annexb: bytes, codec: str) -> Iterator[int]:
    """What kind each unit is, found without looking for its end."""
    at = annexb.find(SHORT_START_CODE)
    for _ in range(MOST_UNITS):
        if not 0 <= at < len(annexb) - 3:
            return
        yield nal_type(annexb[at + 3 : at + 4], codec)
        at = annexb.find(SHORT_START_CODE, at + 3)


def parameter_sets(annexb: bytes, codec: str) -> tuple[bytes, ...]:
    """The different parameter sets of a key frame in their order; none when a kind is missing.

    They are what must be known before its pictures, and what may not change afterwards.
    """
    kinds = PARAMETER_SETS[codec]
    found = dict.fromkeys(unit for unit in nal_units(annexb) if nal_type(unit, codec) in kinds)
    is_complete = {nal_type(unit, codec) for unit in found} == set(kinds)
    return tuple(found) if is_complete else ()
