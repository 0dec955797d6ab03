# SPDX-License-Identifier: Apache-2.0
"""H.264 and H.265 in the messages of a bag, one access unit each: passed through and decoded."""

from __future__ import annotations

from typing import Any

from worldsystem_core.wire import with_start_code
from worldsystem_ingest.bag.pictures import codec_of
from worldsystem_ingest.codec.decoder import SYNTAX, Decoder, DecoderSettings
from worldsystem_ingest.codec.entry import Entry
from worldsystem_ingest.config import IngestConfig
from worldsystem_ingest.files.delivery import Delivery
from worldsystem_ingest.sink import CORRUPT


class VideoReader:
    """Packets of `foxglove_msgs/CompressedVideo` or `ffmpeg_image_transport_msgs/FFMPEGPacket`."""

    def __init__(self, delivery: Delivery, config: IngestConfig) -> None:
        self._delivery = delivery
        self._config = config
        self._open("h264")

    def feed(self, message: Any, stamp_ns: int) -> None:
        """Take one access unit; a key frame without parameter sets gets those before it."""
        codec = codec_of(message)
        if codec and codec != self._delivery.codec:
            self.flush()
            self._open(codec)
        data = bytes(message.data)
        kinds, wanted = self._syntax.nal_types(data), set(self._sets.kinds)
        if kinds & wanted:
            self._sets.take(data)
        is_key = self._syntax.entry_of(data) is Entry.KEY or bool(kinds & wanted)
        if is_key and not wanted <= kinds and self._sets.complete:
            data = self._sets.annexb() + with_start_code(data)
        index = self._delivery.coded(data, is_key, stamp_ns)
        self._delivery.settle(self._decoder.feed(index, data, is_key))

    def lost(self) -> None:
        """The pictures up to the next key frame may depend on it, and are lost, too."""
        self._delivery.settle(self._decoder.missing())
        self._delivery.lost(CORRUPT)

    def flush(self) -> None:
        """Deliver what is still under way."""
        self._delivery.settle(self._decoder.flush())

    def _open(self, codec: str) -> None:
        config = self._config
        self._delivery.codec = codec
        self._syntax = SYNTAX[codec]
        self._sets = self._syntax.ParameterSets()
        self._decoder = Decoder(
            DecoderSettings(
                codec=codec,
                show_broken=config.broken_pictures == "show",
                threads=config.decode_threads,
            )
        )
