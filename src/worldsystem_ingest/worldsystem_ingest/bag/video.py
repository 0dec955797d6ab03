# SPDX-License-Identifier: Apache-2.0
"""H.264 and H.265 in the messages of a bag, one access unit each: passed through and decoded."""

from __future__ import annotations

from typing import Any

from worldsystem_core.wire import with_start_code
from worldsystem_ingest import h264
from worldsystem_ingest.decoder import Decoder
from worldsystem_ingest.delivery import Delivery


class VideoReader:
    """Packets of `foxglove_msgs/CompressedVideo` or `ffmpeg_image_transport_msgs/FFMPEGPacket`."""

    def __init__(self, delivery: Delivery) -> None:
        self._delivery = delivery
        self._decoder = Decoder()
        self._sets = h264.ParameterSets()

    def feed(self, message: Any, stamp_ns: int) -> None:
        """Take one access unit."""
        data = bytes(message.data)
        kinds = h264.nal_types(data)
        if kinds & {h264.SPS, h264.PPS}:
            self._sets.take(data)
        is_key = bool(kinds & {h264.IDR_SLICE, h264.SPS})
        if is_key and not {h264.SPS, h264.PPS} <= kinds and self._sets.complete:
            data = self._sets.annexb() + with_start_code(data)
        index = self._delivery.coded(data, is_key, stamp_ns)
        self._delivery.settle(self._decoder.feed(index, data, is_key))

    def flush(self) -> None:
        """Deliver what is still under way."""
        self._delivery.settle(self._decoder.flush())
