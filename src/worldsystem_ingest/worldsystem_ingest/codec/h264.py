# SPDX-License-Identifier: Apache-2.0
"""What must be known of an H.264 byte stream without decoding it (ITU-T H.264, 7.3)."""

from __future__ import annotations

from worldsystem_core import byte_stream
from worldsystem_core.byte_stream import nal_units
from worldsystem_ingest.codec import shared_syntax
from worldsystem_ingest.codec.entry import Entry
from worldsystem_ingest.codec.shared_syntax import BitReader, unescaped

SLICE, PARTITION_A, IDR_SLICE, SEI, SPS, PPS = 1, 2, 5, 6, 7, 8
PICTURE_TYPES = frozenset({SLICE, PARTITION_A, IDR_SLICE})
B_SLICE, I_SLICE, SI_SLICE = 1, 2, 4
_RECOVERY_POINT = 6
_SLICE_HEADER_BYTES = 16


def nal_types(data: bytes) -> set[int]:
    """The kinds of NAL unit in `data`."""
    return set(byte_stream.nal_types(data, "h264"))


def entry_of(data: bytes) -> Entry:
    """How decoding may begin at this access unit."""
    kinds = nal_types(data)
    if IDR_SLICE in kinds:
        return Entry.KEY
    if not kinds & PICTURE_TYPES:
        return Entry.NONE
    if SEI in kinds and _has_recovery_point(data):
        return Entry.RECOVERY
    slices = slice_types(data)
    return Entry.INTRA if slices and slices <= {I_SLICE, SI_SLICE} else Entry.NONE


def leads_key_frame(data: bytes) -> bool:
    """Never: what H.264 shows before a recovery point cannot be told without its order count."""
    return False


def slice_types(data: bytes) -> set[int]:
    """The kinds of slice (0 P, 1 B, 2 I, 3 SP, 4 SI) of an access unit (7.3.3), where readable."""
    found = set()
    for begin, end in byte_stream.nal_spans(data):
        if data[begin] & 0x1F in PICTURE_TYPES:
            reader = BitReader(unescaped(data[begin + 1 : min(end, begin + _SLICE_HEADER_BYTES)]))
            try:
                reader.ue()
                found.add(reader.ue() % 5)
            except IndexError:
                continue
    return found


class ParameterSets(shared_syntax.ParameterSets):
    """The newest sequence and picture parameter sets of a stream, by their ids."""

    kinds = (SPS, PPS)

    @staticmethod
    def kind_of(unit: bytes) -> int:
        return unit[0] & 0x1F

    @staticmethod
    def number_of(unit: bytes) -> int:
        is_sequence = unit[0] & 0x1F == SPS
        number = BitReader(unescaped(unit[4:] if is_sequence else unit[1:])).ue()
        if is_sequence and number >= 32:
            raise IndexError(f"sequence parameter set {number}; the largest is 31")
        return number


def _has_recovery_point(data: bytes) -> bool:
    return any(
        unit[0] & 0x1F == SEI and _RECOVERY_POINT in shared_syntax.sei_payload_types(unit, 1)
        for unit in nal_units(data)
    )
