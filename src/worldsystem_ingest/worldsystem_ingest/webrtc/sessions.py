# SPDX-License-Identifier: Apache-2.0
"""The browsers that are connected, and the stream that each one's video goes to."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from worldsystem_core.errors import WorldSystemError
from worldsystem_core.frames import EncodedFrame
from worldsystem_ingest.stream.registry import Failed, Lease, VideoStream

if TYPE_CHECKING:  # aiortc is imported when the first browser comes
    from worldsystem_ingest.webrtc.receiver import ReceivedPicture, Receiver, ReceiverSettings

_log = logging.getLogger(__name__)
_REMEMBERED = 64
_CLOSE_TIMEOUT_S = 3.0
_ICE_ROUND_S = 0.05
VP8 = "vp8"
_VIDEO_CONFIG = '{"type": "video_config", "codec": "h264"}'
REPLACED = "another sender took the stream"


class TooManySessions(WorldSystemError):
    """As many browsers are connected, or connecting, as may be."""


@dataclass(eq=False)
class WhipSession:
    """One browser's session; it has the stream from when it is connected until it ends."""

    stream: VideoStream
    id: str = field(default_factory=lambda: secrets.token_urlsafe(18))
    receiver: Receiver | None = None
    lease: Lease | None = None
    codec: str = ""
    pictures: int = 0
    asked_kbps: int | None = None
    ended: str = ""

    def state(self) -> dict[str, object]:
        """What the browser is told when it asks."""
        sends = self.lease is not None and not self.ended
        return {
            "state": "ended" if self.ended else "receiving" if sends else "connecting",
            "reason": self.ended,
            "codec": self.codec,
            "pictures": self.pictures,
        }


class WhipSessions:
    """Opens and ends sessions; everything is for the network thread.

    A session claims its stream once its browser is connected, so that an offer that comes to
    nothing takes the stream from nobody; until it ends the stream is awaited. `failed` gets what
    the sink raised.
    """

    def __init__(self, most: int, failed: Failed) -> None:
        self._most = most
        self._failed = failed
        self._open: dict[str, WhipSession] = {}
        self._past: OrderedDict[str, WhipSession] = OrderedDict()
        self._closing: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._open)

    def find(self, session_id: str) -> WhipSession | None:
        """The session, open or one of the last that ended."""
        return self._open.get(session_id) or self._past.get(session_id)

    async def open(
        self, stream: VideoStream, offer: str, settings: ReceiverSettings
    ) -> tuple[WhipSession, str]:
        """A new session and the answer; raises `TooManySessions`, `BadOffer` or `Untappable`."""
        from worldsystem_ingest.webrtc.receiver import Receiver

        if len(self._open) >= self._most:
            raise TooManySessions(
                f"{len(self._open)} browsers are connected or connecting, which is the most; "
                f"`max_streams` of the server allows more"
            )
        session = WhipSession(stream)
        session.receiver = Receiver(
            settings,
            take=lambda picture: self._guarded(session, lambda: self._take(session, picture)),
            connected=lambda: self._guarded(session, lambda: self._claim(session)),
            ended=lambda reason: self.end(session, reason),
            loss=stream.packet_loss,
        )
        self._open[session.id] = session
        stream.awaited += 1
        try:
            return session, await session.receiver.answer(offer)
        except BaseException:
            self.end(session, "the offer was refused")
            raise

    def end(self, session: WhipSession, reason: str) -> None:
        """End the session, if it has not ended; the browser is told in the background."""
        if self._open.pop(session.id, None) is None:
            return
        session.stream.awaited -= 1
        session.ended = reason
        self._past[session.id] = session
        while len(self._past) > _REMEMBERED:
            self._past.popitem(last=False)
        if session.lease:
            session.lease.release()
            _log.info("%s: WebRTC ended: %s", session.stream.name, reason)
        if session.receiver:
            self._close_aside(session.receiver)
            session.receiver = None

    async def close(self) -> None:
        """End every session, and wait until that is done."""
        for session in list(self._open.values()):
            self.end(session, "the server stops")
        if self._closing:
            await asyncio.wait(self._closing, timeout=_CLOSE_TIMEOUT_S)
            await asyncio.sleep(_ICE_ROUND_S)  # aioice ends its checks at the next round

    def _close_aside(self, receiver: Receiver) -> None:
        closing = asyncio.ensure_future(_closed(receiver))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    def _guarded(self, session: WhipSession, action: Callable[[], None]) -> None:
        if session.ended:
            return
        try:
            action()
        except Exception as error:  # the edge of the thread: the sink failed, `run` raises it
            self._failed(error)

    def _claim(self, session: WhipSession) -> None:
        receiver = session.receiver
        assert receiver is not None

        def say(message: dict[str, object]) -> None:
            """RTCP has words for these two only."""
            if message.get("type") == "request_key_frame":
                receiver.want_key_frame()
            elif message.get("type") == "set_bitrate" and isinstance(message.get("kbps"), int):
                receiver.limit_bitrate(int(str(message["kbps"])))

        session.lease = session.stream.claim(
            lambda: self.end(session, REPLACED), say, peer=session.id
        )
        session.stream.session.numbers.restart()
        session.stream.session.take_control(_VIDEO_CONFIG)

    def _take(self, session: WhipSession, picture: ReceivedPicture) -> None:
        if not (session.lease and session.lease.current):
            return
        session.pictures += 1
        if picture.codec != session.codec:
            session.codec = picture.codec
            self._tell_codec(session)
        sender = session.stream.session
        self._free_bitrate(session, sender.quality.asked_kbps)
        if picture.clock_jumped:
            sender.clock.reset()
        if picture.codec == VP8:
            self._decode_only(session.stream, picture)
        else:
            sender.take_access_unit(
                data=picture.data,
                is_key=picture.is_key,
                sender_ns=picture.sender_ns,
                number=picture.number,
                arrival_ns=picture.arrival_ns,
            )

    def _free_bitrate(self, session: WhipSession, asked_kbps: int | None) -> None:
        """The end of a limit is not said, but a browser keeps to the last one that it was told."""
        was_asked, session.asked_kbps = session.asked_kbps, asked_kbps
        if was_asked is not None and asked_kbps is None and session.receiver:
            session.receiver.limit_bitrate(None)

    def _decode_only(self, stream: VideoStream, picture: ReceivedPicture) -> None:
        """Consumers, recordings and RTSP know H.264 alone."""
        accepted = stream.session.accept(
            size_bytes=len(picture.data),
            is_key=picture.is_key,
            sender_ns=picture.sender_ns,
            number=picture.number,
            arrival_ns=picture.arrival_ns,
        )
        if accepted is None:
            return
        unit = EncodedFrame(
            id=accepted.id,
            stamp_ns=accepted.stamp_ns,
            arrival_ns=picture.arrival_ns,
            data=picture.data,
            is_key=picture.is_key,
            stream=stream.name,
            codec=VP8,
        )
        stream.decoding.put(unit, accepted.after_loss)

    def _tell_codec(self, session: WhipSession) -> None:
        if session.codec == VP8:
            _log.warning(
                "%s: the browser sends VP8, not H.264: its pictures are decoded, and recorded as "
                "JPEG, but the video is neither relayed nor pushed; another browser may have H.264",
                session.stream.name,
            )
        else:
            _log.info("%s: WebRTC video is %s", session.stream.name, session.codec)


async def _closed(receiver: Receiver) -> None:
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(receiver.close(), _CLOSE_TIMEOUT_S)
