# SPDX-License-Identifier: Apache-2.0
"""Access units in, pictures out, each under the number of its access unit."""

from __future__ import annotations

import contextlib
import os
from collections import deque
from dataclasses import dataclass
from types import ModuleType

import av

from worldsystem_ingest.codec import h264, h265, vp8
from worldsystem_ingest.codec.entry import Entry
from worldsystem_ingest.codec.pictures import RgbConversion
from worldsystem_ingest.codec.reordering import has_b_slice, without_reordering
from worldsystem_ingest.codec.under_way import Decoded, Lost, Outcome, UnderWay
from worldsystem_ingest.sink import CORRUPT, NO_KEY_FRAME, NO_PARAMETER_SETS

__all__ = ["Decoded", "Decoder", "DecoderSettings", "Lost", "Outcome"]

_PATIENCE = 90  # units without a better entry until one of intra slices will do; 3 s at 30 fps
_MOST_THREADS = 8
SYNTAX: dict[str, ModuleType] = {"h264": h264, "h265": h265, "vp8": vp8}
_FFMPEG_NAMES = {"h264": "h264", "h265": "hevc", "vp8": "vp8"}


@dataclass(frozen=True, kw_only=True)
class DecoderSettings:
    """What is decoded (`codec` is `h264`, `h265` or `vp8`), and how.

    With `low_delay` no thread holds pictures back, and reordering that an H.264 stream announces
    counts only once a B slice was seen; that then costs the rest of one group of pictures. With
    `show_broken`, pictures that cannot be decoded whole come out as well. `threads` 0 means as
    many as pay. `size` is the width and height that a container tells: some cameras pad pictures to
    whole macroblocks, and only there is it said what to cut off.
    """

    codec: str = "h264"
    low_delay: bool = False
    show_broken: bool = False
    threads: int = 1
    size: tuple[int, int] | None = None

    @property
    def decoding_threads(self) -> int:
        """How many threads decode.

        Without delay, threads can share the slices of one picture only. FFmpeg then overlooks most
        damage (014: 95 of 100 damaged pictures instead of 29), so that is not done unless asked
        for, or damage is shown anyway.
        """
        as_many = min(_MOST_THREADS, 1 + (os.cpu_count() or 1))
        return self.threads or (1 if self.low_delay and not self.show_broken else as_many)


class Decoder:
    """Decodes one stream; every unit fed comes out exactly once, as `Decoded` or as `Lost`.

    With `low_delay` and without reordering, the picture comes out of the call that its unit went
    into. Decoding begins at a key frame or a recovery point, or at intra slices when neither comes
    for long. After missing or corrupt units it goes on at the next such one, as a picture that
    refers to a missing one would look right and be wrong; or, with `show_broken`, at once.
    """

    def __init__(self, settings: DecoderSettings | None = None) -> None:
        self._settings = settings = settings or DecoderSettings()
        self._syntax = SYNTAX[settings.codec]
        self._ignore_reordering = settings.low_delay and settings.codec == "h264"
        self._sets = self._syntax.ParameterSets()
        self._sets_in_use = b""
        self._waiting_for: str | None = NO_KEY_FRAME
        self._waited = 0
        self._skips_leading = False
        self._fresh = True
        self._reorders = False
        self._threads = settings.decoding_threads if settings.low_delay else 1
        self._context = self._open_context()
        self._under_way = UnderWay(
            RgbConversion(),
            threads=settings.decoding_threads,
            in_order=not settings.low_delay,
            show_broken=settings.show_broken,
        )

    @property
    def reorders(self) -> bool:
        """Whether pictures may come out in another order than that of their units."""
        return self._settings.codec != "vp8" and not self._ignore_reordering

    def missing(self, reason: str = NO_KEY_FRAME) -> list[Outcome]:
        """Units never came: those that follow are lost for `reason` until an entry, or concealed.

        Gives what was still under way.
        """
        if self._settings.show_broken and not self._waiting_for:
            self._under_way.break_group()
            return []
        return self._wait(reason)

    def feed(self, index: int, data: bytes, is_key: bool) -> list[Outcome]:
        """Decode one access unit in Annex-B form; indices grow.

        A unit that decoding begins at gets the parameter sets that came before, if it has none.
        """
        if not data:  # would mean the end of the stream to the decoder
            return [*self.missing(), Lost(index, CORRUPT)]
        outcomes = self._heed_b_slices(data)
        self._sets.take(data)
        if self._waiting_for or is_key:
            entry = self._syntax.entry_of(data)
            reason = self._refusal(entry, is_key)
            if reason:
                return [*outcomes, Lost(index, reason)]
            outcomes += self._restart_for(entry)
            data = self._entered(index, entry, data)
        elif self._skips_leading and self._syntax.leads_key_frame(data):
            return [*outcomes, Lost(index, NO_KEY_FRAME)]
        return outcomes + self._decode(index, data)

    def flush(self) -> list[Outcome]:
        """Give what is still under way; the stream ends here."""
        self._waiting_for = NO_KEY_FRAME
        return self._restart()

    def _heed_b_slices(self, data: bytes) -> list[Outcome]:
        if self._reorders or self._settings.codec != "h264" or not has_b_slice(data):
            return []
        self._reorders = True
        if not self._ignore_reordering:
            return []
        self._ignore_reordering = False
        return self._wait(self._waiting_for or NO_KEY_FRAME)

    def _refusal(self, entry: Entry, is_key: bool) -> str | None:
        """Why decoding cannot begin here; None when it can, or has begun."""
        if not self._waiting_for:
            return None
        self._waited += 1
        intra_will_do = is_key or self._waited > _PATIENCE
        if entry is Entry.NONE or (entry is Entry.INTRA and not intra_will_do):
            return self._waiting_for
        if not self._sets.complete:
            self._waiting_for = NO_PARAMETER_SETS
        return None if self._sets.complete else NO_PARAMETER_SETS

    def _restart_for(self, entry: Entry) -> list[Outcome]:
        """Nothing of before may stay in a decoder that goes on at anything but a key frame.

        Nor at one of a new size, which would push out what is under way.
        """
        same_sets = self._sets.annexb() == self._sets_in_use
        goes_on = same_sets if entry is Entry.KEY else not self._waiting_for
        if entry is Entry.KEY and self._threads != self._threads_that_pay:
            self._threads = self._threads_that_pay
            goes_on = False
        return [] if goes_on or self._fresh else self._restart()

    @property
    def _threads_that_pay(self) -> int:
        """One thread until a whole group came without B slices.

        With several, FFmpeg tells too late that a picture is broken which others are shown before.
        """
        known = self._settings.low_delay or (not self._fresh and not self._reorders)
        return self._settings.decoding_threads if known else 1

    def _entered(self, index: int, entry: Entry, data: bytes) -> bytes:
        """`data` with all that the decoder needs to begin, or to go on, with it."""
        begins = self._fresh or self._waiting_for is not None
        if begins or entry is Entry.KEY:
            self._under_way.begin_group(index, recovering=entry is not Entry.KEY)
        if begins or entry is not Entry.NONE:
            self._skips_leading = begins
        if begins:
            self._waiting_for, self._waited, self._fresh = None, 0, False
            self._sets_in_use = self._sets.annexb()
            data = self._sets_in_use + data
        return without_reordering(data) if self._ignore_reordering else data

    def _decode(self, index: int, data: bytes) -> list[Outcome]:
        packet = av.Packet(len(data))  # of Python's memory, threads would need its lock to let go
        packet.update(data)
        packet.pts = index
        under_way, outcomes = self._under_way, list[Outcome]()
        under_way.add(index)
        self._in_threads.append(index)
        try:
            under_way.came(self._context.decode(packet))
        except av.FFmpegError:
            outcomes = under_way.failed(self._in_threads[0])  # what its threads finished last
        outcomes += under_way.without_delay(index) if self._ignore_reordering else under_way.ready()
        if under_way.broken and not self._settings.show_broken:
            outcomes += self._wait(NO_KEY_FRAME)
        return outcomes

    def _wait(self, reason: str) -> list[Outcome]:
        was_waiting, self._waiting_for = self._waiting_for, reason
        return [] if was_waiting else self._restart()

    def _restart(self) -> list[Outcome]:
        with contextlib.suppress(av.FFmpegError, EOFError):  # what then stays there is corrupt
            self._under_way.came(self._context.decode(None))
        self._context = self._open_context()
        self._fresh = True
        return self._under_way.end()

    def _open_context(self) -> av.VideoCodecContext:
        settings = self._settings
        frame_threads = 1 if settings.low_delay else self._threads
        self._in_threads: deque[int] = deque(maxlen=frame_threads)
        context = av.CodecContext.create(_FFMPEG_NAMES[settings.codec], "r")
        if settings.size:
            context.width, context.height = settings.size
        context.thread_count = self._threads
        context.thread_type = "SLICE" if settings.low_delay else "FRAME"
        if settings.low_delay:
            context.flags |= av.codec.context.Flags.low_delay
            if settings.codec == "h265" and not settings.show_broken:
                # FFmpeg flags no broken H.265
                context.options = {"err_detect": "explode"}
        if settings.show_broken:
            context.flags |= av.codec.context.Flags.output_corrupt
        return context
