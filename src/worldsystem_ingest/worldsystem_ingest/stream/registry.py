# SPDX-License-Identifier: Apache-2.0
"""The streams of video that the server carries, and who sends each of them now."""

from __future__ import annotations

import functools
import itertools
import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from worldsystem_core.errors import ProtocolError
from worldsystem_core.frames import EncodedFrame
from worldsystem_ingest.codec.live_decoding import LiveDecoding
from worldsystem_ingest.config import IngestConfig
from worldsystem_ingest.sender.feedback import Say
from worldsystem_ingest.sender.session import SenderSession
from worldsystem_ingest.sink import Sink
from worldsystem_ingest.stream.counters import CountingSink
from worldsystem_ingest.stream.outlet import Framing
from worldsystem_ingest.stream.relay import Relay, RelayLimits
from worldsystem_ingest.stream.status import PacketLoss, StreamStatus

_log = logging.getLogger(__name__)
_MIB = 2**20
_JOIN_S = 10.0
_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")

Failed = Callable[[BaseException], None]
CallSoon = Callable[[Callable[[], None]], None]


@dataclass(frozen=True)
class Surroundings:
    """What all streams share.

    `failed` gets what the sink raised in a thread that decodes. `call_soon` runs something in the
    network thread, from any thread, unless that has ended.
    """

    sink: Sink
    config: IngestConfig
    failed: Failed
    call_soon: CallSoon


class BadStreamName(ProtocolError):
    """A stream's name is not one that topics can be made of."""


class TooManyStreams(ProtocolError):
    """The server carries as many streams as it may."""


def valid_name(name: str) -> bool:
    """Whether `name` may name a stream: 1 to 32 of a-z, 0-9 and _, a letter first."""
    return _NAME.fullmatch(name) is not None


class Lease:
    """One sender's right to a stream, until it is released or the next sender claims the stream."""

    def __init__(self, stream: VideoStream, on_replaced: Callable[[], None], say: Say) -> None:
        self._stream = stream
        self.on_replaced = on_replaced
        self.say = say

    @property
    def current(self) -> bool:
        """Whether this sender is still the one of its stream."""
        return self._stream.lease is self

    def release(self) -> None:
        """The sender is gone; nothing happens when another one has the stream."""
        self._stream.release(self)


class VideoStream:
    """One stream: its sender's session, its relay, and a thread that decodes it.

    Everything is for the network thread, but `status`, which is safe from any. Ids go on from one
    sender to the next.
    """

    def __init__(self, name: str, relay: Relay, around: Surroundings) -> None:
        config = around.config
        self.name = name
        self.sink = CountingSink(around.sink)
        self.relay = relay
        self.framing = Framing()
        self.session = SenderSession(self.sink, self.deliver, name, config, self.say)
        self.decoding = LiveDecoding(
            self.sink, config, lambda: self.session.camera, self._key_frame_needed
        )
        self.lease: Lease | None = None
        self.phones = 0
        self.awaited = 0  # browsers that are connecting, or connected
        self.packet_loss = PacketLoss()  # of their RTP
        self.bad_messages = 0
        self._around = around
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def idle(self) -> bool:
        """Whether nobody is here or coming, and nothing ever came that would be forgotten."""
        taken = self.lease or self.phones or self.awaited or self.relay.consumers
        return self.sink.untouched and not taken

    def claim(
        self, on_replaced: Callable[[], None], say: Say = lambda message: None, *, peer: str = ""
    ) -> Lease:
        """A sender begins; the one before is told by its `on_replaced`.

        `peer` is an address by which it is known when it comes back. `say` sends a message to the
        sender; it must not block, and may drop the message.
        """
        replaced, self.lease = self.lease, Lease(self, on_replaced, say)
        if replaced:
            _log.warning("%s: a new sender replaces the one before", self.name)
            replaced.on_replaced()
        if not self._thread:
            self._thread = threading.Thread(
                target=self._decode, name=f"ingest-decode-{self.name}", daemon=True
            )
            self._thread.start()
        self.session.connected(peer)
        return self.lease

    def release(self, lease: Lease) -> None:
        """As `Lease.release`."""
        if self.lease is lease:
            self.lease = None
            self.session.disconnected()

    def say(self, message: dict[str, object]) -> None:
        """Send a message to the sender that is connected now, if there is one."""
        if self.lease:
            self.lease.say(message)

    def deliver(self, unit: EncodedFrame, after_loss: bool) -> None:
        """Hand one access unit to the consumers and to the decoder."""
        self.relay.publish(unit)
        self.decoding.put(unit, after_loss)

    def pass_on(self, unit: EncodedFrame) -> None:
        """Hand the consumers an access unit that another source decodes."""
        self.session.bandwidth.add(len(unit.data))
        self.session.last_picture_s = time.monotonic()
        self.relay.publish(unit)

    def close(self) -> None:
        """End the decoding and settle every picture; call when nothing comes any more."""
        self._stop.set()
        self.decoding.take_no_more()  # its thread would sleep on, and who closes may be the network
        if self._thread:
            self._thread.join(_JOIN_S)
        self.decoding.close()

    def status(self) -> StreamStatus:
        """The account now."""
        session, relay, sink = self.session, self.relay, self.sink
        last_s = session.last_picture_s
        return StreamStatus(
            senders=int(self.lease is not None),
            phones=self.phones,
            consumer_queues={c.number: len(c) for c in relay.consumers},
            last_picture_age_s=None if last_s is None else time.monotonic() - last_s,
            bandwidth_mbps=session.bandwidth.now_mbps(),
            bandwidth_average_mbps=session.bandwidth.average_mbps(),
            low_bandwidth=session.bandwidth.low,
            link=session.quality,
            received_bytes=session.bandwidth.total_bytes,
            encoded_frames=sink.encoded_frames,
            decoded_frames=sink.decoded_frames,
            drops=sink.drops(),
            relayed_frames=relay.sent_frames,
            relayed_bytes=relay.sent_bytes,
            relay_lost_frames=relay.lost_frames,
            relay_lost_gops=relay.lost_gops,
            decode_queue=len(self.decoding),
            late=session.numbers.late,
            duplicates=session.numbers.duplicates,
            restarts=session.numbers.restarts,
            packets_lost=self.packet_loss.lost,
            packets_late=self.packet_loss.late,
            bad_messages=self.bad_messages,
            implausible_times=session.clock.implausible,
            telemetry_samples=sink.samples(),
        )

    def _key_frame_needed(self, reason: str) -> None:
        self._around.call_soon(functools.partial(self.session.key_frame_needed, reason))

    def _decode(self) -> None:
        try:
            self.decoding.run(self._stop)
        except Exception as error:  # the edge of the thread: the server's `run` raises it
            self._around.failed(error)


class StreamRegistry:
    """All streams by name; made when first asked for, and kept once they carried anything.

    The configured stream is always there, so that others cannot take its place.
    """

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self._lock = threading.Lock()
        self._config = config = around.config
        self._consumer_numbers = itertools.count()
        self._streams: dict[str, VideoStream] = {}
        self.stream(config.stream)

    def __iter__(self) -> Iterator[VideoStream]:
        return iter(list(self._streams.values()))

    def stream(self, name: str) -> VideoStream:
        """The stream `name`; raises `BadStreamName`, or `TooManyStreams` when it would be new.

        Safe from any thread.
        """
        with self._lock:
            return self._found_or_made(name)

    def _found_or_made(self, name: str) -> VideoStream:
        stream = self._streams.get(name)
        if stream:
            return stream
        if name != self._config.stream and not valid_name(name):
            raise BadStreamName(
                f"{name!r:.50} cannot name a stream; use 1 to 32 of a-z, 0-9 and _, a letter first"
            )
        self._forget_idle()
        if len(self._streams) >= self._config.max_streams:
            raise TooManyStreams(
                f"there are {len(self._streams)} streams, which is the most; "
                f"`max_streams` of the server allows more"
            )
        stream = VideoStream(name, self._relay(), self._around)
        self._streams[name] = stream
        return stream

    def tick(self) -> None:
        """Let every session look at its link; call once a second."""
        for stream in self:
            stream.session.tick()

    def status(self) -> dict[str, StreamStatus]:
        """The account of each stream now; safe from any thread."""
        return {stream.name: stream.status() for stream in self}

    def close(self) -> None:
        """End every stream; call when the network thread has ended."""
        for stream in self:
            stream.close()

    def _relay(self) -> Relay:
        config = self._config
        limits = RelayLimits(config.relay_queue_frames, int(config.relay_queue_mb * _MIB))
        return Relay(limits, self._consumer_numbers)

    def _forget_idle(self) -> None:
        for stream in self:
            if stream.idle and stream.name != self._config.stream:
                del self._streams[stream.name]
                stream.close()
