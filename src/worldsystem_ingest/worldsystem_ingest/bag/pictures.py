# SPDX-License-Identifier: Apache-2.0
"""Pictures out of messages: raw and compressed images, and H.264 or H.265 in packets."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from worldsystem_core.image_encodings import KNOWN_ENCODINGS, is_known, rgb_from
from worldsystem_ingest.codec.still import rgb_of_still
from worldsystem_ingest.files.delivery import Delivery
from worldsystem_ingest.sink import CORRUPT

IMAGE = "sensor_msgs/msg/Image"
COMPRESSED_IMAGE = "sensor_msgs/msg/CompressedImage"
VIDEO_TYPES = (
    "foxglove_msgs/msg/CompressedVideo",
    "ffmpeg_image_transport_msgs/msg/FFMPEGPacket",
)
PICTURE_TYPES = (IMAGE, COMPRESSED_IMAGE, *VIDEO_TYPES)


@runtime_checkable
class MessageReader(Protocol):
    """Takes the messages of one topic and delivers their pictures."""

    def feed(self, message: Any, stamp_ns: int) -> None:
        """Take one message; `stamp_ns` is when its picture was taken."""

    def lost(self) -> None:
        """The next message cannot be read: its picture is dropped as `corrupt`."""

    def flush(self) -> None:
        """Deliver what is still under way."""


def why_no_picture(type_name: str, message: Any) -> str:
    """Why a message cannot be shown, in words; empty when it can."""
    if type_name == IMAGE and not is_known(message.encoding):
        known = ", ".join(KNOWN_ENCODINGS)
        return f"its pixels are {message.encoding or 'of no named kind'}; known: {known}"
    if type_name == COMPRESSED_IMAGE and "compresseddepth" in message.format.lower():
        return "it holds depth, not pictures"
    if type_name in VIDEO_TYPES and not codec_of(message):
        return f"its video is {_video_format(message) or 'of no named kind'}; known: h264, h265"
    return ""


def rgb_of_image(message: Any) -> UInt8[np.ndarray, "h w 3"] | None:
    """The picture of a `sensor_msgs/Image`; None when it is no colour or grey of 8 bits, or its
    data do not fill it.
    """
    return rgb_from(
        np.frombuffer(message.data, np.uint8),
        message.encoding,
        height=int(message.height),
        width=int(message.width),
        step=int(message.step),
    )


class ImageReader:
    """Raw images."""

    def __init__(self, delivery: Delivery) -> None:
        self._delivery = delivery

    def feed(self, message: Any, stamp_ns: int) -> None:
        """Deliver one; an incomplete one is dropped as `corrupt`."""
        rgb = rgb_of_image(message)
        if rgb is None:
            self.lost()
        else:
            self._delivery.picture(rgb, stamp_ns)

    def lost(self) -> None:
        """Others do not depend on it."""
        self._delivery.lost(CORRUPT)

    def flush(self) -> None:
        """Nothing is ever under way."""


class CompressedImageReader:
    """JPEG and PNG, and what else OpenCV reads."""

    def __init__(self, delivery: Delivery) -> None:
        self._delivery = delivery

    def feed(self, message: Any, stamp_ns: int) -> None:
        """Deliver one; an unreadable one is dropped as `corrupt`.

        The orientation that a JPEG may ask for is left alone: the intrinsics are of its pixels.
        """
        rgb = rgb_of_still(bytes(message.data), upright=False)
        if rgb is None:
            self.lost()
        else:
            self._delivery.picture(rgb, stamp_ns)

    def lost(self) -> None:
        """Others do not depend on it."""
        self._delivery.lost(CORRUPT)

    def flush(self) -> None:
        """Nothing is ever under way."""


def codec_of(message: Any) -> str:
    """`h264` or `h265` for a packet of video; empty for another codec."""
    words = _video_format(message).lower().replace(";", " ").split()
    name = words[0] if words else ""
    if "264" in name:
        return "h264"
    return "h265" if "265" in name or "hevc" in name else ""


def _video_format(message: Any) -> str:
    return str(getattr(message, "format", "") or getattr(message, "encoding", ""))
