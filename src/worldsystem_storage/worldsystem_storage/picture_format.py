# SPDX-License-Identifier: Apache-2.0
"""What `sensor_msgs/CompressedImage` says of its picture, in the words of image_transport."""

from __future__ import annotations

PNG_BEGIN, JPEG_BEGIN = b"\x89PNG", b"\xff\xd8\xff"
COLOUR_JPEG = "rgb8; jpeg compressed bgr8"
_PNG_BITS_AT, _PNG_COLOUR_AT, _PNG_GREY = 24, 25, (0, 4)
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_SCAN = 0xDA


def picture_format(picture: bytes) -> str:
    """The `format` of a JPEG or PNG file: how its reader gets it, codec, order of the channels.

    Decoders give blue first; readers take that for red where the order is not told.
    """
    is_png = picture.startswith(PNG_BEGIN)
    codec = "png" if is_png else "jpeg"
    bits = 16 if is_png and picture[_PNG_BITS_AT : _PNG_BITS_AT + 1] == b"\x10" else 8
    if _is_grey_png(picture) if is_png else _is_grey_jpeg(picture):
        return f"mono{bits}; {codec} compressed "
    return f"rgb{bits}; {codec} compressed bgr{bits}"


def _is_grey_png(picture: bytes) -> bool:
    return len(picture) > _PNG_COLOUR_AT and picture[_PNG_COLOUR_AT] in _PNG_GREY


def _is_grey_jpeg(picture: bytes) -> bool:
    """Whether the frame header (ITU-T T.81, B.2.2) tells of one component."""
    at = 2
    while at + 10 <= len(picture) and picture[at] == 0xFF:
        marker = picture[at + 1]
        if marker in _JPEG_FRAMES:
            return picture[at + 9] == 1
        if marker == _JPEG_SCAN:
            return False
        filling = marker == 0xFF
        at += 1 if filling else 2 + int.from_bytes(picture[at + 2 : at + 4], "big")
    return False
