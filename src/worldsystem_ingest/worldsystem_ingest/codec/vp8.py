# SPDX-License-Identifier: Apache-2.0
"""What must be known of VP8 frames without decoding them (RFC 6386, 9.1)."""

from __future__ import annotations

from worldsystem_ingest.codec.entry import Entry

_INTER_BIT = 0x01


class ParameterSets:
    """VP8 has none: every key frame stands alone."""

    complete = True

    def take(self, data: bytes) -> None:
        """Nothing to remember."""

    def annexb(self) -> bytes:
        """Nothing that would have to come first."""
        return b""


def entry_of(data: bytes) -> Entry:
    """Whether decoding can begin with the frame `data`."""
    return Entry.KEY if data and not data[0] & _INTER_BIT else Entry.NONE


def leads_key_frame(data: bytes) -> bool:
    """Never: VP8 frames are sent in the order in which they are shown."""
    return False
