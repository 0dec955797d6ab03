# SPDX-License-Identifier: Apache-2.0
"""What must be known of an H.264 byte stream without decoding it (ITU-T H.264, annex B and 7.3)."""

from __future__ import annotations

from collections.abc import Iterator

from worldsystem_core.wire import START_CODE, with_start_code

SLICE, PARTITION_A, IDR_SLICE, SPS, PPS = 1, 2, 5, 7, 8
_SHORT_START_CODE = START_CODE[1:]


def nal_units(annexb: bytes) -> Iterator[bytes]:
    """The NAL units of `annexb` without start codes; nothing when there is no start code."""
    at = annexb.find(_SHORT_START_CODE)
    while at >= 0:
        begin = at + 3
        at = annexb.find(_SHORT_START_CODE, begin)
        unit = annexb[begin:] if at < 0 else annexb[begin:at].rstrip(b"\0")
        if unit:
            yield unit


def nal_types(annexb: bytes) -> set[int]:
    """The kinds of NAL unit in `annexb`."""
    found = set()
    at = annexb.find(_SHORT_START_CODE)
    while 0 <= at < len(annexb) - 3:
        found.add(annexb[at + 3] & 0x1F)
        at = annexb.find(_SHORT_START_CODE, at + 3)
    return found


class BitReader:
    """Reads bits and Exp-Golomb numbers; raises `IndexError` behind the end."""

    def __init__(self, payload: bytes) -> None:
        self._payload = payload
        self.position = 0

    def bit(self) -> int:
        """The next bit."""
        byte = self._payload[self.position >> 3]
        value = byte >> (7 - (self.position & 7)) & 1
        self.position += 1
        return value

    def bits(self, count: int) -> int:
        """The next `count` bits as a number, most significant first."""
        value = 0
        for _ in range(count):
            value = value << 1 | self.bit()
        return value

    def ue(self) -> int:
        """The next unsigned Exp-Golomb number (9.1)."""
        zeros = 0
        while not self.bit():
            zeros += 1
            if zeros > 32:
                raise IndexError("Exp-Golomb number of more than 32 bits")
        return (1 << zeros) - 1 + self.bits(zeros)

    def se(self) -> int:
        """The next signed Exp-Golomb number (9.1.1)."""
        coded = self.ue()
        return (coded + 1) // 2 if coded & 1 else -(coded // 2)


class ParameterSets:
    """The newest sequence and picture parameter sets of a stream, by their ids."""

    def __init__(self) -> None:
        self._sets: dict[tuple[int, int], bytes] = {}

    def take(self, payload: bytes) -> None:
        """Remember every SPS and PPS in `payload`, which may lack its first start code."""
        for unit in nal_units(with_start_code(payload)):
            if unit[0] & 0x1F in (SPS, PPS):
                self._take_unit(unit)

    @property
    def complete(self) -> bool:
        """Whether there is at least one of each."""
        return {kind for kind, _ in self._sets} == {SPS, PPS}

    def annexb(self) -> bytes:
        """All of them in Annex-B form, sequence sets first."""
        return b"".join(START_CODE + self._sets[key] for key in sorted(self._sets))

    def _take_unit(self, unit: bytes) -> None:
        kind = unit[0] & 0x1F
        try:
            number = BitReader(unit[4:] if kind == SPS else unit[1:]).ue()
        except IndexError:
            return
        if number < (32 if kind == SPS else 256):
            self._sets[kind, number] = unit
