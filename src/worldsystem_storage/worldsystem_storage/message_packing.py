# SPDX-License-Identifier: Apache-2.0
"""rosbag2's compression mode "message": each message packed by itself with zstd."""

from __future__ import annotations

import zstandard

from worldsystem_storage.bag_metadata import Topic

_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


def looks_packed(data: bytes) -> bool:
    """Whether `data` begins as zstd, which no CDR does: its first byte is zero."""
    return data.startswith(_ZSTD_MAGIC)


def can_be_packed(topic: Topic) -> bool:
    """Whether messages of `topic` that look packed are: those of other encodings may begin so."""
    return topic.message_encoding == "cdr"


def unpacked(data: bytes) -> bytes:
    """What was packed; raises `zstandard.ZstdError` where that is damaged or cut off."""
    unpacker = zstandard.ZstdDecompressor().decompressobj()
    plain = bytes(unpacker.decompress(data))
    if not unpacker.eof:
        raise zstandard.ZstdError("its end is missing")
    return plain
