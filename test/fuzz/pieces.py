# SPDX-License-Identifier: Apache-2.0
"""One input taken apart into several messages, and the way back for seeds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

_SIZE_BYTES = 2


def pieces(data: bytes) -> Iterator[tuple[int, bytes]]:
    """A kind (one byte) and the bytes of each message; the last one may be cut."""
    at = 0
    while at + 1 + _SIZE_BYTES <= len(data):
        begin = at + 1 + _SIZE_BYTES
        size = int.from_bytes(data[at + 1 : begin], "big")
        yield data[at], data[begin : begin + size]
        at = begin + size


def joined(messages: Sequence[tuple[int, bytes]]) -> bytes:
    """Inverse of `pieces`."""
    return b"".join(
        bytes([kind]) + len(part).to_bytes(_SIZE_BYTES, "big") + part for kind, part in messages
    )
