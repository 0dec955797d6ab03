# SPDX-License-Identifier: Apache-2.0
"""Encoded video pushed to an RTSP server such as MediaMTX: copied, never encoded again."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from worldsystem_core.byte_stream import parameter_sets
from worldsystem_core.errors import SourceError
from worldsystem_core.frames import EncodedFrame
from worldsystem_core.shown_url import without_secrets
from worldsystem_ingest.config import IngestConfig
from worldsystem_ingest.passing import PassingSink
from worldsystem_ingest.rtsp_push.gop_queue import GopQueue
from worldsystem_ingest.rtsp_push.rtp import RtpStream, session_description
from worldsystem_ingest.rtsp_push.rtsp_record import RtspRecording
from worldsystem_ingest.sink import NO_PARAMETER_SETS, STOPPED, Sink
from worldsystem_ingest.url.backoff import Backoff, SparseWarnings
from worldsystem_ingest.url.link import LinkError, address_parts

_log = logging.getLogger(__name__)
LINK_SLOW, LINK_DOWN = "link_slow", "link_down"
_FIRST_S, _MOST_S = 2.0, 30.0
_POLL_S = 0.2
_REPORT_EVERY_NS = 10**9
_DAY_NS = 86_400 * 10**9
_JOIN_S = 5.0
_PROVEN_S = 5.0  # beyond `stall_s`: a server that never answers is left by then


@dataclass(frozen=True)
class PushStatus:
    """How a push is now; `frames` and `bytes` went out, `lost` did not, by reason.

    `url` shows no password; `attempts` counts those in vain since the last success, which is a
    connection that held for some seconds.
    """

    url: str
    state: str = "waiting for video"
    since: str = ""
    attempts: int = 0
    connections: int = 0
    frames: int = 0
    bytes: int = 0
    lost: Mapping[str, int] = field(default_factory=dict)
    last_error: str = ""


class RtspPush:
    """Sends one stream to `url` from a thread of its own; it begins at once.

    What is offered waits in a bounded queue, which loses whole groups of pictures while the server
    is away (`link_down`) or the way to it is too slow (`link_slow`). After a failure it waits 2 s,
    doubling up to 30 s until a connection holds, and goes on with the newest key frame. New
    parameter sets, as after a change of resolution, are announced in a new connection. Raises
    `SourceError` for a URL that is not `rtsp://host...`.
    """

    def __init__(self, url: str, config: IngestConfig, backoff: Backoff | None = None) -> None:
        check_push_url(url)
        self._url = url
        self._timeout_s = config.stall_s
        self._backoff = backoff or Backoff(_FIRST_S, _MOST_S)
        most_bytes = round(config.relay_queue_mb * 2**20)
        self._queue = GopQueue(config.relay_queue_frames, most_bytes, LINK_DOWN)
        self._next: EncodedFrame | None = None
        self._is_sending = False
        self._unproven_since_s: float | None = None  # the connection, until it has held
        self._warnings = SparseWarnings(_log)
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._frames = self._bytes = self._connections = 0
        self._state, self._since, self._last_error = "waiting for video", _now(), ""
        self._thread = threading.Thread(target=self._run, name="rtsp-push", daemon=True)
        self._thread.start()

    def offer(self, unit: EncodedFrame) -> None:
        """Queue one access unit; never blocks."""
        self._queue.put(unit)

    def status(self) -> PushStatus:
        """How it is now; safe from any thread."""
        with self._lock:
            return PushStatus(
                url=without_secrets(self._url),
                state=self._state,
                since=self._since,
                attempts=self._backoff.failures,
                connections=self._connections,
                frames=self._frames,
                bytes=self._bytes,
                lost=self._queue.lost(),
                last_error=self._last_error,
            )

    def close(self) -> None:
        """Stop sending and end the thread; what is queued is lost as `stopped`."""
        self._stop.set()
        self._queue.close()
        self._thread.join(_JOIN_S)

    def _run(self) -> None:
        try:
            self._push_until_stop()
        except Exception as error:  # the edge of the thread: say so, and count what comes
            _log.exception("push to %s ended", without_secrets(self._url))
            with self._lock:
                self._last_error = f"internal error: {error}"
            self._queue.close()
        if self._next is not None:
            self._queue.lose(STOPPED)
        self._enter("stopped")

    def _push_until_stop(self) -> None:
        while not self._stop.is_set():
            first, self._next = self._next or self._queue.get(_POLL_S), None
            if first is None:
                continue
            sets = parameter_sets(first.data, first.codec) if first.is_key else ()
            if not sets:
                self._queue.lose(NO_PARAMETER_SETS)
                continue
            try:
                self._push(first, sets)
            except LinkError as error:
                self._failed(error)

    def _push(self, first: EncodedFrame, sets: tuple[bytes, ...]) -> None:
        """One connection, from `first` on, until the parameter sets change or `stop`."""
        self._enter("connecting")
        self._next, self._is_sending = first, False
        sdp = session_description(sets, first.codec)
        with RtspRecording(self._url, sdp, self._timeout_s, self._stop) as recording:
            self._connected()
            self._is_sending = True
            stream, clock = RtpStream(first.codec), _PushClock(first)
            unit: EncodedFrame | None = first
            while not self._stop.is_set():
                if unit is None:
                    recording.hear()
                elif unit is not first and unit.is_key and self._other_sets(unit, first, sets):
                    return
                else:
                    self._send(recording, stream, clock, unit)
                self._notice_that_it_holds()
                unit = self._next = self._queue.get(_POLL_S)

    def _other_sets(self, unit: EncodedFrame, first: EncodedFrame, sets: tuple[bytes, ...]) -> bool:
        new = parameter_sets(unit.data, unit.codec)
        return unit.codec != first.codec or (bool(new) and new != sets)

    def _send(
        self, recording: RtspRecording, stream: RtpStream, clock: _PushClock, unit: EncodedFrame
    ) -> None:
        stamp_ns = clock.stamp_ns(unit)
        report = stream.report(stamp_ns) if clock.report_is_due(stamp_ns) else b""
        recording.send(stream.packets(unit.data, stamp_ns), control=report)
        with self._lock:
            self._frames += 1
            self._bytes += len(unit.data)

    def _connected(self) -> None:
        self._enter("connected")
        self._queue.reason = LINK_SLOW
        self._unproven_since_s = time.monotonic()
        with self._lock:
            self._connections += 1

    def _notice_that_it_holds(self) -> None:
        since_s = self._unproven_since_s
        if since_s is None or time.monotonic() - since_s < self._timeout_s + _PROVEN_S:
            return
        self._unproven_since_s = None
        with self._lock:
            self._backoff.succeeded()
        self._warnings.over(f"push to {without_secrets(self._url)}: connected")

    def _failed(self, error: LinkError) -> None:
        """Wait, then go on with the newest key frame that is there by then."""
        self._queue.reason = LINK_DOWN
        if self._next is not None and self._is_sending:
            self._queue.lose(LINK_DOWN)
        elif self._next is not None:
            self._queue.put_back(self._next)
        self._next = None
        with self._lock:
            wait_s = self._backoff.next_s()
            self._last_error = str(error)
        self._enter("waiting")
        if self._stop.is_set():
            return
        self._warnings.warn(f"push to {without_secrets(self._url)}: {error}", wait_s)
        self._stop.wait(wait_s)
        self._queue.skip_to_newest_key_frame(LINK_DOWN)

    def _enter(self, state: str) -> None:
        with self._lock:
            self._state, self._since = state, _now()


class _PushClock:
    """Capture times for a connection; those of a recording are moved so that it begins now."""

    def __init__(self, first: EncodedFrame) -> None:
        now_ns = time.time_ns()
        is_live = abs(now_ns - first.stamp_ns) < _DAY_NS
        self._offset_ns = 0 if is_live else now_ns - first.stamp_ns
        self._reported_ns: int | None = None

    def stamp_ns(self, unit: EncodedFrame) -> int:
        return max(0, unit.stamp_ns + self._offset_ns)

    def report_is_due(self, stamp_ns: int) -> bool:
        reported_ns = self._reported_ns
        if reported_ns is not None and abs(stamp_ns - reported_ns) < _REPORT_EVERY_NS:
            return False
        self._reported_ns = stamp_ns
        return True


class PushingSink(PassingSink):
    """Passes everything on to another sink, and offers the first stream's video to a push."""

    def __init__(self, sink: Sink, push: RtspPush) -> None:
        super().__init__(sink)
        self._push = push
        self._stream: str | None = None

    def encoded(self, unit: EncodedFrame) -> None:
        """Offer it, if it is of the stream that came first, and pass it on."""
        self._stream = self._stream or unit.stream
        if unit.stream == self._stream:
            self._push.offer(unit)
        self._sink.encoded(unit)


def check_push_url(url: str) -> None:
    """Raise `SourceError` unless `url` is an RTSP server's address."""
    example = "rtsp://host:8554/drone"
    parts = address_parts(url, example)
    if parts.scheme not in ("rtsp", "rtsps") or not parts.hostname or parts.port == 0:
        raise SourceError(f"'{without_secrets(url)}' cannot be pushed to; write it like {example}")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
