# SPDX-License-Identifier: Apache-2.0
"""H.264 access units in, pictures out, each under the number of its access unit."""

from __future__ import annotations

from dataclasses import dataclass

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from jaxtyping import UInt8

from worldsystem_ingest.reordering import has_b_slice, without_reordering
from worldsystem_ingest.sink import CORRUPT, NO_KEY_FRAME

_MAX_REORDER = 32  # twice the most that H.264 allows (A.3.1: 16 frames)


@dataclass(frozen=True, eq=False)
class Decoded:
    """The picture of access unit `index`."""

    index: int
    rgb: UInt8[np.ndarray, "h w 3"]


@dataclass(frozen=True)
class Lost:
    """Access unit `index` gives no picture."""

    index: int
    reason: str


Outcome = Decoded | Lost


class H264Decoder:
    """Decodes one stream; every unit fed comes out exactly once, as `Decoded` or as `Lost`.

    Without reordering, the picture comes out of the call that its unit went into. It begins at a
    key frame and, after `await_key_frame` or a corrupt unit, goes on at the next one: a picture
    that refers to a missing one would look right and be wrong.

    With `low_delay`, reordering that the stream announces counts only once a B slice was seen;
    that then costs the rest of one group of pictures.
    """

    def __init__(self, *, low_delay: bool = False) -> None:
        self._ignore_reordering = low_delay
        self._context = _open_context()
        self._rgb = VideoReformatter()
        self._pending: list[int] = []
        self._waiting_for: str | None = NO_KEY_FRAME

    def await_key_frame(self, reason: str = NO_KEY_FRAME) -> list[Outcome]:
        """Lose units for `reason` until a key frame comes; gives what was still under way."""
        was_waiting, self._waiting_for = self._waiting_for, reason
        return [] if was_waiting else self._restart()

    def feed(self, index: int, data: bytes, is_key: bool) -> list[Outcome]:
        """Decode one access unit in Annex-B form; key frames carry their parameter sets."""
        if self._waiting_for and not is_key:
            return [Lost(index, self._waiting_for)]
        if not data:  # would mean the end of the stream to the decoder
            return [*self.await_key_frame(), Lost(index, CORRUPT)]
        if self._ignore_reordering and has_b_slice(data):
            self._ignore_reordering = False
            return [*self.await_key_frame(), Lost(index, NO_KEY_FRAME)]
        self._waiting_for = None
        return self._decode(index, self._without_reordering(data, is_key))

    def flush(self) -> list[Outcome]:
        """Give what is still under way; the stream ends here."""
        self._waiting_for = NO_KEY_FRAME
        return self._restart()

    def _without_reordering(self, data: bytes, is_key: bool) -> bytes:
        return without_reordering(data) if is_key and self._ignore_reordering else data

    def _decode(self, index: int, data: bytes) -> list[Outcome]:
        packet = av.Packet(data)
        packet.pts = index
        self._pending.append(index)
        try:
            outcomes = self._outcomes(self._context.decode(packet))
        except av.FFmpegError:
            self._pending.remove(index)
            self._waiting_for = NO_KEY_FRAME
            return [*self._restart(), Lost(index, CORRUPT)]
        return outcomes + self._overdue()

    def _restart(self) -> list[Outcome]:
        try:
            outcomes = self._outcomes(self._context.decode(None))
        except (av.FFmpegError, EOFError):
            outcomes = []
        outcomes += [Lost(index, CORRUPT) for index in self._pending]
        self._pending.clear()
        self._context = _open_context()
        return outcomes

    def _outcomes(self, pictures: list[av.VideoFrame]) -> list[Outcome]:
        outcomes: list[Outcome] = []
        for picture in pictures:
            if picture.pts not in self._pending:
                continue
            self._pending.remove(picture.pts)
            if picture.is_corrupt:
                outcomes.append(Lost(picture.pts, CORRUPT))
            else:
                outcomes.append(Decoded(picture.pts, rgb_of(picture, self._rgb)))
        return outcomes

    def _overdue(self) -> list[Outcome]:
        """Units that the decoder took in silence and will give no picture for."""
        count = max(0, len(self._pending) - _MAX_REORDER)
        overdue, self._pending = self._pending[:count], self._pending[count:]
        return [Lost(index, CORRUPT) for index in overdue]


def rgb_of(picture: av.VideoFrame, reformatter: VideoReformatter) -> UInt8[np.ndarray, "h w 3"]:
    """The picture as RGB; `reformatter` keeps the conversion's tables from call to call."""
    rgb: UInt8[np.ndarray, "h w 3"] = reformatter.reformat(picture, format="rgb24").to_ndarray()
    return rgb


def _open_context() -> av.VideoCodecContext:
    context = av.CodecContext.create("h264", "r")
    context.thread_type = "SLICE"  # threads over frames would hold pictures back
    context.thread_count = 1
    context.options = {"err_detect": "explode"}
    context.flags |= av.codec.context.Flags.low_delay
    return context
