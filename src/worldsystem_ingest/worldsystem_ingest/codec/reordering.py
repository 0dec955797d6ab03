# SPDX-License-Identifier: Apache-2.0
"""Telling the decoder that a stream's pictures are coded in the order in which they are shown.

Many encoders announce reordering (H.264 E.2.1, `max_num_reorder_frames`) that they never use, and
a decoder must then hold every picture back. For live video the announcement is set to zero before
decoding, until the first B slice shows that it was meant.
"""

from __future__ import annotations

from worldsystem_core.byte_stream import nal_spans
from worldsystem_ingest.codec import h264
from worldsystem_ingest.codec.shared_syntax import BitReader, escaped, unescaped

_PROFILES_WITH_CHROMA_FORMAT = (100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135)
_EXPLICIT_ASPECT = 255
_CHROMA_444 = 3


def without_reordering(data: bytes) -> bytes:
    """`data` with every SPS that announces reordering changed to announce none.

    Gives the same object when there is nothing to change.
    """
    pieces, copied = [], 0
    for begin, end in nal_spans(data):
        if data[begin] & 0x1F == h264.SPS:
            sps = data[begin:end]
            rewritten = _rewritten(sps)
            if rewritten != sps:
                pieces += [data[copied:begin], rewritten]
                copied = end
    return b"".join([*pieces, data[copied:]]) if pieces else data


def has_b_slice(data: bytes) -> bool:
    """Whether an access unit has a B slice."""
    return h264.B_SLICE in h264.slice_types(data)


def _rewritten(sps: bytes) -> bytes:
    payload = unescaped(sps)
    reader = BitReader(payload)
    reader.bits(8)
    try:
        if not _skip_to_reorder_frames(reader):
            return sps
        begin = reader.position
        if reader.ue() == 0:
            return sps
        end = reader.position
        reader.ue()
    except IndexError:
        return sps
    bits = f"{int.from_bytes(payload, 'big'):0{8 * len(payload)}b}"
    bits = f"{bits[:begin]}1{bits[end : reader.position]}1"
    bits += "0" * (-len(bits) % 8)
    return escaped(int(bits, 2).to_bytes(len(bits) // 8, "big"))


def _skip_to_reorder_frames(reader: BitReader) -> bool:
    """Read an SPS (7.3.2.1.1) up to `max_num_reorder_frames`; False when it has none."""
    profile = reader.bits(8)
    reader.bits(16)
    reader.ue()
    if profile in _PROFILES_WITH_CHROMA_FORMAT:
        _skip_chroma_format(reader)
    reader.ue()
    _skip_picture_order(reader)
    reader.ue()
    reader.bit()
    reader.ue()
    reader.ue()
    if not reader.bit():
        reader.bit()
    reader.bit()
    if reader.bit():
        for _ in range(4):
            reader.ue()
    return bool(reader.bit()) and _skip_usability(reader)


def _skip_chroma_format(reader: BitReader) -> None:
    chroma = reader.ue()
    if chroma == _CHROMA_444:
        reader.bit()
    reader.ue()
    reader.ue()
    reader.bit()
    if reader.bit():
        for at in range(12 if chroma == _CHROMA_444 else 8):
            if reader.bit():
                _skip_scaling_list(reader, 16 if at < 6 else 64)


def _skip_scaling_list(reader: BitReader, size: int) -> None:
    """7.3.2.1.1.1"""
    last = following = 8
    for _ in range(size):
        if following:
            following = (last + reader.se()) % 256
        last = following or last


def _skip_picture_order(reader: BitReader) -> None:
    kind = reader.ue()
    if kind == 0:
        reader.ue()
    elif kind == 1:
        reader.bit()
        reader.se()
        reader.se()
        for _ in range(reader.ue()):
            reader.se()


def _skip_usability(reader: BitReader) -> bool:
    """The VUI (E.1.1) up to its bitstream restriction's reorder count."""
    if reader.bit() and reader.bits(8) == _EXPLICIT_ASPECT:
        reader.bits(32)
    if reader.bit():
        reader.bit()
    if reader.bit():
        reader.bits(4)
        if reader.bit():
            reader.bits(24)
    if reader.bit():
        reader.ue()
        reader.ue()
    if reader.bit():
        reader.bits(65)
    buffered = [_skip_buffering(reader) for _ in ("NAL", "VCL")]
    if any(buffered):
        reader.bit()
    reader.bit()
    if not reader.bit():
        return False
    reader.bit()
    for _ in range(4):
        reader.ue()
    return True


def _skip_buffering(reader: BitReader) -> bool:
    """The hypothetical reference decoder's parameters (E.1.2), when they are there."""
    if not reader.bit():
        return False
    count = reader.ue() + 1
    reader.bits(8)
    for _ in range(count):
        reader.ue()
        reader.ue()
        reader.bit()
    reader.bits(20)
    return True
