# SPDX-License-Identifier: Apache-2.0
"""A byte stream cut into access units (H.264 7.4.1.2.3, H.265 7.4.2.4.4)."""

from __future__ import annotations

from worldsystem_core.byte_stream import SHORT_START_CODE

_H264_SPS, _H264_PICTURES = 7, frozenset({1, 2, 5})
_H264_BEFORE = frozenset({6, 7, 8, 9, 14, 15, 16, 17, 18})
_H265_VPS, _H265_SPS, _H265_PICTURES = 32, 33, frozenset(range(32))
_H265_BEFORE = frozenset({32, 33, 34, 35, 39, 41, 42, 43, 44, 48, 49, 50, 51, 52, 53, 54, 55})
_HEAD_BYTES = {"h264": 2, "h265": 3}  # enough to know whether a NAL unit begins an access unit
_MESSAGES_UNTIL_TRUSTED = 8
_NEVER = -(1 << 60)


class AccessUnitSplitter:
    """Collects messages of any size and gives whole access units, in Annex-B form.

    The end of a unit shows only when the next one begins. When many messages in a row began with a
    unit, as those of our relay do, each is taken to be whole, and its unit comes at once. What does
    not begin with a start code, and units of more than `most_bytes`, are let go and counted.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self.garbage_bytes = 0
        self.codec = ""
        self.restart()

    def restart(self) -> None:
        """A new connection: what was begun is never finished."""
        self._buffer = bytearray()
        self._scanned = 0
        self._has_picture = False
        self._trust = 0
        self._skipping = True

    def feed(self, message: bytes) -> list[bytes]:
        """Take one message; gives the units that are known to be whole now."""
        begins_with_unit = self._begins_unit(message)
        if begins_with_unit:
            self._trust += 1
        elif self._trusted:
            self._trust = _NEVER
            self._skipping = True  # this is the rest of a unit that was taken to be whole
        else:
            self._trust = min(self._trust, 0)
        self._buffer += message
        units = self._split()
        if self._trusted and self._has_picture:
            units.append(bytes(self._buffer))
            self._clear()
        if len(self._buffer) > self._most_bytes:
            self.garbage_bytes += len(self._buffer)
            self._clear()
            self._skipping = True
        return units

    def finish(self) -> list[bytes]:
        """The connection ended: what is there of the last unit, which may be cut."""
        rest = [bytes(self._buffer)] if self._has_picture else []
        self.restart()
        return rest

    @property
    def _trusted(self) -> bool:
        return self._trust >= _MESSAGES_UNTIL_TRUSTED

    @property
    def _head_bytes(self) -> int:
        return _HEAD_BYTES.get(self.codec, 2)

    def _begins_unit(self, message: bytes) -> bool:
        at = message.find(SHORT_START_CODE, 0, 4)
        if at < 0 or at + 3 + self._head_bytes > len(message):
            return False
        return self._kind(message, at + 3) != "more"

    def _split(self) -> list[bytes]:
        units = []
        at = self._buffer.find(SHORT_START_CODE, self._scanned)
        while at >= 0 and at + 3 + self._head_bytes <= len(self._buffer):
            begin = at - 1 if at > 0 and self._buffer[at - 1] == 0 else at
            kind = self._kind(self._buffer, at + 3)
            begins = kind in ("first", "before")
            if begins and (self._skipping or self._has_picture):
                at -= begin
                whole = self._cut(begin)
                if whole:
                    units.append(whole)
            is_picture = kind in ("first", "more") and not self._skipping
            self._has_picture = self._has_picture or is_picture
            self._scanned = at + 3
            at = self._buffer.find(SHORT_START_CODE, self._scanned)
        if at < 0:
            self._scanned = max(self._scanned, len(self._buffer) - 2)
        return units

    def _cut(self, begin: int) -> bytes:
        """What lies before `begin`; empty when that is not a unit's."""
        whole = bytes(self._buffer[:begin])
        del self._buffer[:begin]
        self._has_picture = False
        if self._skipping:
            self.garbage_bytes += len(whole)
            self._skipping = False
            return b""
        return whole

    def _clear(self) -> None:
        self._buffer.clear()
        self._scanned = 0
        self._has_picture = False

    def _kind(self, data: bytes | bytearray, at: int) -> str:
        """Of the NAL unit at `at`: `first` or `more` of a picture, `before` one, or `other`."""
        self._learn_codec(data, at)
        if self.codec == "h265":
            number = data[at] >> 1 & 0x3F
            if number in _H265_PICTURES:
                return "first" if data[at + 2] & 0x80 else "more"
            return "before" if number in _H265_BEFORE else "other"
        number = data[at] & 0x1F
        if number in _H264_PICTURES:
            return "first" if data[at + 1] & 0x80 else "more"  # first_mb_in_slice is 0
        return "before" if number in _H264_BEFORE else "other"

    def _learn_codec(self, data: bytes | bytearray, at: int) -> None:
        """Parameter sets tell the standards apart."""
        if data[at] & 0x9F == _H264_SPS and data[at] & 0x60:
            self.codec = "h264"
        elif data[at] in (_H265_VPS << 1, _H265_SPS << 1) and data[at + 1] == 1:
            self.codec = "h265"
