# SPDX-License-Identifier: Apache-2.0
"""A recording played again: a part of it, at a pace of one's own, once or over and over.

Stamps stay those of the recording; with `realtime`, which is a pace of 1, they are host times, as
those of a live source: stages that are begun anew tell by them what was before. Pictures wait for
the stages, at any pace, so that what comes out does not depend on how fast this machine is.
"""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from worldsystem_core.errors import SourceError
from worldsystem_core.frames import EncodedFrame, Frame
from worldsystem_core.telemetry import Telemetry
from worldsystem_ingest.config import IngestConfig
from worldsystem_ingest.passing import PassingSink
from worldsystem_ingest.sink import OUTSIDE, Sink, Summary

if TYPE_CHECKING:  # which needs this module
    from worldsystem_ingest.source import Source

_NS = 10**9
_LONGEST_NS = 365 * 86400 * _NS  # of a recording
_OTHER_CLOCK_NS = 3600 * _NS  # so far behind the pictures nothing was measured by their clock


def is_replay(config: IngestConfig) -> bool:
    """Whether the settings ask for anything that this module does."""
    return bool(config.speed or config.start_s or config.play_s or config.loop)


class ReplayedSource:
    """Plays a file or a bag as `speed`, `start_s`, `play_s` and `loop` say.

    Raises `SourceError` for a live source, which cannot be played again.
    """

    live = False

    def __init__(self, source: Source, config: IngestConfig) -> None:
        if source.live:
            raise SourceError(
                "only files, folders and bags can be replayed; leave out `speed`, `start_s`, "
                "`play_s` and `loop` for a live source"
            )
        self.source = source
        self._config = config
        self._rounds = 0

    def run(self, sink: Sink, stop: threading.Event) -> Summary:
        """Run the source once, or until `stop` with `loop`; ids and stamps go on growing."""
        replay = _Replay(sink, self._config, stop)
        while True:
            summary = self.source.run(replay, replay.ended)
            self._rounds += 1
            if stop.is_set() or not self._config.loop or summary.broken or not replay.frames:
                return Summary(frames=replay.frames, broken=summary.broken)
            replay.begin_again()

    def facts(self) -> dict[str, object]:
        """Those of the source, and how it is played."""
        pace = f"{self._config.speed:g}x" if self._config.speed else "as fast as it is taken"
        return {**self.source.facts(), "pace": pace, "rounds": self._rounds}

    def problem(self) -> str:
        """That of the source."""
        return self.source.problem()


class _EitherEvent(threading.Event):
    """Set when it was set itself, or when another one was."""

    def __init__(self, other: threading.Event) -> None:
        super().__init__()
        self._other = other

    def is_set(self) -> bool:
        return super().is_set() or self._other.is_set()

    def wait(self, timeout: float | None = None) -> bool:
        return self._other.wait(timeout) or self.is_set()


class _Replay(PassingSink):
    """Keeps the pace, leaves out what lies outside the part, renumbers further rounds.

    The first picture says when the recording began: what was measured may be of another clock.
    """

    def __init__(self, sink: Sink, config: IngestConfig, stop: threading.Event) -> None:
        super().__init__(sink)
        self._config = config
        self._stop = stop
        self.ended = _EitherEvent(stop)
        self.frames = 0
        self._first_ns: int | None = None
        self._last_ns = 0
        self._paced_from: tuple[float, int] | None = None
        self._id_offset = self._next_id = 0
        self._stamp_offset_ns = 0
        self._lead_in_ns = round(config.start_s * _NS)
        self._has_host_times = config.realtime and config.speed == 1.0
        self._is_anchored = self._is_further = False

    def begin_again(self) -> None:
        """The next round follows the one before, as if the recording went on."""
        length_ns = self._last_ns - (self._first_ns or 0) + _NS // 30
        self._id_offset = self._next_id
        self._stamp_offset_ns += length_ns - (self._lead_in_ns if self._has_host_times else 0)
        self._is_anchored, self._is_further = False, True
        self._paced_from = None
        self.ended = _EitherEvent(self._stop)

    def encoded(self, unit: EncodedFrame) -> None:
        """Pass on what lies within, or before: pictures of the part may need it."""
        self._anchor(unit.stamp_ns)
        if not self._ends_at(unit.stamp_ns):
            moved = replace(
                unit, id=unit.id + self._id_offset, stamp_ns=unit.stamp_ns + self._stamp_offset_ns
            )
            self._sink.encoded(moved)

    def frame(self, frame: Frame) -> None:
        """Wait for its time and pass on, or count it as outside."""
        self._note(frame.stamp_ns)
        self._anchor(frame.stamp_ns)
        if self._is_before(frame.stamp_ns) or self._ends_at(frame.stamp_ns):
            self.dropped(frame.id, OUTSIDE, frame.stream)
            return
        self._pace(frame.stamp_ns)
        self.frames += 1
        frame_id = self._moved(frame.id)
        self._sink.frame(
            replace(frame, id=frame_id, stamp_ns=frame.stamp_ns + self._stamp_offset_ns)
        )

    def measured(self, sample: Telemetry, stream: str) -> None:
        """Pass on what lies within."""
        if self._is_before(sample.stamp_ns) or self._is_after(sample.stamp_ns):
            return
        if self._has_host_times and not self._is_of_now(sample.stamp_ns):
            return
        if sample.stamp_ns - self._last_ns < _OTHER_CLOCK_NS:  # the next round follows it, too
            self._last_ns = max(self._last_ns, sample.stamp_ns)
        stamp_ns = sample.stamp_ns + self._stamp_offset_ns
        self._sink.measured(replace(sample, stamp_ns=stamp_ns), stream)

    def dropped(self, frame_id: int, reason: str, stream: str) -> None:
        """Pass on."""
        self._sink.dropped(self._moved(frame_id), reason, stream)

    def _anchor(self, first_ns: int) -> None:
        """With host times the part's first picture is of now, in each round, though never before
        the last of the round before."""
        if self._has_host_times and not self._is_anchored:
            now_ns = time.time_ns() - first_ns - self._lead_in_ns
            least_ns = self._stamp_offset_ns if self._is_further else now_ns
            self._stamp_offset_ns = max(least_ns, now_ns)
        self._is_anchored = True

    def _is_of_now(self, stamp_ns: int) -> bool:
        """Whether a sample can have a host time: pictures have, and it is of their clock."""
        return self._is_anchored and abs(stamp_ns - self._last_ns) < _LONGEST_NS

    def _moved(self, frame_id: int) -> int:
        moved = frame_id + self._id_offset
        self._next_id = max(self._next_id, moved + 1)
        return moved

    def _note(self, stamp_ns: int) -> None:
        self._first_ns = stamp_ns if self._first_ns is None else self._first_ns
        self._last_ns = max(self._last_ns, stamp_ns)

    def _since_start_s(self, stamp_ns: int) -> float:
        return (stamp_ns - (stamp_ns if self._first_ns is None else self._first_ns)) / _NS

    def _is_before(self, stamp_ns: int) -> bool:
        return self._since_start_s(stamp_ns) < self._config.start_s

    def _is_after(self, stamp_ns: int) -> bool:
        config, since_start_s = self._config, self._since_start_s(stamp_ns)
        return bool(config.play_s) and since_start_s > config.start_s + config.play_s

    def _ends_at(self, stamp_ns: int) -> bool:
        """Whether a picture lies after the part; the source then need not go on."""
        is_after = self._is_after(stamp_ns)
        if is_after:
            self.ended.set()
        return is_after

    def _pace(self, stamp_ns: int) -> None:
        if not self._config.speed:
            return
        if self._paced_from is None:
            self._paced_from = (time.monotonic(), stamp_ns)
        began_s, began_ns = self._paced_from
        due_s = began_s + (stamp_ns - began_ns) / _NS / self._config.speed
        self._stop.wait(max(0.0, due_s - time.monotonic()))
