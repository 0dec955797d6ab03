# SPDX-License-Identifier: Apache-2.0
"""From a container's packets to pictures: H.264 and H.265 are passed through as well."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import av

from worldsystem_core.wire import START_CODE
from worldsystem_ingest.codec.decoder import SYNTAX, Decoder, DecoderSettings, Lost
from worldsystem_ingest.codec.pictures import RgbConversion
from worldsystem_ingest.config import IngestConfig
from worldsystem_ingest.files.delivery import Delivery
from worldsystem_ingest.sink import CORRUPT

_CODECS = {"h264": "h264", "hevc": "h265"}
_TO_ANNEXB = {"h264": "h264_mp4toannexb", "h265": "hevc_mp4toannexb"}


@runtime_checkable
class PacketReader(Protocol):
    """Takes the packets of one video stream and delivers its pictures."""

    last_was_lost: bool

    def feed(self, packet: av.Packet, stamp_ns: int | None) -> None:
        """Take one packet; `stamp_ns` is when its picture was taken, None when unknown."""

    def flush(self) -> None:
        """Deliver what is still under way."""


def packet_reader(
    stream: av.VideoStream,
    delivery: Delivery,
    config: IngestConfig | None = None,
    *,
    low_delay: bool = False,
) -> PacketReader:
    """The reader for the stream's codec; `low_delay` as in `DecoderSettings`."""
    config = config or IngestConfig()
    codec = _CODECS.get(stream.codec_context.name)
    settings = DecoderSettings(
        codec=codec or "h264",
        low_delay=low_delay,
        show_broken=config.broken_pictures == "show",
        threads=config.decode_threads,
        size=(stream.codec_context.width, stream.codec_context.height),
    )
    if codec:
        return AccessUnitReader(stream, delivery, settings)
    return PictureReader(stream, delivery, settings)


class AccessUnitReader:
    """H.264 and H.265: access units in Annex-B form, each with its picture."""

    def __init__(
        self, stream: av.VideoStream, delivery: Delivery, settings: DecoderSettings
    ) -> None:
        self._delivery = delivery
        delivery.codec = settings.codec
        to_annexb = _TO_ANNEXB[settings.codec]
        self._annexb = av.bitstream.BitStreamFilterContext(to_annexb, stream)
        self._decoder = Decoder(settings)
        self._syntax = SYNTAX[settings.codec]
        self._sets = self._syntax.ParameterSets()
        extradata = stream.codec_context.extradata
        if extradata and extradata.startswith((START_CODE, START_CODE[1:])):
            self._sets.take(extradata)
        self.last_was_lost = False

    def feed(self, packet: av.Packet, stamp_ns: int | None) -> None:
        """Take one packet, normally one access unit."""
        hidden = packet.is_discard  # the filter empties the packet
        try:
            units = [(bytes(unit), unit.is_keyframe) for unit in self._annexb.filter(packet)]
        except av.FFmpegError:
            units = [(b"", False)]
        for data, is_key in units:
            whole = self._with_parameter_sets(data, is_key)
            self._take(whole, is_key, stamp_ns, hidden=hidden)

    def flush(self) -> None:
        """Deliver what is still under way."""
        outcomes = self._decoder.flush()
        if outcomes:
            self.last_was_lost = isinstance(outcomes[-1], Lost)
        self._delivery.settle(outcomes)

    def _take(self, data: bytes, is_key: bool, stamp_ns: int | None, *, hidden: bool) -> None:
        index = self._delivery.coded(data, is_key, stamp_ns, hidden=hidden)
        outcomes = self._decoder.feed(index, data, is_key)
        self.last_was_lost = any(o.index == index for o in outcomes if isinstance(o, Lost))
        self._delivery.settle(outcomes)

    def _with_parameter_sets(self, data: bytes, is_key: bool) -> bytes:
        """A key frame must stand alone: broadcast streams do not repeat the sets at each one."""
        if not is_key:
            return data
        wanted = set(self._sets.kinds)
        kinds = self._syntax.nal_types(data)
        if kinds & wanted:
            self._sets.take(data)
        if wanted <= kinds or not self._sets.complete:
            return data
        whole: bytes = self._sets.annexb() + data
        return whole


class PictureReader:
    """Any other codec: pictures only."""

    def __init__(
        self, stream: av.VideoStream, delivery: Delivery, settings: DecoderSettings
    ) -> None:
        self._delivery = delivery
        self._show_broken = settings.show_broken
        self._context = stream.codec_context
        self._context.thread_count = settings.decoding_threads
        self._context.thread_type = "SLICE" if settings.low_delay else "AUTO"
        self._to_rgb = RgbConversion()
        self._stamps_ns: dict[int, int] = {}
        self.last_was_lost = False

    def feed(self, packet: av.Packet, stamp_ns: int | None) -> None:
        """Take one packet."""
        if packet.pts is not None and stamp_ns is not None:
            self._stamps_ns[packet.pts] = stamp_ns
        self._decode(packet)

    def flush(self) -> None:
        """Deliver what is still under way."""
        self._decode(None)

    def _decode(self, packet: av.Packet | None) -> None:
        try:
            pictures = self._context.decode(packet)
        except EOFError:
            return
        except av.FFmpegError:
            self.last_was_lost = True
            self._delivery.lost(CORRUPT)
            return
        self.last_was_lost = False
        for picture in pictures:
            stamp_ns = self._stamps_ns.pop(picture.pts, None)
            if picture.is_corrupt and not self._show_broken:
                self._delivery.lost(CORRUPT)
            else:
                self._delivery.picture(self._to_rgb(picture), stamp_ns)
        while len(self._stamps_ns) > 64:
            self._stamps_ns.pop(next(iter(self._stamps_ns)))
