# SPDX-License-Identifier: Apache-2.0
"""What is in NAL units, as H.264 and H.265 share it (7.4.1 and 9.1 of both)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from worldsystem_core.byte_stream import joined, nal_units
from worldsystem_core.wire import with_start_code

_SEI_BYTES = 4096
_NUMBERS = 256  # ids are below
_MOST_SETS = 64
_MOST_SET_BYTES = 4096


def unescaped(unit: bytes) -> bytes:
    """The payload of a NAL unit: emulation prevention taken out."""
    return unit.replace(b"\0\0\3", b"\0\0")


def escaped(payload: bytes) -> bytes:
    """`payload` with emulation prevention, so that no start code is in it."""
    result = bytearray()
    zeros = 0
    for byte in payload:
        if zeros >= 2 and byte <= 3:
            result.append(3)
            zeros = 0
        result.append(byte)
        zeros = zeros + 1 if byte == 0 else 0
    return bytes(result)


def sei_payload_types(unit: bytes, header_bytes: int) -> set[int]:
    """The kinds of message in one SEI unit, as far as it can be read."""
    payload = unescaped(unit[header_bytes:_SEI_BYTES])
    found, at = set(), 0
    while at + 2 <= len(payload):  # the one byte after the last message ends the unit
        kind, at = _sei_number(payload, at)
        size, at = _sei_number(payload, at)
        found.add(kind)
        at += size
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


class ParameterSets(ABC):
    """The newest parameter sets of a stream, by their kind and id.

    Ones of no sense, and more than any stream has, are not kept.
    """

    kinds: ClassVar[tuple[int, ...]]  # in the order in which a decoder needs them

    def __init__(self) -> None:
        self._sets: dict[tuple[int, int], bytes] = {}  # the one that came last is last

    def take(self, payload: bytes) -> None:
        """Remember every parameter set in `payload`, which may lack its first start code."""
        for unit in nal_units(with_start_code(payload)):
            if self.kind_of(unit) in self.kinds:
                self._take_unit(unit)

    @property
    def complete(self) -> bool:
        """Whether there is at least one of each kind."""
        return {kind for kind, _ in self._sets} == set(self.kinds)

    def annexb(self) -> bytes:
        """All of them as a byte stream, in the order in which a decoder needs them."""
        return joined(self._sets[key] for key in sorted(self._sets))

    @staticmethod
    @abstractmethod
    def kind_of(unit: bytes) -> int:
        """The NAL unit type."""

    @staticmethod
    @abstractmethod
    def number_of(unit: bytes) -> int:
        """The id of a parameter set; raises `IndexError` when it is cut off."""

    def _take_unit(self, unit: bytes) -> None:
        try:
            key = self.kind_of(unit), self.number_of(unit)
        except IndexError:
            return
        if len(unit) > _MOST_SET_BYTES or key[1] >= _NUMBERS:
            return
        self._sets.pop(key, None)
        self._sets[key] = unit
        if len(self._sets) > _MOST_SETS:
            del self._sets[next(iter(self._sets))]


def _sei_number(payload: bytes, at: int) -> tuple[int, int]:
    """A number of 7.3.2.3.1 (bytes of 255, then the rest), and where the next thing begins."""
    value = 0
    while at < len(payload) and payload[at] == 255:
        value += 255
        at += 1
    return value + (payload[at] if at < len(payload) else 0), at + 1
