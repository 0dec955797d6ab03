# SPDX-License-Identifier: Apache-2.0
"""One connection to a live stream: opened, read until it ends or breaks, closed."""

from __future__ import annotations

import contextlib
import errno
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import av

from worldsystem_core.errors import SourceError
from worldsystem_ingest.config import IngestConfig
from worldsystem_ingest.files.delivery import Delivery
from worldsystem_ingest.files.packets import PacketReader, packet_reader
from worldsystem_ingest.files.video_file import pace_of, rate_of
from worldsystem_ingest.url.interruption import interruptible
from worldsystem_ingest.url.link import RESUMING, Link, LinkError, link_error
from worldsystem_ingest.url.link_clock import LinkClock, WallLag
from worldsystem_ingest.url.srt import SrtInput, needs_program

OPEN_S = 5.0
_LISTEN_S = 30.0  # the port is opened anew so often, in case someone holds it without sending
_UNDECODABLE_S = 10.0
_END_TOLERANCE_S = 1.0
_SEGMENTS_S = 30.0  # HLS comes in whole segments, mostly of 2 to 10 s
_NEWEST_SEGMENT = {"live_start_index": "-1"}
_RECENT_PACKETS = 4096  # more than a segment's


@dataclass
class Download:
    """What a connection leaves to the next: how far a stream of known length was read, for one.

    `was_endless`: what the last connection read had no known length. `recent`: the packets of a
    live playlist that were read last, because its newest segment comes again. `lag`: how far the
    sender's clock puts stamps back.
    """

    size: int = 0
    begin_ns: int = 0
    packets: int = 0
    reader: PacketReader | None = None
    is_hls: bool = False
    was_endless: bool = False
    lag: WallLag = field(default_factory=WallLag)
    recent: deque[tuple[int | None, int]] = field(
        default_factory=lambda: deque(maxlen=_RECENT_PACKETS)
    )

    def settle(self) -> None:
        """Nothing more will come: deliver or drop what the reader still holds."""
        if self.reader:
            self.reader.flush()
        self.reader = None


class Connection:
    """Reads one connection into `delivery`; `stamps_from` tells whose clock stamps pictures."""

    def __init__(
        self, link: Link, config: IngestConfig, delivery: Delivery, stop: threading.Event
    ) -> None:
        self._link = link
        self._config = config
        self._delivery = delivery
        self._stop = stop
        self._patience_s = config.stall_s
        self._packets = 0
        self._last_s = 0.0
        self.stamps_from = ""

    def play(self, opened: Callable[[str], None], download: Download) -> bool:
        """Deliver until the regular end (True), or until `stop` (False).

        `opened(codec)` is called when the connection stands. Raises `LinkError` when it cannot be
        opened, stalls or breaks; `SourceError` when trying again cannot help.
        """
        with interruptible(self._stop.is_set), self._container(download) as container:
            stream = self._video_of(container)
            opened(stream.codec_context.name)
            download.is_hls = container.format.name == "hls"
            if download.was_endless and download.is_hls and _promised_s(container):
                return True  # the live stream has ended, and is now offered as a recording
            download.was_endless = not _has_length(container)
            self._delivery.rate_hz = rate_of(stream, self._config.fps)
            reader, skip = self._reader(container, stream, download)
            try:
                self._feed(container, stream, reader, download, skip=skip)
            except OSError as error:
                if not self._is_end_of_body(error, container):
                    raise
            finally:
                download.packets = max(self._packets, download.packets)
                if download.reader is None:
                    reader.flush()
            if self._stop.is_set():
                return False
            self._check_end(container, stream)
            return True

    @contextlib.contextmanager
    def _container(self, download: Download) -> Iterator[av.container.InputContainer]:
        """The opened link; whatever FFmpeg raises meanwhile becomes a `LinkError`."""
        link, began_s = self._link, time.monotonic()
        open_s = _LISTEN_S if link.listens else OPEN_S
        if link.is_playlist or download.is_hls:
            self._patience_s = max(self._config.stall_s, _SEGMENTS_S)
        self._heard_s = began_s
        try:
            with contextlib.ExitStack() as open_things:
                source: object = link.url
                if needs_program(link):
                    source = open_things.enter_context(SrtInput(link, self._stop, self._config))
                container = av.open(
                    source,
                    format=None if source is link.url else "mpegts",
                    options=link.options | _going_on(download),
                    timeout=(open_s, self._patience_s),
                    metadata_errors="replace",
                )
                self._heard_s = time.monotonic()
                yield open_things.enter_context(container)
        except av.ProtocolNotFoundError as error:
            raise SourceError(
                f"{link.shown}: this build of FFmpeg has no '{link.protocol}:'; docs/sources.md "
                f"tells what it has"
            ) from error
        except (av.FFmpegError, OSError) as error:
            raise link_error(error, link, time.monotonic() - self._heard_s) from error

    def _video_of(self, container: av.container.InputContainer) -> av.VideoStream:
        if not container.streams.video:
            raise LinkError("it holds no video stream, only sound or data")
        if container.streams.video[0].codec_context is None:
            raise LinkError("its video is coded in a way that this build of FFmpeg cannot decode")
        return container.streams.video[0]

    def _reader(
        self,
        container: av.container.InputContainer,
        stream: av.VideoStream,
        download: Download,
    ) -> tuple[PacketReader, int]:
        """A reader and how many packets it knows; a download's reader outlives its connection.

        Only what has a length is paced: live pictures come when they come.
        """
        size = _size_of(container)
        if size and size == download.size and download.reader:
            return download.reader, download.packets
        download.settle()
        is_live = not _has_length(container)  # of a recording no picture is lost for low delay
        reader = packet_reader(stream, self._delivery, self._config, low_delay=is_live)
        self._delivery.pace = None if is_live else pace_of(self._stop)
        download.size, download.packets, download.begin_ns = size, 0, time.time_ns()
        download.reader = reader if size else None
        return reader, 0

    def _feed(
        self,
        container: av.container.InputContainer,
        stream: av.VideoStream,
        reader: PacketReader,
        download: Download,
        *,
        skip: int,
    ) -> None:
        clock = LinkClock(self._config.clock_window_s, container.format.name, download.lag)
        is_live = not _has_length(container)
        undecodable_s = max(_UNDECODABLE_S, self._patience_s)
        seen = frozenset(download.recent)
        picture_s, frames = self._heard_s, self._delivery.frames
        for packet in self._video_packets(container, stream):
            self._packets += 1
            if self._packets <= skip or (packet.dts, packet.size) in seen:
                continue
            if is_live and download.is_hls:
                download.recent.append((packet.dts, packet.size))
            self._last_s = max(self._last_s, _since_start_s(packet, stream))
            if is_live:
                stamp_ns = clock.stamp_ns(packet, time.time_ns())
            else:
                stamp_ns = download.begin_ns + round(_since_start_s(packet, stream) * 1e9)
            reader.feed(packet, stamp_ns)
            self.stamps_from = clock.source if is_live else "recording"
            if self._delivery.frames != frames:
                picture_s, frames = self._heard_s, self._delivery.frames
            elif self._heard_s - picture_s > undecodable_s:
                raise LinkError(f"data comes, but no picture of it for {undecodable_s:.0f} s")

    def _video_packets(
        self, container: av.container.InputContainer, stream: av.VideoStream
    ) -> Iterator[av.Packet]:
        """Every video packet until the end or `stop`.

        A download's are one behind, because the last one before a break may be cut off. It comes
        whole with the next connection.
        """
        held: av.Packet | None = None
        holds_back = _size_of(container) > 0
        for packet in container.demux():
            if self._stop.is_set():
                return
            if packet.size == 0:
                continue
            silent_s = time.monotonic() - self._heard_s
            is_video = packet.stream is stream
            if is_video:
                out, held = (held, packet) if holds_back else (packet, None)
                if out is not None:
                    yield out
            if silent_s > self._patience_s:
                # at a time-out FFmpeg first gives out the packet it was still parsing
                what = "data" if is_video else "video, only sound,"
                raise LinkError(f"no {what} from {self._link.place} for {silent_s:.1f} s")
            if is_video:
                self._heard_s = time.monotonic()
        if holds_back and held is not None:
            yield held

    def _is_end_of_body(self, error: OSError, container: av.container.InputContainer) -> bool:
        """FFmpeg 8 calls the end of a body without Content-Length an input/output error."""
        is_http = self._link.protocol in ("http", "https")
        return is_http and error.errno == errno.EIO and not _size_of(container)

    def _check_end(self, container: av.container.InputContainer, stream: av.VideoStream) -> None:
        """Raise `LinkError` unless something of known length is complete.

        FFmpeg itself notices a body shorter than its Content-Length; one that ends with its
        connection must be compared with what the container promised.
        """
        if not _has_length(container):
            raise LinkError("the stream ended")
        if stream.frames > self._packets:
            raise LinkError(f"ended after {self._packets} of {stream.frames} pictures")
        promised_s = _promised_s(container)
        if self._last_s and promised_s > self._last_s + _END_TOLERANCE_S:
            raise LinkError(f"ended after {self._last_s:.1f} s of {promised_s:.1f} s")


def _going_on(download: Download) -> dict[str, str]:
    """FFmpeg's options for a connection after others."""
    if download.is_hls and download.was_endless:
        return _NEWEST_SEGMENT
    return RESUMING if download.size else {}


def _size_of(container: av.container.InputContainer) -> int:
    """The bytes of a download; 0 for what is endless, also when its playlist has a size."""
    if container.format.name == "hls" and not _promised_s(container):
        return 0
    return max(0, container.size or 0)


def _has_length(container: av.container.InputContainer) -> bool:
    return _size_of(container) > 0 or _promised_s(container) > 0.0


def _promised_s(container: av.container.InputContainer) -> float:
    return max(0.0, float((container.duration or 0) / av.time_base))


def _since_start_s(packet: av.Packet, stream: av.VideoStream) -> float:
    if packet.pts is None:
        return 0.0
    return float((packet.pts - (stream.start_time or 0)) * packet.time_base)
