# SPDX-License-Identifier: Apache-2.0
"""Decoding beside the network: a bounded queue between them that loses whole GOPs when full."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from worldsystem_core.frames import Camera, EncodedFrame, Frame
from worldsystem_core.handoff import Handoff
from worldsystem_ingest.codec.decoder import Decoded, Decoder, DecoderSettings, Outcome
from worldsystem_ingest.codec.pictures import camera_of_size
from worldsystem_ingest.config import IngestConfig
from worldsystem_ingest.sink import CORRUPT, DECODER_BUSY, NO_KEY_FRAME, STOPPED, Sink

_POLL_S = 0.2
_MOST_GROUPS = 64  # under way at once, were every picture a key frame: the decoder holds up to 33
_MOST_QUEUED_BYTES = 64 * 2**20  # 60 pictures at 250 Mbit/s and 30 fps


@dataclass(frozen=True, eq=False)
class _Queued:
    unit: EncodedFrame
    after_loss: bool
    camera: Camera | None


@dataclass(eq=False)
class _Open:
    """A unit that the decoder has, with the id and the stamp that its picture would leave by."""

    queued: _Queued
    id: int
    stamp_ns: int


class LiveDecoding:
    """Takes access units from the network thread and decodes them in the thread that runs it.

    Ids and stamps grow in the order in which pictures leave, which with B pictures is not the one
    in which they are coded: each takes the smallest id and the earliest stamp of those of its group
    that the decoder has, and leaves its own to them. Times of capture so stay with their pictures,
    arrivals go to pictures in the order in which they are shown, and each id ends once.

    The network is never kept waiting: what does not fit is dropped as `decoder_busy`, with
    everything that depends on it up to the next key frame. `camera` is asked as each picture comes,
    because the sender may have changed by when it is decoded. `need_key_frame` is called from the
    decoding thread, with the reason, for each picture that is lost or broken until one comes, and
    never after `close`. `broken_frames` counts pictures handed on though parts of them are the
    decoder's guess (`broken_pictures` "show").
    """

    def __init__(
        self,
        sink: Sink,
        config: IngestConfig,
        camera: Callable[[], Camera | None],
        need_key_frame: Callable[[str], None],
    ) -> None:
        self._sink = sink
        self._config = config
        self._camera = camera
        self._need_key_frame = need_key_frame
        capacity = config.decode_queue_frames
        self._queue: Handoff[_Queued] = Handoff(capacity, on_drop=self._overflowed)
        self._queued_bytes = 0
        self._counting_bytes = threading.Lock()
        self._codec = "h264"
        self._decoder = self._open_decoder()
        self._open: dict[int, _Open] = {}  # by the unit's own id
        self._keys: deque[int] = deque([-1], maxlen=_MOST_GROUPS)
        self._last_stamp_ns = -1
        self._last_id: int | None = None
        self.broken_frames = 0

    def __len__(self) -> int:
        return len(self._queue)

    def put(self, unit: EncodedFrame, after_loss: bool) -> None:
        """Queue one access unit; `after_loss` says that the one before never came."""
        self._count_bytes(len(unit.data))
        self._queue.put(_Queued(unit, after_loss, self._camera()))
        while self._queued_bytes > _MOST_QUEUED_BYTES and (oldest := self._queue.get(0.0)):
            self._queue.dropped += 1
            self._overflowed(oldest)

    def run(self, stop: threading.Event) -> None:
        """Decode until `stop`; what is then still queued is dropped as `stopped`."""
        while not stop.is_set():
            queued = self._queue.get(_POLL_S)
            if queued:
                self._count_bytes(-len(queued.unit.data))
                self._decode(queued)

    def take_no_more(self) -> None:
        """What comes from now on is dropped as `stopped`; `run` need not wait for it."""
        self._queue.close()

    def close(self) -> None:
        """Settle what is left; call when the network has ended and `run` has returned."""
        self._queue.close()
        self._settle(self._decoder.flush())
        while queued := self._queue.get(0.0):
            self._sink.dropped(queued.unit.id, STOPPED, queued.unit.stream)

    def _open_decoder(self) -> Decoder:
        return Decoder(
            DecoderSettings(
                codec=self._codec,
                low_delay=True,
                show_broken=self._config.broken_pictures == "show",
                threads=self._config.decode_threads,
            )
        )

    def _decode(self, queued: _Queued) -> None:
        unit = queued.unit
        if unit.codec != self._codec:
            self._settle(self._decoder.flush())
            self._codec = unit.codec
            self._decoder = self._open_decoder()
        began_late = self._last_id is None and self._queue.dropped > 0
        has_gap = self._last_id is not None and unit.id != self._last_id + 1
        if began_late or has_gap or queued.after_loss:
            reason = NO_KEY_FRAME if queued.after_loss else DECODER_BUSY
            self._settle(self._decoder.missing(reason))
        self._last_id = unit.id
        if unit.is_key:
            self._keys.append(unit.id)
        self._open[unit.id] = _Open(queued, unit.id, unit.stamp_ns)
        self._settle(self._decoder.feed(unit.id, unit.data, unit.is_key))

    def _count_bytes(self, count: int) -> None:
        with self._counting_bytes:
            self._queued_bytes += count

    def _overflowed(self, queued: _Queued) -> None:
        self._count_bytes(-len(queued.unit.data))
        reason = STOPPED if self._queue.closed else DECODER_BUSY
        self._sink.dropped(queued.unit.id, reason, queued.unit.stream)

    def _settle(self, outcomes: list[Outcome]) -> None:
        for outcome in outcomes:
            if isinstance(outcome, Decoded):
                self._take_earliest(outcome.index)
            left = self._open.pop(outcome.index)
            if isinstance(outcome, Decoded):
                self._sink.frame(self._frame(left, outcome))
                self.broken_frames += not outcome.whole
            else:
                self._sink.dropped(left.id, outcome.reason, left.queued.unit.stream)
            if not self._queue.closed and not (isinstance(outcome, Decoded) and outcome.whole):
                self._need_key_frame(CORRUPT if isinstance(outcome, Decoded) else outcome.reason)

    def _take_earliest(self, index: int) -> None:
        """Give the unit `index` the smallest id and the earliest stamp of those that its picture is
        shown before, in exchange for its own.

        What is left of groups before, or in a stream without reordering, gives no picture any more.
        """
        if not self._decoder.reorders:
            return
        leaving = self._open[index]
        begin = max((key for key in self._keys if key <= index), default=-1)
        group = [other for own, other in self._open.items() if own >= begin]
        first = min(group, key=lambda other: other.id)
        first.id, leaving.id = leaving.id, first.id
        first = min(group, key=lambda other: other.stamp_ns)
        first.stamp_ns, leaving.stamp_ns = leaving.stamp_ns, first.stamp_ns

    def _frame(self, left: _Open, decoded: Decoded) -> Frame:
        height, width = decoded.rgb.shape[:2]
        camera = left.queued.camera
        self._last_stamp_ns = max(left.stamp_ns, self._last_stamp_ns + 1)
        return Frame(
            id=left.id,
            stamp_ns=self._last_stamp_ns,
            rgb=decoded.rgb,
            camera=camera and camera_of_size(camera, width, height),
            stream=left.queued.unit.stream,
        )
