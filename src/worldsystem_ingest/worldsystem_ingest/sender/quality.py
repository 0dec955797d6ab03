# SPDX-License-Identifier: Apache-2.0
"""How well the link from one sender carries: bandwidth, jitter, loss, and what the clock knows."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from worldsystem_ingest.sender.clock import ClockEstimator, ClockState

_log = logging.getLogger(__name__)
_BANDWIDTH_SAMPLE_S = 5.0
_BANDWIDTH_SAMPLES = 10
_STALLED_SAMPLES = 2  # a poor link hangs for so long; who left or pauses is silent for longer
_LOSS_WINDOW_S = 5
_JITTER_GAIN, _QUEUE_GAIN = 1 / 16, 1 / 30
_JITTER_MOST_NS = 10 * 10**9  # more is a clock that was set or a link that broke
_REORDERED_NS = 10**9  # 16 pictures at 16 Hz; what is further back is a clock that was set


@dataclass(frozen=True, kw_only=True)
class LinkQuality:
    """One stream's link at one moment.

    `bandwidth_average_mbps` is the mean of ten samples of 5 s, None until there are ten;
    `jitter_ms` follows RFC 3550 and, like `queue_delay_ms`, is None while the sender's time is
    not usable. `queue_delay_ms` is what pictures of late waited beyond the path's least delay.
    `loss` is the share of pictures that never came of those due in the last 5 s, without those that
    a broken connection cost; `loss_total` is that of all since the stream began. `asked_kbps` is
    the bit rate that the sender was asked for, None when free.
    """

    bandwidth_mbps: float = 0.0
    bandwidth_average_mbps: float | None = None
    low_bandwidth: bool = False
    jitter_ms: float | None = None
    queue_delay_ms: float | None = None
    loss: float = 0.0
    loss_total: float = 0.0
    asked_kbps: int | None = None
    key_frames_asked: int = 0
    clock: ClockState = field(default_factory=ClockState)


class Bandwidth:
    """Bit rate of what comes in, over the last 5 s and over ten such samples; for any thread."""

    def __init__(
        self, now_s: Callable[[], float] = time.monotonic, *, low_mbps: float = 3.0
    ) -> None:
        self._now_s = now_s
        self._low_mbps = low_mbps
        self._lock = threading.Lock()
        self._samples: deque[float] = deque(maxlen=_BANDWIDTH_SAMPLES)
        self._bytes = 0
        self._since_s = self._now_s()
        self.total_bytes = 0

    def add(self, size_bytes: int) -> None:
        """Count bytes that just came in; the time before the first ones does not count."""
        with self._lock:
            if not self.total_bytes:
                self._samples.clear()
                self._since_s = self._now_s()
            self._close_samples()
            self._bytes += size_bytes
            self.total_bytes += size_bytes

    def now_mbps(self) -> float:
        """Rate of the sample under way, or of the last full one while that is young [Mbit/s]."""
        with self._lock:
            self._close_samples()
            age_s = self._now_s() - self._since_s
            if age_s < 1.0 and self._samples:
                return self._samples[-1]
            return self._bytes * 8e-6 / max(age_s, 0.2)

    def average_mbps(self) -> float | None:
        """Mean of the last ten samples [Mbit/s]; None until there are ten."""
        with self._lock:
            self._close_samples()
            if len(self._samples) < _BANDWIDTH_SAMPLES:
                return None
            return sum(self._samples) / _BANDWIDTH_SAMPLES

    @property
    def low(self) -> bool:
        """Whether video comes in, but for stalls of a few samples, and then under `low_mbps`."""
        if self.average_mbps() is None:
            return False
        with self._lock:
            came = [sample for sample in self._samples if sample]
        comes = len(came) >= _BANDWIDTH_SAMPLES - _STALLED_SAMPLES
        return comes and sum(came) < self._low_mbps * len(came)

    def _close_samples(self) -> None:
        now_s = self._now_s()
        if now_s - self._since_s > _BANDWIDTH_SAMPLE_S * (_BANDWIDTH_SAMPLES + 1):
            self._samples.extend([0.0] * _BANDWIDTH_SAMPLES)
            self._bytes, self._since_s = 0, now_s
        while now_s - self._since_s >= _BANDWIDTH_SAMPLE_S:
            self._samples.append(self._bytes * 8e-6 / _BANDWIDTH_SAMPLE_S)
            self._bytes = 0
            self._since_s += _BANDWIDTH_SAMPLE_S


class Jitter:
    """Interarrival jitter as in RFC 3550, section 6.4.1, of pictures with their sender's times."""

    def __init__(self) -> None:
        self._last: tuple[int, int] | None = None
        self._jitter_ns: float | None = None

    @property
    def jitter_ms(self) -> float | None:
        """The smoothed difference of delays [ms]; None until two pictures came."""
        return None if self._jitter_ns is None else self._jitter_ns * 1e-6

    def clock_was_set(self) -> None:
        """The next picture's time has nothing to do with the one before."""
        self._last = None

    def add(self, sender_ns: int, arrival_ns: int) -> None:
        """Take one picture's times; more than 10 s between two delays is no jitter."""
        last, self._last = self._last, (sender_ns, arrival_ns)
        if last is None:
            return
        difference_ns = abs((arrival_ns - last[1]) - (sender_ns - last[0]))
        if difference_ns < _JITTER_MOST_NS:
            before_ns = self._jitter_ns or 0.0
            self._jitter_ns = before_ns + (difference_ns - before_ns) * _JITTER_GAIN


class Loss:
    """Pictures that came and that never came, by the numbering: in the last 5 s and in all."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._cells: deque[list[int]] = deque(maxlen=_LOSS_WINDOW_S + 1)
        self._came = 0
        self._lost = 0

    def add(self, lost: int, *, of_link: bool = True) -> None:
        """One picture came, and `lost` before it never did: in all only, if not `of_link`."""
        second = int(self._now_s())
        if not self._cells or self._cells[-1][0] != second:
            self._cells.append([second, 0, 0])
        self._cells[-1][1] += 1
        self._cells[-1][2] += lost if of_link else 0
        self._came += 1
        self._lost += lost

    @property
    def recent(self) -> float:
        """Share lost of those due in the last 5 s; 0 when none were due."""
        oldest = self._now_s() - _LOSS_WINDOW_S
        cells = [cell for cell in self._cells if cell[0] + 1 > oldest]
        return _share(sum(cell[1] for cell in cells), sum(cell[2] for cell in cells))

    @property
    def total(self) -> float:
        """Share lost of all that were due."""
        return _share(self._came, self._lost)


class LinkMonitor:
    """Measures the link of one stream while its pictures come; for the network thread.

    `bandwidth` counts bytes, and may be read from any thread.
    """

    def __init__(self, stream: str, clock: ClockEstimator, low_mbps: float) -> None:
        self._stream = stream
        self._clock = clock
        self._low_mbps = low_mbps
        self._was_low = False
        self._loss = Loss()
        self._jitter = Jitter()
        self._first = True
        self._steps = 0
        self._queue_ms: float | None = None
        self._newest_ns = 0
        self.bandwidth = Bandwidth(low_mbps=low_mbps)

    def connected(self) -> None:
        """A new connection begins: what never came before its first picture, the break cost.

        Its sender may be another one, of whose delays nothing is known, and may stay so.
        """
        self._first = True
        self._jitter, self._queue_ms, self._newest_ns = Jitter(), None, 0

    def came(self, lost: int) -> None:
        """One picture came, and `lost` before it never did."""
        self._loss.add(lost, of_link=not self._first)
        self._first = False

    def delayed(self, sender_ns: int, arrival_ns: int) -> None:
        """Times of a picture that the clock has taken; those it does not trust count nothing.

        Nor does a B picture: on any link it is sent after one that is shown later.
        """
        waited_ns = self._clock.queue_delay_ns(sender_ns, arrival_ns)
        if waited_ns is None:
            return
        if self._clock.steps != self._steps:
            self._steps, self._newest_ns = self._clock.steps, 0
            self._jitter.clock_was_set()
        if 0 < self._newest_ns - sender_ns < _REORDERED_NS:
            return
        self._newest_ns = sender_ns
        self._jitter.add(sender_ns, arrival_ns)
        before_ms = self._queue_ms or 0.0
        self._queue_ms = before_ms + (waited_ns * 1e-6 - before_ms) * _QUEUE_GAIN

    def quality(self, asked_kbps: int | None, key_frames_asked: int) -> LinkQuality:
        """The link now; warns when its bandwidth has become low."""
        quality = LinkQuality(
            bandwidth_mbps=self.bandwidth.now_mbps(),
            bandwidth_average_mbps=self.bandwidth.average_mbps(),
            low_bandwidth=self.bandwidth.low,
            jitter_ms=self._jitter.jitter_ms,
            queue_delay_ms=self._queue_ms,
            loss=self._loss.recent,
            loss_total=self._loss.total,
            asked_kbps=asked_kbps,
            key_frames_asked=key_frames_asked,
            clock=self._clock.state,
        )
        if quality.low_bandwidth and not self._was_low:
            _log.warning(
                "%s: %.1f Mbit/s arrive on average, less than %.1f; pictures will be coarse",
                self._stream,
                quality.bandwidth_average_mbps or 0.0,
                self._low_mbps,
            )
        self._was_low = quality.low_bandwidth
        return quality


def _share(came: int, lost: int) -> float:
    return lost / (came + lost) if came + lost else 0.0
