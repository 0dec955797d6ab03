# SPDX-License-Identifier: Apache-2.0
"""What must be known of an H.265 byte stream without decoding it (ITU-T H.265, 7.3)."""

from __future__ import annotations

from worldsystem_core import byte_stream
from worldsystem_core.byte_stream import nal_units
from worldsystem_ingest.codec import shared_syntax
from worldsystem_ingest.codec.entry import Entry
from worldsystem_ingest.codec.shared_syntax import BitReader, unescaped

RASL_N, RASL_R, BLA_W_LP, IDR_W_RADL, IDR_N_LP = 8, 9, 16, 19, 20
VPS, SPS, PPS, SEI = 32, 33, 34, 39
IDR_TYPES = frozenset({IDR_W_RADL, IDR_N_LP})
IRAP_TYPES = frozenset(range(BLA_W_LP, 24))
PICTURE_TYPES = frozenset(range(10)) | IRAP_TYPES
_RECOVERY_POINT = 6
_HEADER_BYTES = 2
_PROFILE_BITS, _LEVEL_BITS = 88, 8


def nal_types(data: bytes) -> set[int]:
    """The kinds of NAL unit in `data`."""
    return set(byte_stream.nal_types(data, "h265"))


def entry_of(data: bytes) -> Entry:
    """How decoding may begin at this access unit.

    A clean random access picture recovers: those that are shown before it may refer further back.
    """
    kinds = nal_types(data)
    if kinds & IDR_TYPES:
        return Entry.KEY
    if kinds & IRAP_TYPES:
        return Entry.RECOVERY
    if kinds & PICTURE_TYPES and SEI in kinds and _has_recovery_point(data):
        return Entry.RECOVERY
    return Entry.NONE


def leads_key_frame(data: bytes) -> bool:
    """Whether it is shown before the key frame it follows and refers to pictures before that."""
    return bool(nal_types(data) & {RASL_N, RASL_R})


class ParameterSets(shared_syntax.ParameterSets):
    """The newest video, sequence and picture parameter sets of a stream, by their ids."""

    kinds = (VPS, SPS, PPS)

    @staticmethod
    def kind_of(unit: bytes) -> int:
        return unit[0] >> 1 & 0x3F

    @staticmethod
    def number_of(unit: bytes) -> int:
        reader = BitReader(unescaped(unit[_HEADER_BYTES:]))
        kind = unit[0] >> 1 & 0x3F
        if kind == VPS:
            return reader.bits(4)
        if kind == SPS:
            _skip_profile(reader)
        number = reader.ue()
        if kind == SPS and number >= 16:
            raise IndexError(f"sequence parameter set {number}; the largest is 15")
        return number


def _skip_profile(reader: BitReader) -> None:
    """An SPS (7.3.2.2) up to its id."""
    reader.bits(4)
    layers = reader.bits(3)
    reader.bit()
    reader.bits(_PROFILE_BITS + _LEVEL_BITS)
    present = [(reader.bit(), reader.bit()) for _ in range(layers)]
    reader.bits(2 * (8 - layers) if layers else 0)
    for has_profile, has_level in present:
        reader.bits(_PROFILE_BITS * has_profile + _LEVEL_BITS * has_level)


def _has_recovery_point(data: bytes) -> bool:
    return any(
        unit[0] >> 1 & 0x3F == SEI and _RECOVERY_POINT in shared_syntax.sei_payload_types(unit, 2)
        for unit in nal_units(data)
    )
