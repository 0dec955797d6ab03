# SPDX-License-Identifier: Apache-2.0
"""A client of servers that relay video over WebSocket, ours and those deployed before it."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import ssl
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime
from urllib.parse import urlunsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import (
    ConnectionClosed,
    InvalidHandshake,
    InvalidStatus,
    InvalidURI,
    WebSocketException,
)

from worldsystem_core.errors import SourceError
from worldsystem_core.frames import Camera, Frame
from worldsystem_core.shown_url import without_secrets
from worldsystem_ingest.codec.live_decoding import LiveDecoding
from worldsystem_ingest.config import IngestConfig
from worldsystem_ingest.files.delivery import camera_with_focal
from worldsystem_ingest.passing import PassingSink
from worldsystem_ingest.sink import Sink, Summary
from worldsystem_ingest.stream.counters import CountingSink
from worldsystem_ingest.url.backoff import Backoff, SparseWarnings
from worldsystem_ingest.url.link import address_parts
from worldsystem_ingest.url.relayed import RelayedVideo

_log = logging.getLogger(__name__)
_MIB = 2**20
_DEFAULT_PATH = "/ws/h264_stream"
_SENDERS_PATHS = ("/ws/video", "/ws/phone")
_OPEN_TIMEOUT_S = 5.0
_CLOSE_TIMEOUT_S = 0.5
_JOIN_S = 10.0
_POLL_S = 0.2
_REFUSED_WAIT_S = 10.0
_REJOIN_STALLS = 10  # a server that answers but sends nothing is asked anew after so many stalls
_ERRNO = re.compile(r"\[Errno (\d+)\]")


class WsClient:
    """Video from a WebSocket: Annex-B in messages of any size, or the drone app's packets.

    Which of the two comes is told from the messages. Packets carry numbers and times, so losses are
    known and stamps are the sender's; Annex-B carries neither, and the arrival is the stamp. A
    connection that ends, or is silent for `stall_s` and does not answer a ping, is opened again.
    `run` decodes in the thread that calls it and receives in one of its own, which reads and writes
    in turn: OpenSSL's connections hang, now and then, when two threads use them at once.
    """

    live = True

    def __init__(self, url: str, config: IngestConfig) -> None:
        self._url = _full_url(url)
        self._shown = without_secrets(self._url)
        self._config = config
        self._warnings = SparseWarnings(_log)
        self._state, self._since = "not opened yet", _now()
        self._connections = self._attempts = 0
        self._error = ""
        self._heard_s = 0.0
        self._silent = self._answered = False
        self._video: RelayedVideo | None = None
        self._failure: BaseException | None = None

    def facts(self) -> dict[str, object]:
        """The link's state, and what it carries."""
        video = self._video
        return {
            "url": self._shown,
            "link": self._state,
            "link since": self._since,
            "carries": video.form if video else "",
            "codec": video.codec if video else "",
            "stamps": video.stamps if video else "",
            "connections": self._connections,
            "attempts in vain": self._attempts,
            "bad messages": video.bad_messages if video else 0,
            "last error": self._error,
        }

    def problem(self) -> str:
        """Why nothing comes now; empty while video comes."""
        if self._state == "connected":
            if not self._silent:
                return ""
            silent_s = time.monotonic() - self._heard_s
            return f"{self._shown}: connected, but no video for {silent_s:.0f} s"
        return f"{self._shown}: {self._error}" if self._error else ""

    def run(self, sink: Sink, stop: threading.Event) -> Summary:
        """Deliver until `stop`; raises `SourceError` after `connect_attempts` vain attempts."""
        config = self._config
        counting = CountingSink(_WithFocal(sink, config.focal_px) if config.focal_px else sink)
        video = RelayedVideo(counting, lambda unit, gap: decoding.put(unit, gap), config)
        decoding = LiveDecoding(counting, config, lambda: video.camera, lambda reason: None)
        self._video = video
        receiver = threading.Thread(
            target=self._receive, args=(video, stop), name="ingest-ws-client", daemon=True
        )
        receiver.start()
        try:
            decoding.run(stop)
        finally:
            stop.set()
            receiver.join(_JOIN_S)
            decoding.close()
            self._enter("ended")
        if self._failure:
            raise self._failure
        return Summary(frames=counting.decoded_frames)

    def _receive(self, video: RelayedVideo, stop: threading.Event) -> None:
        """The receiving thread: one connection after the other."""
        try:
            backoff = Backoff(self._config.backoff_first_s, self._config.backoff_max_s)
            while not stop.is_set():
                before, self._answered = video.received, False
                least_wait_s = 0.0
                try:
                    self._enter("connecting")
                    asyncio.run(self._connection(video, stop))
                    self._error = "the server closed the connection"
                except (OSError, WebSocketException, TimeoutError) as error:
                    self._error = _explained(error, self._config)
                    least_wait_s = _REFUSED_WAIT_S if _is_refusal(error) else 0.0
                if stop.is_set():
                    return
                if video.received > before or self._answered:
                    backoff.succeeded()
                self._wait(backoff, least_wait_s, stop)
        except Exception as error:  # the edge of the thread: `run` raises it
            self._failure = error
        finally:
            stop.set()

    def _wait(self, backoff: Backoff, least_s: float, stop: threading.Event) -> None:
        wait_s = max(backoff.next_s(), least_s)
        self._attempts = backoff.failures
        self._enter("waiting")
        most = self._config.connect_attempts
        if most and backoff.failures >= most:
            raise SourceError(
                f"{self._shown}: {self._error}; given up after {backoff.failures} attempts. Is the "
                f"server running, and the address right?"
            )
        self._warnings.warn(f"{self._shown}: {self._error}", wait_s)
        stop.wait(wait_s)

    async def _connection(self, video: RelayedVideo, stop: threading.Event) -> None:
        async with connect(
            self._url,
            open_timeout=_OPEN_TIMEOUT_S,
            close_timeout=_CLOSE_TIMEOUT_S,
            ping_interval=None,  # silence is looked into below
            max_size=int(self._config.max_message_mb * _MIB),
            compression=None,
            proxy=None,
        ) as socket:
            self._connections += 1
            self._heard_s = time.monotonic()
            self._enter("connected")
            video.connected()
            try:
                await self._take_messages(socket, video, stop)
            except ConnectionClosed as error:
                if error.rcvd and error.rcvd.code not in (1000, 1001):
                    raise
            finally:
                video.disconnected()

    async def _take_messages(
        self, socket: ClientConnection, video: RelayedVideo, stop: threading.Event
    ) -> None:
        stall_s = self._config.stall_s
        pong: asyncio.Future[float] | None = None
        while not stop.is_set():
            try:
                message = await asyncio.wait_for(socket.recv(), min(_POLL_S, stall_s / 4))
            except TimeoutError:
                silent_s = time.monotonic() - self._heard_s
                self._silent = silent_s > stall_s
                if pong is None and silent_s > stall_s / 2:
                    pong = asyncio.ensure_future(await socket.ping())
                self._answered = pong is not None and pong.done()
                patience_s = stall_s * (_REJOIN_STALLS if self._answered else 1)
                if silent_s > patience_s:
                    raise
                continue
            self._heard_s, self._silent, pong = time.monotonic(), False, None
            self._attempts = 0
            self._warnings.over(f"{self._shown}: video comes")
            video.take(message)

    def _enter(self, state: str) -> None:
        self._state, self._since = state, _now()


class _WithFocal(PassingSink):
    """Gives frames whose camera is not known the one of the settings."""

    def __init__(self, sink: Sink, focal_px: float) -> None:
        super().__init__(sink)
        self._camera_of = camera_with_focal(focal_px)
        self._camera: Camera | None = None

    def frame(self, frame: Frame) -> None:
        """Complete and pass on."""
        if frame.camera is None:
            frame = replace(frame, camera=self._camera_of(frame.width, frame.height))
            if frame.camera and frame.camera != self._camera:
                self._sink.camera(frame.camera, frame.stream)
            self._camera = frame.camera
        self._sink.frame(frame)


def _full_url(url: str) -> str:
    """`url` with the relay's path when it has none; raises `SourceError` when it is no address."""
    shown, example = without_secrets(url), f"ws://host:5001{_DEFAULT_PATH}"
    parts = address_parts(url, example)
    if not parts.hostname or parts.port == 0:
        raise SourceError(f"{shown} is no address; write it like {example}")
    path = parts.path if parts.path not in ("", "/") else _DEFAULT_PATH
    if path.rstrip("/") in _SENDERS_PATHS:
        raise SourceError(
            f"{shown} is where senders connect to; video is received from {_DEFAULT_PATH}, and "
            f"server://host:port listens for senders here"
        )
    return urlunsplit(parts._replace(path=path, fragment=""))


def _is_refusal(error: BaseException) -> bool:
    return isinstance(error, InvalidStatus) and error.response.status_code in (401, 403)


def _explained(error: BaseException, config: IngestConfig) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"its certificate is not trusted ({error.verify_message}); use one of an authority "
            f"that this machine knows, or name the authority's file in SSL_CERT_FILE"
        )
    if isinstance(error, ssl.SSLError):
        return f"no TLS connection ({error.reason or error}); does it speak plain ws:?"
    if isinstance(error, InvalidStatus):
        status = error.response.status_code
        hint = {401: "; give ?token=…", 403: "; is the token right?", 404: "; is the path right?"}
        return f"the server refused with status {status}{hint.get(status, '')}"
    if isinstance(error, InvalidURI):  # which quotes the whole of it
        return f"it is no address ({error.msg})"
    if isinstance(error, InvalidHandshake):
        return f"it answers, but not as a WebSocket ({error})"
    if isinstance(error, TimeoutError):
        return f"it was silent for {config.stall_s:g} s, or did not answer at all"
    if isinstance(error, ConnectionClosed):
        return f"the connection broke ({error})"
    numbers = _ERRNO.findall(str(error))  # of every address that the name has
    reasons = dict.fromkeys(os.strerror(int(number)) for number in numbers)
    return ", ".join(reasons) or str(getattr(error, "strerror", "") or error)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
