# SPDX-License-Identifier: Apache-2.0
"""Writing ROS messages as CDR bytes straight from arrays, and reading them (XCDR1, little endian).

rclpy builds a message object, copies it into a C structure and serialises that; for pictures and
clouds one join of buffers does the same in a fraction of the time.
"""

from __future__ import annotations

import struct

import numpy as np

from worldsystem_core.errors import ProtocolError

_HEADER = b"\x00\x01\x00\x00"
_LITTLE_ENDIAN = _HEADER[:2]
_PADDING = bytes(8)


class CdrWriter:
    """Appends fields in the order of the message definition; alignment is kept by itself."""

    def __init__(self) -> None:
        self._parts: list[bytes | memoryview | np.ndarray] = [_HEADER]
        self._size = 0

    def number(self, code: str, value: float) -> None:
        """One primitive by its `struct` code (`B b H h I i Q q f d ?`)."""
        size = struct.calcsize(code)
        self._align(size)
        self._append(struct.pack(f"<{code}", value))

    def stamp(self, stamp_ns: int) -> None:
        """`builtin_interfaces/Time`."""
        self.number("i", stamp_ns // 10**9)
        self.number("I", stamp_ns % 10**9)

    def string(self, text: str) -> None:
        data = text.encode() + b"\x00"
        self.number("I", len(data))
        self._append(data)

    def header(self, stamp_ns: int, frame_id: str) -> None:
        """`std_msgs/Header`."""
        self.stamp(stamp_ns)
        self.string(frame_id)

    def doubles(self, values: np.ndarray | list[float] | tuple[float, ...]) -> None:
        """A fixed-size float64 array, or consecutive float64 fields."""
        self._align(8)
        self._append(np.asarray(values, dtype="<f8").tobytes())

    def ints(self, values: tuple[int, ...]) -> None:
        """A fixed-size int32 array."""
        self._align(4)
        self._append(np.asarray(values, dtype="<i4").tobytes())

    def int_sequence(self, values: list[int]) -> None:
        """An unbounded int32 sequence."""
        self.number("I", len(values))
        self._append(np.asarray(values, dtype="<i4").tobytes())

    def octets(self, *buffers: bytes | memoryview | np.ndarray) -> None:
        """An unbounded uint8 sequence made of the buffers' bytes, one after the other."""
        views = [_as_bytes_view(buffer) for buffer in buffers]
        self.number("I", sum(len(view) for view in views))
        for view in views:
            self._append(view)

    def raw(self, array: np.ndarray) -> None:
        """Fields laid out as CDR wants them at this offset."""
        self._append(_as_bytes_view(array.view(np.uint8)))

    def laid_out(self, parts: list[bytes | memoryview | np.ndarray], size: int) -> None:
        """`size` bytes of fields that the caller laid out and aligned; arrays are contiguous."""
        self._parts += parts
        self._size += size

    def finish(self) -> bytes:
        """The message's bytes, encapsulation header included."""
        return b"".join(self._parts)

    def _align(self, size: int) -> None:
        gap = -self._size % size
        if gap:
            self._append(_PADDING[:gap])

    def _append(self, data: bytes | memoryview) -> None:
        self._parts.append(data)
        self._size += len(data)


class CdrReader:
    """Takes fields in the order of the message definition, without a copy.

    Raises `ProtocolError` where the bytes end too early or are of another encoding.
    """

    def __init__(self, cdr: bytes) -> None:
        if cdr[:2] != _LITTLE_ENDIAN:
            raise ProtocolError(f"CDR of encoding {cdr[:2].hex()}, not little-endian XCDR1 (0001)")
        self._body = memoryview(cdr)[len(_HEADER) :]
        self._at = 0

    def number(self, code: str) -> int:
        """One whole number by its `struct` code (`B b H h I i Q q`)."""
        size = struct.calcsize(code)
        self._at += -self._at % size
        (value,) = struct.unpack(f"<{code}", self._take(size))
        return int(value)

    def stamp(self) -> int:
        """`builtin_interfaces/Time` [ns]."""
        return self.number("i") * 10**9 + self.number("I")

    def string(self) -> str:
        return bytes(self._take(self.number("I"))).rstrip(b"\x00").decode(errors="replace")

    def doubles(self, count: int) -> np.ndarray:
        """So many consecutive float64 fields, as a read-only view."""
        self._at += -self._at % 8
        return np.frombuffer(self._take(8 * count), "<f8")

    def rest(self) -> memoryview:
        """All that was not taken yet."""
        return self._take(len(self._body) - self._at)

    def octets(self) -> np.ndarray:
        """An unbounded uint8 sequence, as a read-only view."""
        return np.frombuffer(self._take(self.number("I")), np.uint8)

    def _take(self, size: int) -> memoryview:
        taken = self._body[self._at : self._at + size]
        if len(taken) < size:
            raise ProtocolError(f"CDR ends {size - len(taken)} bytes too early")
        self._at += size
        return taken


def _as_bytes_view(buffer: bytes | memoryview | np.ndarray) -> bytes | memoryview:
    if isinstance(buffer, np.ndarray):
        if not buffer.size:
            return b""
        return memoryview(np.ascontiguousarray(buffer)).cast("B")
    return buffer
